package consul

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestParseDefinition(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"wrapped", `{"service":{"name":"web","port":1}}`, "web"},
		{"with an ID", `{"Service":{"ID":"web-1","Name":"web"}}`, "web-1"},
		{"bare", `{"id":"w","name":"web"}`, "w"},
		{"several", `{"services":[{"name":"a"},{"name":"b"}]}`, "a b"},
		{"empty list", `{"services":[]}`, "error: it defines no service"},
		{"no name", `{"service":{}}`, "error: a service has no name"},
		{"HCL", `service { name = "web" }`, "error: it is no JSON object"},
		{"too long", strings.Repeat(" ", maxDefinition+1), "error: it has more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := parseDefinition([]byte(tt.text))
			var got []string
			for _, d := range list {
				got = append(got, d.id)
			}
			g := strings.Join(got, " ")
			if err != nil {
				g = "error: " + err.Error()
			}
			if g != tt.want && (err == nil || !strings.HasPrefix(g, tt.want)) {
				t.Errorf("got %q, want %q", g, tt.want)
			}
		})
	}
}

func FuzzParseDefinition(f *testing.F) {
	f.Add([]byte(`{"service":{"name":"web","connect":{"sidecar_service":{}}}}`))
	f.Add([]byte(`{"services":[null,{"name":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseDefinition(data)
		if (err == nil) != (len(list) > 0) {
			t.Errorf("%d services, %v", len(list), err)
		}
		for _, d := range list {
			if d.id == "" || !json.Valid(d.body) {
				t.Errorf("%q: %q", d.id, d.body)
			}
		}
	})
}

// A service with its sidecar is registered as the file says, again when the
// agent has lost it, and gone at the end.
func TestDefinitionIsKept(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	file := filepath.Join(t.TempDir(), "web.json")
	if err := os.WriteFile(file, []byte(`{"service":{"id":"web-1","name":"web","port":8080,"connect":{"sidecar_service":{
		"port":21000,"checks":[],"proxy":{"config":{"protocol":"http"},"upstreams":[{"destination_name":"api","local_bind_port":15001}]}}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Address: c.Address, Register: &Register{Definition: file}, Sidecar: &Sidecar{For: "web-1"}}
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDefinition(cfg, client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { client.Run(ctx) })
	wg.Go(func() { d.Run(ctx) })
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	services := func() map[string]struct {
		Kind  string
		Proxy struct {
			Upstreams []struct{ DestinationName string }
		}
	} {
		var all map[string]struct {
			Kind  string
			Proxy struct {
				Upstreams []struct{ DestinationName string }
			}
		}
		if err := json.Unmarshal(c.Do(t, "GET", "/v1/agent/services", nil), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	await(t, "the sidecar", func() bool {
		s := services()["web-1-sidecar-proxy"]
		return s.Kind == "connect-proxy" && len(s.Proxy.Upstreams) == 1 && s.Proxy.Upstreams[0].DestinationName == "api"
	})
	c.Do(t, "PUT", "/v1/agent/service/deregister/web-1", nil)
	await(t, "the sidecar again", func() bool { return services()["web-1-sidecar-proxy"].Kind == "connect-proxy" })
	stop()
	if left := services(); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}
