package mesh

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// answers is a Consul without a network: each path has an answer, which a test
// may change, and waiting queries for it then return.
type answers struct {
	mu      sync.Mutex
	by      map[string]string // path -> "status body"; without one 404
	index   int
	changed chan struct{}
	asked   map[string]int
}

const trust = "11111111-2222-3333-4444-555555555555.consul"

func newAnswers() *answers {
	return &answers{index: 5, changed: make(chan struct{}), asked: map[string]int{}, by: map[string]string{
		"/v1/agent/service/web-proxy":    `200 {"Kind":"connect-proxy","ID":"web-proxy","Service":"web-proxy","Datacenter":"dc1","ContentHash":"a","Proxy":{"DestinationServiceName":"web","Upstreams":[{"DestinationName":"api","LocalBindPort":1}]}}`,
		"/v1/agent/connect/ca/roots":     `200 {"TrustDomain":"` + trust + `","Roots":[]}`,
		"/v1/connect/intentions/match":   `200 {"web":null}`,
		"/v1/agent/connect/authorize":    `200 {"Authorized":false,"Reason":"Default behavior configured by ACLs"}`,
		"/v1/config/jwt-provider":        `200 []`,
		"/v1/discovery-chain/api":        `200 {"Chain":{"ServiceName":"api","Protocol":"http","Datacenter":"dc1","StartNode":"resolver:api","Nodes":{"resolver:api":{"Type":"resolver","Resolver":{"Target":"api.default.default.dc1"}}},"Targets":{"api.default.default.dc1":{"ID":"api.default.default.dc1","Service":"api","Namespace":"default","Partition":"default","Datacenter":"dc1"}}}}`,
		"/v1/health/connect/api":         `200 [{"Node":{"Node":"n","Address":"10.0.0.9","Datacenter":"dc1"},"Service":{"ID":"a","Service":"api-proxy","Port":1,"Weights":{"Passing":1,"Warning":1}},"Checks":[]}]`,
		"/v1/config/proxy-defaults/glob": "404 ",
	}}
}

func (a *answers) set(path, answer string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by[path] = answer
	a.index++
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	q := req.URL.Query()
	a.mu.Lock()
	a.asked[req.URL.Path]++
	for q.Get("index") == fmt.Sprint(a.index) || q.Get("hash") != "" {
		changed := a.changed
		a.mu.Unlock()
		select {
		case <-changed:
			q.Del("hash")
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
		a.mu.Lock()
	}
	answer, index := a.by[req.URL.Path], a.index
	a.mu.Unlock()
	status, body, _ := strings.Cut(answer, " ")
	code := 404
	if status != "" {
		_, _ = fmt.Sscan(status, &code)
	}
	return &http.Response{
		StatusCode: code, Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"X-Consul-Index": {fmt.Sprint(index)}, "X-Consul-Contenthash": {fmt.Sprint("h", index)}, "X-Consul-Default-Acl-Policy": {"allow"}},
	}, nil
}

func follow(t *testing.T, a *answers) *running {
	t.Helper()
	r := start(t, consul.Config{Address: "127.0.0.1:8500", Sidecar: &consul.Sidecar{ProxyID: "web-proxy"}}, Options{Via: a}, "api")
	time.Sleep(time.Second)
	synctest.Wait()
	if r.snapshot == nil || line(r.services["api"]) != "10.0.0.9:1" {
		t.Fatalf("at the start: %+v, %s", r.snapshot, line(r.services["api"]))
	}
	return r
}

// Whatever Consul answers in place of something good, the last good state stays,
// the trouble is shown with its reason, and it ends with the next good answer.
func TestAnswersThatKeepLastGood(t *testing.T) {
	for _, path := range []struct{ path, watch string }{
		{"/v1/agent/service/web-proxy", "sidecar/registration"},
		{"/v1/agent/connect/ca/roots", "sidecar/roots"},
		{"/v1/connect/intentions/match", "sidecar/intentions"},
		{"/v1/config/jwt-provider", "sidecar/jwt-providers"},
		{"/v1/discovery-chain/api", "sidecar/chain api"},
		{"/v1/health/connect/api", "api"},
	} {
		for _, bad := range []struct{ answer, want string }{
			{"403 Permission denied", "the ACL token needs "},
			{"429 too many", "raise limits.http_max_conns_per_client"},
			{"500 No cluster leader", "No cluster leader"},
			{"200 <html>", "invalid character '<'"},
			{`200 {"a"`, "unexpected end of JSON"},
		} {
			t.Run(path.watch+" "+bad.answer[:3], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAnswers()
					r := follow(t, a)
					good, given, services := a.by[path.path], r.given, len(line(r.services["api"]))
					a.set(path.path, bad.answer)
					time.Sleep(5 * time.Second)
					synctest.Wait()
					if st := r.status(path.watch); !strings.Contains(st.LastError, bad.want) || st.Age < 0 {
						t.Errorf("status %+v, want an error with %q", st, bad.want)
					}
					if r.given != given || len(line(r.services["api"])) != services {
						t.Errorf("%d snapshots more, instances %s", r.given-given, line(r.services["api"]))
					}
					a.set(path.path, good)
					time.Sleep(15 * time.Second)
					synctest.Wait()
					if st := r.status(path.watch); st.LastError != "" {
						t.Errorf("afterwards: %+v", st)
					}
					r.stop()
				})
			})
		}
	}
}

