package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/proxy/intercept"
)

// askConsulTime bounds how long Consul is asked for a registration.
const askConsulTime = 30 * time.Second

// registered adds to c what follows from the registration of the proxy with
// that ID, as `consul connect redirect-traffic -proxy-id` has it: its ports,
// and the ports that must be reached without the proxy. The agent is asked, or
// for a node the catalog.
func registered(ctx context.Context, c *intercept.Config, id, node string) error {
	ctx, cancel := context.WithTimeout(ctx, askConsulTime)
	defer cancel()
	client, err := consul.NewClient(consul.Config{Stale: true})
	if err != nil {
		return err
	}
	defer client.Close()
	var reg mesh.Registration
	if node == "" {
		if err := getJSON(ctx, client, "/v1/agent/service/"+url.PathEscape(id), nil, &reg); err != nil {
			return fmt.Errorf("the registration of proxy %s: %w", id, err)
		}
	} else {
		var list struct{ Services []mesh.Registration }
		params := map[string]string{"filter": fmt.Sprintf("ID == %q", id), "merge-central-config": "1"}
		if err := getJSON(ctx, client, "/v1/catalog/node-services/"+url.PathEscape(node), params, &list); err != nil {
			return fmt.Errorf("the registration of proxy %s on node %s: %w", id, node, err)
		}
		if len(list.Services) != 1 {
			return fmt.Errorf("node %s has no service with the ID %q in Consul's catalog", node, id)
		}
		reg = list.Services[0]
	}
	if reg.Kind != "connect-proxy" {
		return fmt.Errorf("service %s is no proxy of Consul's mesh (kind %q): give the ID of its proxy, such as %s-sidecar-proxy", id, reg.Kind, id)
	}
	var exposed []int
	if reg.Proxy.Expose.Checks && node == "" {
		var checks map[string]struct{ ExposedPort int }
		params := map[string]string{"filter": fmt.Sprintf("ServiceName == %q", reg.Proxy.DestinationServiceName)}
		if err := getJSON(ctx, client, "/v1/agent/checks", params, &checks); err != nil {
			return err
		}
		for _, k := range checks {
			exposed = append(exposed, k.ExposedPort)
		}
	}
	return fromRegistration(c, &reg, exposed)
}

func getJSON(ctx context.Context, client *consul.Client, path string, params map[string]string, v any) error {
	b, err := client.Get(ctx, path, params)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// fromRegistration puts what a registration says into c; exposed are the ports
// of checks that the proxy passes on.
func fromRegistration(c *intercept.Config, reg *mesh.Registration, exposed []int) error {
	number := func(what string, v any) (int, error) {
		n, err := strconv.Atoi(fmt.Sprint(v))
		if err != nil || n < 1 || n > 65535 {
			return 0, fmt.Errorf("%s of the registration is %v: a port goes from 1 to 65535", what, v)
		}
		return n, nil
	}
	in := reg.Port
	if v, ok := reg.Proxy.Config["bind_port"]; ok {
		n, err := number("bind_port", v)
		if err != nil {
			return err
		}
		in = n
	}
	n, err := number("the port", in)
	if err != nil {
		return err
	}
	c.InboundPort = uint16(n)
	if p := reg.Proxy.TransparentProxy.OutboundListenerPort; p != 0 {
		if n, err = number("TransparentProxy.OutboundListenerPort", p); err != nil {
			return err
		}
		c.OutboundPort = uint16(n)
	}
	for _, key := range []string{"envoy_prometheus_bind_addr", "envoy_stats_bind_addr"} {
		v, ok := reg.Proxy.Config[key]
		if !ok || v == "" {
			continue
		}
		_, port, err := net.SplitHostPort(fmt.Sprint(v))
		if err == nil {
			n, err = number(key, port)
		}
		if err != nil {
			return fmt.Errorf("%s of the registration: %w", key, err)
		}
		exposed = append(exposed, n)
	}
	for _, p := range reg.Proxy.Expose.Paths {
		exposed = append(exposed, p.ListenerPort)
	}
	for _, p := range exposed {
		if p != 0 {
			c.ExcludeInboundPorts = append(c.ExcludeInboundPorts, intercept.Range{Lo: uint32(p), Hi: uint32(p)})
		}
	}
	return nil
}
