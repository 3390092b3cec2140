package consulca

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string // the field, and words of the problem
	}{
		{Default(), ""},
		{Config{Service: "web", Datacenter: "dc1", Namespace: "n", Partition: "p", GRPCAddress: "unix:///run/grpc.sock", Snapshot: "/var/web"}, ""},
		{Config{Service: "a/b"}, "service"},
		{Config{Datacenter: ".."}, "datacenter"},
		{Config{Namespace: "ä"}, "namespace"},
		{Config{Partition: "a b"}, "partition"},
		{Config{GRPCAddress: "localhost"}, "grpc_address is \"localhost\"; write host:port"},
		{Config{GRPCAddress: "unix://run"}, "grpc_address is \"unix://run\"; a socket needs an absolute path"},
		{Config{GRPCAddress: "tcp://a:1"}, "grpc_address has the scheme"},
		{Config{GRPCAddress: "a:1", Method: MethodLeaf}, "grpc_address is not used"},
		{Config{Snapshot: "web"}, "snapshot is \"web\"; write an absolute path"},
	} {
		var got []string
		c.cfg.Validate(func(field, problem string) { got = append(got, field+" "+problem) })
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], c.want)) {
			t.Errorf("%+v: %q, want %q", c.cfg, got, c.want)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		address string
		ca      bool
		want    target
	}{
		{"localhost:8502", false, target{"dns:///localhost:8502", false, "localhost"}},
		{"localhost:8503", false, target{"dns:///localhost:8503", true, "localhost"}},
		{"localhost:9", true, target{"dns:///localhost:9", true, "localhost"}},
		{"http://localhost:8503", true, target{"dns:///localhost:8503", false, "localhost"}},
		{"https://[::1]:9", false, target{"dns:///[::1]:9", true, "::1"}},
		{"unix:///alloc/grpc.sock", false, target{"unix:///alloc/grpc.sock", false, ""}},
		{"unix:///alloc/grpc.sock", true, target{"unix:///alloc/grpc.sock", true, "localhost"}},
	} {
		if got, err := parseTarget(c.address, c.ca); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.address, got, err, c.want)
		}
	}
	var got []string
	for _, http := range []string{"http://127.0.0.1:8500", "https://consul:8501/prefix", "consul:8500", "http://[::1]:8500", "unix:///run/consul.sock"} {
		got = append(got, beside(http))
	}
	want := []string{"http://127.0.0.1:8502", "https://consul:8503", "http://consul:8502", "http://[::1]:8502", ""}
	if !slices.Equal(got, want) {
		t.Errorf("beside the HTTP address: %q, want %q", got, want)
	}
}

func TestServiceID(t *testing.T) {
	t.Setenv("CONSUL_NAMESPACE", "")
	t.Setenv("CONSUL_PARTITION", "")
	got := fmt.Sprint((&Config{}).ServiceID("td", "dc1", "web"), " ", (&Config{Namespace: "n", Partition: "p"}).ServiceID("td", "dc1", "web"))
	if want := "spiffe://td/ns/default/dc/dc1/svc/web spiffe://td/ap/p/ns/n/dc/dc1/svc/web"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for id, want := range map[string]string{"spiffe://td/ap/p/ns/n/dc/dc1/svc/web": "dc1", "spiffe://td/ns/n/sa/web": "", "spiffe://td/gateway/mesh/dc/dc1": ""} {
		if got := datacenterOf(id); got != want {
			t.Errorf("%s: datacenter %q, want %q", id, got, want)
		}
	}
}
