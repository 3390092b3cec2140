package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/file"
	"github.com/outrigger-mesh/outrigger/mtls/consulca"
)

// inCode is a configuration as a program makes one.
func inCode() *Config {
	c := Default()
	c.Service.Name, c.Service.Port = "web", 8080
	c.Identity.WorkloadAPI = "unix:///run/spire/agent.sock"
	c.Discovery.File = &file.Config{Path: "catalog.yaml"}
	c.Outbound.Upstreams = []Upstream{{Service: "api", Listen: "127.0.0.1:9001"}}
	return &c
}

func problemsOf(c *Config) []string {
	var all []string
	c.Validate(func(field, problem string) { all = append(all, field+": "+problem) })
	return all
}

func TestInCode(t *testing.T) {
	c := inCode().WithDefaults()
	if got := problemsOf(c); len(got) > 0 {
		t.Errorf("problems: %q", got)
	}
	if c.Inbound.Protocol != ProtocolHTTP || c.Outbound.Upstreams[0].Protocol != ProtocolHTTP {
		t.Errorf("protocols %q, %q", c.Inbound.Protocol, c.Outbound.Upstreams[0].Protocol)
	}
	if _, ok := c.Policies["api"]; !ok {
		t.Error("the upstream has no policy")
	}
}

func TestWithDefaultsCopies(t *testing.T) {
	c := inCode()
	c.Policies = map[string]Policy{AnyService: DefaultPolicy()}
	before := fmt.Sprintf("%+v %+v", *c, *c.Policies[AnyService].Retry)
	n := c.WithDefaults()
	n.Outbound.Upstreams[0].Listen = "127.0.0.1:1"
	n.Policies["api"].Retry.Attempts = 9
	n.Policies[AnyService].Retry.On[0] = 5
	n.Discovery.File.Path = "other"
	if after := fmt.Sprintf("%+v %+v", *c, *c.Policies[AnyService].Retry); after != before {
		t.Errorf("changed\nfrom %s\nto   %s", before, after)
	}
	if c.Discovery.File.Path != "catalog.yaml" {
		t.Error("the copy shares discovery.file")
	}
}

func TestValidateChangesNothing(t *testing.T) {
	for _, path := range files(t, "testdata/good/*", 7) {
		l, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		before := deepCopy(reflect.ValueOf(l.Config)).Interface().(*Config)
		if got := problemsOf(l.Config); len(got) > 0 {
			t.Errorf("%s: %q", path, got)
		}
		if !reflect.DeepEqual(before, l.Config) {
			t.Errorf("%s: Validate changed it", path)
		}
	}
}

// What the types of YAML already exclude must be refused of a program as well.
func TestInCodeMistakes(t *testing.T) {
	for want, change := range map[string]func(*Config){
		`drain.delay: is negative; a duration is 0 or more`:                                                         func(c *Config) { c.Drain.Delay = -time.Second },
		`service.protocol: is "h2"; must be http, http2, grpc, tcp or auto`:                                         func(c *Config) { c.Service.Protocol = "h2" },
		`telemetry.tracing.sampling_percent: is -1; a percentage is from 0 to 100`:                                  func(c *Config) { c.Telemetry.Tracing.SamplingPercent = -1 },
		`outbound.upstreams[0].protocol: is "udp"; must be http, http2, grpc, tcp or auto`:                          func(c *Config) { c.Outbound.Upstreams[0].Protocol = "udp" },
		`policies.api.retry.attempts: must be between 1 (no retry) and 10`:                                          func(c *Config) { c.Policies["api"].Retry.Attempts = 99 },
		`service.port: is -1; write a number from 1 to 65535, or 0 for a service that only calls others`:            func(c *Config) { c.Service.Port = -1 },
		`telemetry.access_log.path: is empty; write stdout, stderr, off or a path`:                                  func(c *Config) { c.Telemetry.AccessLog.Path = "" },
		`identity.min_tls: is "1.0"; must be 1.3 or 1.2`:                                                            func(c *Config) { c.Identity.MinTLS = "1.0" },
		`service.address: is ""; write an IP address such as 127.0.0.1, or the path of a Unix socket as unix:/PATH`: func(c *Config) { c.Service.Address = "" },
	} {
		c := inCode().WithDefaults()
		change(c)
		if got := problemsOf(c); !slices.Contains(got, want) {
			t.Errorf("want %s\ngot  %q", want, got)
		}
	}
}

func TestServiceName(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "a": true, "web-2": true, "Web_shop.v1": true, "0": true,
		"": false, "-web": false, "web.": false, "web shop": false, "a/b": false, "wéb": false, "*": false,
	} {
		if got := serviceName(name); got != want {
			t.Errorf("serviceName(%q) = %v", name, got)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "[::1]:80", false},
		{"[::]:80", "127.0.0.1:80", true},
		{"[::]:80", "[::1]:80", true},
		{"[::]:80", "0.0.0.0:80", true},
		{"127.0.0.1:80", "[::1]:80", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
	} {
		a, b := netip.MustParseAddrPort(c.a), netip.MustParseAddrPort(c.b)
		if overlap(a, b) != c.want || overlap(b, a) != c.want {
			t.Errorf("overlap(%s, %s) is not %v both ways", a, b, c.want)
		}
	}
}

func TestExpectedID(t *testing.T) {
	i := Identity{ServiceID: "spiffe://{trust_domain}/ns/prod/{service}"}
	if got := i.ExpectedID("example.org", "", "api"); got != "spiffe://example.org/ns/prod/api" {
		t.Error(got)
	}
	// With Consul's CA the form is Consul's, and Envoy's TLS is enough.
	c := Default()
	c.Identity.Consul = &consulca.Config{Namespace: "default", Partition: "default"}
	i = c.WithDefaults().Identity
	if got := i.ExpectedID("td.consul", "dc1", "api"); got != "spiffe://td.consul/ns/default/dc/dc1/svc/api" || i.MinTLS != "1.2" {
		t.Errorf("%s, TLS %s", got, i.MinTLS)
	}
	i.Consul.Datacenter = "dc2"
	if got := i.ExpectedID("td.consul", "dc1", "api"); got != "spiffe://td.consul/ns/default/dc/dc2/svc/api" {
		t.Error(got)
	}
}

func TestDiscoveryKind(t *testing.T) {
	for _, want := range []string{"consul", "file", "dns", ""} {
		c := Default()
		f := reflect.ValueOf(&c.Discovery).Elem()
		for i := range f.NumField() {
			if k := f.Type().Field(i).Tag.Get("yaml"); k == want {
				f.Field(i).Set(reflect.New(f.Field(i).Type().Elem()))
			}
		}
		if got := c.Discovery.Kind(); got != want {
			t.Errorf("Kind = %q, want %q", got, want)
		}
	}
}
