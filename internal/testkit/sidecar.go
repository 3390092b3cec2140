package testkit

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"testing"
	"time"
)

// Sidecar is an instance of a service with a sidecar beside it, both on
// 127.0.0.1, as an agent registers them.
type Sidecar struct {
	// Service is the name of the service, ID of the instance. The sidecar's ID
	// is ID + "-sidecar-proxy". ID defaults to Service + "-1".
	Service, ID string
	// App is the application's port, Port the sidecar's.
	App, Port int
	// Meta and Tags are the service's.
	Meta map[string]string
	Tags []string
	// Upstreams are the services that the application calls.
	Upstreams []Upstream
	// Proxy is more of the sidecar's Proxy section, such as Mode or Expose.
	Proxy map[string]any
	// Config is the opaque part of the Proxy section.
	Config map[string]any
}

// Upstream is a service that an application calls on a port of 127.0.0.1.
type Upstream struct {
	Service string
	Port    int
	// More of what Consul takes there, such as Datacenter or Config.
	More map[string]any
}

// ProxyID is the sidecar's own ID.
func (s *Sidecar) ProxyID() string { return s.id() + "-sidecar-proxy" }

func (s *Sidecar) id() string {
	if s.ID == "" {
		return s.Service + "-1"
	}
	return s.ID
}

// Register registers the service and its sidecar with the agent. Each has a
// check that passes until Health says otherwise: Consul's own for a sidecar goes
// every ten seconds and begins as critical.
func (c *ConsulAgent) Register(t testing.TB, s *Sidecar) {
	t.Helper()
	upstreams := []map[string]any{}
	for _, u := range s.Upstreams {
		m := map[string]any{"DestinationName": u.Service, "LocalBindPort": u.Port}
		maps.Copy(m, u.More)
		upstreams = append(upstreams, m)
	}
	proxy := map[string]any{"Upstreams": upstreams, "Config": s.Config, "LocalServiceAddress": "127.0.0.1"}
	maps.Copy(proxy, s.Proxy)
	check := func(id string) map[string]any {
		return map[string]any{"CheckID": "check-" + id, "Name": "told by the test", "TTL": "1h", "Status": "passing"}
	}
	c.Do(t, http.MethodPut, "/v1/agent/service/register?replace-existing-checks", map[string]any{
		"ID": s.id(), "Name": s.Service, "Address": "127.0.0.1", "Port": s.App, "Meta": s.Meta, "Tags": s.Tags, "Check": check(s.id()),
		"Connect": map[string]any{"SidecarService": map[string]any{
			"Port": s.Port, "Proxy": proxy, "Checks": []map[string]any{check(s.ProxyID())},
		}},
	})
	// What a check was told is kept over a restart of the agent, what it began as is not.
	c.Health(t, s, "passing")
}

// Deregister takes the service and its sidecar out of the catalog.
func (c *ConsulAgent) Deregister(t testing.TB, s *Sidecar) {
	t.Helper()
	c.Do(t, http.MethodPut, "/v1/agent/service/deregister/"+s.id(), nil)
}

// Health sets the checks of the service and its sidecar: "passing", "warning" or
// "critical".
func (c *ConsulAgent) Health(t testing.TB, s *Sidecar, status string) {
	t.Helper()
	for _, id := range []string{s.id(), s.ProxyID()} {
		c.Do(t, http.MethodPut, "/v1/agent/check/update/check-"+id, map[string]any{"Status": status})
	}
}

// WriteEntry writes config entries, each with its Kind and Name.
func (c *ConsulAgent) WriteEntry(t testing.TB, entries ...map[string]any) {
	t.Helper()
	for _, e := range entries {
		c.Do(t, http.MethodPut, "/v1/config", e)
	}
}

// DeleteEntry deletes a config entry.
func (c *ConsulAgent) DeleteEntry(t testing.TB, kind, name string) {
	t.Helper()
	c.Do(t, http.MethodDelete, "/v1/config/"+kind+"/"+name, nil)
}

// Intentions writes who may call a service: sources are as those of a
// service-intentions entry.
func (c *ConsulAgent) Intentions(t testing.TB, service string, sources ...map[string]any) {
	t.Helper()
	c.WriteEntry(t, map[string]any{"Kind": "service-intentions", "Name": service, "Sources": sources})
}

// Source is a source of an intention, with an action.
func Source(service, action string) map[string]any {
	return map[string]any{"Name": service, "Action": action}
}

// Until asks the agent again and again until its answer is what the test waits
// for. Answers other than 200 are none.
func (c *ConsulAgent) Until(t testing.TB, what, path string, ok func(body []byte) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), consulStart)
	defer cancel()
	var last []byte
	for {
		status, body, err := c.call(ctx, http.MethodGet, path, nil)
		if err == nil && status == http.StatusOK {
			if ok(body) {
				return
			}
			last = body
		}
		if !pause(ctx) {
			t.Fatalf("waiting until %s: %v; the last answer of %s: %s", what, ctx.Err(), path, tail(last, 2000))
		}
	}
}

// MeshGateway registers a mesh gateway on a port of 127.0.0.1 and returns its ID.
func (c *ConsulAgent) MeshGateway(t testing.TB, port int) (id string) {
	t.Helper()
	id = "mesh-gateway-" + c.opts.Datacenter
	address := map[string]any{"Address": "127.0.0.1", "Port": port}
	c.Do(t, http.MethodPut, "/v1/agent/service/register", map[string]any{
		"Kind": "mesh-gateway", "ID": id, "Name": "mesh-gateway", "Address": "127.0.0.1", "Port": port,
		"TaggedAddresses": map[string]any{"lan": address, "wan": address},
	})
	return id
}

// RotateCA gives the mesh a new root of Consul's own authority, signed by the
// old one for as long as both hold, and waits until it is the active one.
func (c *ConsulAgent) RotateCA(t testing.TB, rsa bool) {
	t.Helper()
	old := c.activeRoot(t)
	config := map[string]any{"LeafCertTTL": "72h", "PrivateKeyType": "ec", "PrivateKeyBits": 384}
	if rsa {
		config["PrivateKeyType"], config["PrivateKeyBits"] = "rsa", 2048
	}
	c.Do(t, http.MethodPut, "/v1/connect/ca/configuration", map[string]any{"Provider": "consul", "Config": config})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for c.activeRoot(t) == old {
		if !pause(ctx) {
			t.Fatal("the new root does not become the active one")
		}
	}
}

func (c *ConsulAgent) activeRoot(t testing.TB) string {
	t.Helper()
	var roots struct{ ActiveRootID string }
	if err := json.Unmarshal(c.Do(t, http.MethodGet, "/v1/connect/ca/roots", nil), &roots); err != nil {
		t.Fatal(err)
	}
	return roots.ActiveRootID
}