// What this version does not understand does not allow anything.
func TestUnknownFieldsAreMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAnswers()
		r := follow(t, a)
		if r.snapshot.DefaultAllow {
			t.Error("allowed by default, which the authorization denied")
		}
		a.set("/v1/connect/intentions/match", `200 {"web":[
			{"SourceName":"a","Action":"allow","Precedence":9,"CreateIndex":3,"Hash":"x","Meta":{"k":"v"},"CreatedAt":"2026-01-01T00:00:00Z"},
			{"SourceName":"b","Action":"allow","OnlyOnSundays":true},
			{"SourceName":"c","Permissions":[{"Action":"allow","HTTP":{"PathPrefix":"/","Body":"x"}}]},
			{"SourceName":"d","Action":7}]}`)
		a.set("/v1/config/jwt-provider", `200 [{"Kind":"jwt-provider","Name":"ok","Issuer":"i","CreateIndex":1,"ModifyIndex":2},{"Name":"odd","Audience":["x"]}]`)
		time.Sleep(time.Second)
		synctest.Wait()
		var got []string
		for _, n := range r.snapshot.Intentions {
			got = append(got, fmt.Sprint(n.SourceName, " ", len(n.Unknown) > 0))
		}
		if g := strings.Join(got, ", "); g != "a false, b true, c true, d true" {
			t.Errorf("unknown: %s", g)
		}
		if p := r.snapshot.Providers; len(p) != 2 || len(p["ok"].Unknown) != 0 || len(p["odd"].Unknown) != 1 {
			t.Errorf("providers %+v", p)
		}
		r.stop()
	})
}

func TestGatewaysOfTargets(t *testing.T) {
	own := &Registration{Datacenter: "dc1"}
	for _, tt := range []struct {
		target Target
		want   string
	}{
		{Target{Datacenter: "dc1", MeshGateway: MeshGateway{"local"}}, " false false"},
		{Target{Datacenter: "dc2"}, " false false"},
		{Target{Datacenter: "dc2", MeshGateway: MeshGateway{"none"}}, " false false"},
		{Target{Datacenter: "dc2", MeshGateway: MeshGateway{"local"}}, "dc1 false true"},
		{Target{Datacenter: "dc2", MeshGateway: MeshGateway{"remote"}}, "dc2 true true"},
		{Target{Peer: "p", MeshGateway: MeshGateway{"local"}}, "dc1 false true"},
		{Target{Peer: "p", MeshGateway: MeshGateway{"remote"}}, " false false"},
		{Target{Datacenter: "dc1", Partition: "other", MeshGateway: MeshGateway{"local"}}, "dc1 false true"},
	} {
		dc, wan, ok := tt.target.gateway(own)
		if got := fmt.Sprint(dc, " ", wan, " ", ok); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.target, got, tt.want)
		}
	}
	gates := []discovery.Endpoint{{ID: "g1"}, {ID: "g2", Health: discovery.Critical}}
	if got := throughGateways(gates, []discovery.Endpoint{{Health: discovery.Critical}}); got[0].Health != discovery.Critical {
		t.Error("no instance is well, and the gateways are")
	}
	if got := throughGateways(gates, []discovery.Endpoint{{Health: discovery.Critical}, {Health: discovery.Warning}}); got[0].Health != discovery.Passing || got[1].Health != discovery.Critical || gates[0].Health != discovery.Passing {
		t.Errorf("gateways %+v", got)
	}
	t2 := &Target{Service: "api", ServiceSubset: "v2", Namespace: "ns", Partition: "ap", Datacenter: "dc2"}
	if got := ServerName("td", t2); got != "v2.api.ns.ap.dc2.internal-v1.td" {
		t.Errorf("server name %s", got)
	}
	if got := Identity("td", "api", "ns", "ap", "dc2"); got != "spiffe://td/ap/ap/ns/ns/dc/dc2/svc/api" {
		t.Errorf("identity %s", got)
	}
}
