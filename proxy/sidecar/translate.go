package sidecar

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// translation is one call of Translate.
type translation struct {
	*config.Making
	s        *mesh.Snapshot
	own      *mesh.Registration
	entry    string // the registration, as findings name it
	findings []Finding
	made     map[string]*made          // targets with a policy, by name
	virtual  map[netip.AddrPort]string // addresses, and whose they are
}

// Translate makes the configuration of the sidecar that s describes, over what
// base says. The findings come with the gravest first, also beside an error,
// which is a config.Problems where the configuration as a whole is not valid.
//
// running is the configuration of a proxy that runs, or nil: what cannot change
// without a restart stays as it is there, and findings tell of it.
func Translate(base *config.Base, s *mesh.Snapshot, running *config.Config) (*config.Loaded, []Finding, error) {
	t := &translation{s: s, own: &s.Proxy, entry: "registration " + s.Proxy.ID, made: map[string]*made{}}
	loaded, err := t.translate(base, running)
	return loaded, sorted(t.findings), err
}

func (t *translation) translate(base *config.Base, running *config.Config) (*config.Loaded, error) {
	if err := t.kind(); err != nil {
		return nil, err
	}
	proxy := t.opaque(t.entry, "Proxy.Config", t.own.Proxy.Config)
	ups := t.upstreams()
	var err error
	if t.Making, err = base.Make(t.layers(proxy, ups)...); err != nil {
		return nil, err
	}
	if err := t.extensions(); err != nil {
		return nil, err
	}
	t.identity()
	t.service(proxy)
	t.inbound(proxy)
	t.metrics(proxy)
	t.expose()
	t.wire()
	t.accessLogs()
	t.transparent()
	proxy.rest()
	t.intentions()
	for _, u := range ups {
		t.upstream(u)
	}
	t.unused()
	t.Derive()
	if running != nil {
		if err := t.hold(running); err != nil {
			return nil, err
		}
	}
	return t.Loaded("Consul " + t.entry)
}

// hold keeps what is fixed for the life of a process.
func (t *translation) hold(running *config.Config) error {
	c := t.Config
	if c.Service.Name != running.Service.Name {
		return fmt.Errorf("consul %s: is for the service %s now, and this proxy runs for %s; restart it", t.entry, c.Service.Name, running.Service.Name)
	}
	held := running.Telemetry // but what a reload may change of it
	held.Log.Level, held.Outcomes, held.AccessLog = c.Telemetry.Log.Level, c.Telemetry.Outcomes, c.Telemetry.AccessLog
	for _, f := range []struct {
		path      string
		now, then any
		keep      func()
	}{
		{"identity", c.Identity, running.Identity, func() { c.Identity = running.Identity }},
		{"discovery", c.Discovery, running.Discovery, func() { c.Discovery = running.Discovery }},
		{"admin", c.Admin, running.Admin, func() { c.Admin = running.Admin }},
		{"memory", c.Memory, running.Memory, func() { c.Memory = running.Memory }},
		{"telemetry", c.Telemetry, held, func() { c.Telemetry = held }},
	} {
		if !reflect.DeepEqual(f.now, f.then) {
			t.find(Differs, t.entry, f.path, "has changed and cannot while the proxy runs; what it was at the start holds", "restart the proxy")
			f.keep()
		}
	}
	return nil
}

// unused leaves out policies for services that are not called: upstreams come
// and go in Consul, and the file beside need not follow.
func (t *translation) unused() {
	called := map[string]bool{config.AnyService: true}
	for _, name := range t.Config.Services() {
		called[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(t.Config.Policies)) {
		if !called[name] {
			delete(t.Config.Policies, name)
			t.find(Ignored, "the file or the key "+ours, config.PolicyPath(name), "is for a service that is not called", "")
		}
	}
}

// kind refuses registrations that are none of a sidecar.
func (t *translation) kind() error {
	switch {
	case t.own.Kind == "connect-proxy" && t.own.Proxy.DestinationServiceName != "":
		return nil
	case t.own.Kind == "connect-proxy":
		return fmt.Errorf("consul %s: has no Proxy.DestinationServiceName; register it with the service that it stands beside", t.entry)
	case t.own.Connect.Native:
		return fmt.Errorf("consul %s: is a Connect-native service, not a sidecar; register a sidecar beside it", t.entry)
	case t.own.Kind == "":
		return fmt.Errorf("consul %s: is a service, not a sidecar; give --consul-sidecar-for its name, and register a sidecar beside it (connect { sidecar_service {} })", t.entry)
	}
	return fmt.Errorf("consul %s: is of kind %s; this proxy is a sidecar and runs connect-proxy only", t.entry, t.own.Kind)
}

// layers are the parts in our own language, the weakest first.
func (t *translation) layers(proxy *opaque, ups []*upstream) (list []config.Layer) {
	if data := proxy.layer(); data != nil {
		list = append(list, config.Layer{From: proxy.from(ours), Data: data})
	}
	for _, u := range ups {
		if data := u.config.layer(); data != nil {
			list = append(list, config.Layer{From: u.config.from(ours), Path: []string{"policies", u.name}, Data: data})
		}
	}
	return list
}

// errExtension is why a configuration is refused as a whole, as Consul does.
var errExtension = errors.New("is required and cannot be run here, so nothing of this configuration is put to use; remove it, or set Required: false to go on without it")

// extensions says that no extension of Envoy is run.
func (t *translation) extensions() error {
	for i, e := range t.own.Proxy.EnvoyExtensions {
		name, _ := e["Name"].(string)
		field := fmt.Sprintf("Proxy.EnvoyExtensions[%d] (%s)", i, name)
		if required, _ := e["Required"].(bool); required {
			return fmt.Errorf("consul %s: %s: %w", t.entry, field, errExtension)
		}
		t.find(Refused, t.entry, field, "is an extension of Envoy, which is not run", "remove it, or do the same with this proxy's own configuration under the key "+ours)
	}
	return nil
}

func (t *translation) find(kind Kind, entry, field, problem, remedy string) {
	t.findings = append(t.findings, Finding{Kind: kind, Entry: entry, Field: field, Problem: problem, Remedy: remedy})
}

// put sets a value of the configuration, unless one was written at path.
func put[T any](t *translation, dst *T, v T, path, from string) {
	if !t.Given(path) {
		*dst = v
		t.Came(path, from)
	}
}

// must sets a value that is not for anybody else to say.
func must[T any](t *translation, dst *T, v T, path, from string) {
	if t.Given(path) {
		t.find(Ignored, "the file or the key "+ours, path, "is Consul's to say; "+from+" is in force", "remove it there")
	}
	*dst = v
	t.Came(path, from)
}
