package mesh

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func stored() *Snapshot {
	reg := Registration{Kind: "connect-proxy", ID: "web-sidecar-proxy", Datacenter: "dc1"}
	reg.Proxy.DestinationServiceName = "web"
	return &Snapshot{
		Proxy: reg, TrustDomain: "t.consul", Datacenter: "dc1",
		Chains:     map[string]*Chain{"api": {ServiceName: "api", StartNode: "resolver:api", Nodes: map[string]*Node{"resolver:api": {Type: "resolver"}}}},
		Intentions: []Intention{{SourceName: "db", Action: "allow", Unknown: []string{"New"}}},
		Providers:  map[string]*JWTProvider{"p": {Name: "p", Unknown: []string{"Odd"}}},
	}
}

func TestStoreKeepsEverything(t *testing.T) {
	me, saved := consul.Sidecar{For: "web"}, time.Unix(1e9, 0).UTC()
	data, err := encodeStore(stored(), me, saved)
	if err != nil {
		t.Fatal(err)
	}
	got, when, err := decodeStore(data, me, "")
	if err != nil {
		t.Fatal(err)
	}
	want := stored()
	want.Stale = true
	if !when.Equal(saved) || !got.equal(want) || !reflect.DeepEqual(got.Intentions, want.Intentions) {
		t.Errorf("got %+v of %v", got, when)
	}
}

func TestStoreRefuses(t *testing.T) {
	me := consul.Sidecar{For: "web"}
	data, err := encodeStore(stored(), me, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, by string) []byte { return bytes.Replace(data, []byte(old), []byte(by), 1) }
	for _, tt := range []struct {
		name, datacenter string
		me               consul.Sidecar
		data             []byte
		want             string
	}{
		{"empty", "", me, nil, "not a snapshot of a sidecar"},
		{"something else", "", me, []byte(`{"format":"outrigger-discovery-snapshot"}` + "\n"), "not a snapshot of a sidecar"},
		{"newer", "", me, replace(`"version":1`, `"version":2`), "format version 2 and this program reads version 1"},
		{"cut short", "", me, data[:len(data)-9], "cut short"},
		{"flipped", "", me, replace(`"Action":"allow"`, `"Action":"alloW"`), "checksum"},
		{"elsewhere", "dc2", me, data, `taken in datacenter "dc1" and this proxy is configured for "dc2"`},
		{"another", "", consul.Sidecar{ProxyID: "x"}, data, "of another sidecar"},
		{"inconsistent", "", me, replace(`"trust_domain":"t.consul"`, `"trust_domain":"u.consul"`), "does not fit its first line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _, err := decodeStore(tt.data, tt.me, tt.datacenter)
			if err == nil || !strings.Contains(err.Error(), tt.want) || s != nil {
				t.Errorf("got %v, %v; want %q", s, err, tt.want)
			}
		})
	}
}

func FuzzStore(f *testing.F) {
	me := consul.Sidecar{For: "web"}
	data, err := encodeStore(stored(), me, time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("{}\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, _, err := decodeStore(data, me, "")
		if (s == nil) != (err != nil) {
			t.Errorf("%v, %v", s, err)
		}
		if s != nil && (!s.Stale || s.TrustDomain == "") {
			t.Errorf("%+v", s)
		}
	})
}

// A start while Consul is away works from the file, which Consul's own word
// replaces; a file from elsewhere is dropped when Consul says where we are.
func TestStartWithoutConsul(t *testing.T) {
	t.Parallel()
	c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	register(t, c, webWithApi)
	path := filepath.Join(t.TempDir(), "sidecar")
	cfg := consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{For: "web-1"}}
	r := start(t, cfg, Options{Snapshot: path})
	r.until(t, "the snapshot", func() bool { return r.snapshot != nil })
	r.stop()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file: %v, %v", info, err)
	}

	c.Stop(t)
	r = start(t, cfg, Options{Snapshot: path})
	r.until(t, "the file's", func() bool { return r.snapshot != nil && r.snapshot.Stale })
	if r.snapshot.Chains["api"] == nil || r.snapshot.Proxy.ID != "web-1-sidecar-proxy" {
		t.Errorf("from the file came %+v", r.snapshot)
	}
	if st := r.status("sidecar/roots"); !st.Stale || st.Age < 0 {
		t.Errorf("status %+v", st)
	}
	c.Start(t)
	r.until(t, "Consul's own", func() bool { return !r.snapshot.Stale && r.snapshot.Chains["api"] != nil })
	r.stop()

	// Another cluster at the same address.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old, _, err := decodeStore(data, *cfg.Sidecar, "")
	if err != nil {
		t.Fatal(err)
	}
	old.TrustDomain = "other.consul"
	if data, err = encodeStore(old, *cfg.Sidecar, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg, Options{Snapshot: path})
	r.until(t, "Consul's word", func() bool { return r.snapshot != nil && !r.snapshot.Stale })
	if r.snapshot.TrustDomain == "other.consul" {
		t.Error("the trust domain is the file's")
	}
}
