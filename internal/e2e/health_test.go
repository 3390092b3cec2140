package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// checkView is what a sidecar's active checks say of an endpoint.
type checkView struct {
	Kind, State, Cause, Result string
	CauseDetail                string `json:"cause_detail"`
	Next                       time.Time
	Checks                     int
}

func (s *sidecar) check(address string) checkView {
	s.t.Helper()
	var list []struct {
		Address string
		Check   checkView
	}
	s.view("/endpoints", &list)
	for _, e := range list {
		if e.Address == address {
			return e.Check
		}
	}
	return checkView{}
}

func (s *sidecar) checked(address, state string) checkView {
	s.t.Helper()
	var v checkView
	eventually(s.t, patience, address+" is "+state+" by its checks", func() (bool, string) {
		v = s.check(address)
		return v.State == state, fmt.Sprintf("%+v", v)
	})
	return v
}

// An endpoint that serves requests but fails its checks gets no traffic, loses
// none over it, and returns when it passes again. Checks are traffic to nobody.
func TestFailedChecksTakeAnEndpointOut(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var sick atomic.Bool
	list := m.instances(3, func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && name == "api-2" && sick.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
	}, nil)
	m.catalog(addresses(list))
	web, call := m.outbound("web", "api", sections{
		"policies": `{api: {outlier: off, retry: off, balance: {slow_start: 0}, health: {http: {path: /healthz}, interval: 200ms, fast_interval: 100ms}}}`,
	})
	web.ready()
	two := list[1]
	for _, in := range list {
		web.checked(in.address, "healthy")
	}
	l := startLoad(t, "http://"+call+"/", loadOptions{})
	eventually(t, patience, "api-2 gets traffic", func() (bool, string) { return l.answered("api-2") > 5, "" })

	sick.Store(true)
	v := web.checked(two.address, "unhealthy")
	if v.Kind != "http" || v.Cause != "status" || v.CauseDetail != "HTTP 503" || v.Next.IsZero() {
		t.Errorf("%+v", v)
	}
	web.says("event=health_unhealthy", "cluster=api", two.address, "cause=status", `detail="HTTP 503"`)
	l.settled(t)
	before := l.answered("api-2")
	l.more(t, 50)
	if n := l.answered("api-2"); n != before {
		t.Errorf("%d requests went to the endpoint that fails its checks", n-before)
	}
	if n := web.metric("outrigger_cluster_endpoints_available", `cluster="api"`); n != 2 {
		t.Errorf("%v endpoints are available", n)
	}
	if _, text := web.get("/endpoints"); !strings.Contains(text, "unhealthy (status: HTTP 503)") {
		t.Errorf("/endpoints says\n%s", text)
	}

	sick.Store(false)
	web.checked(two.address, "healthy")
	web.says("event=health_healthy", "cluster=api", two.address)
	eventually(t, patience, "api-2 gets traffic again", func() (bool, string) { return l.answered("api-2") > before+5, "" })
	l.mustEnd(t, 100)

	two.recorded("a check", func(r *record) bool {
		return r.Path == "/healthz" && r.Status == 503 && r.DownstreamID == spiffe("web")
	})
	for _, r := range web.records() {
		if r.Path == "/healthz" {
			t.Fatalf("a check is recorded as traffic: %+v", r)
		}
	}
	for name, labels := range map[string][]string{
		"outrigger_health_checks_total":  {`cluster="api"`, `result="status"`},
		"outrigger_health_changes_total": {`to="unhealthy"`, two.address},
	} {
		if web.metric(name, labels...) < 1 {
			t.Errorf("%s%v is 0", name, labels)
		}
	}
}

// A gRPC server that says NOT_SERVING is left alone at once, and a changed
// configuration turns the checks off.
func TestGRPCHealthThroughSidecars(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var servers []*grpchealth.Server
	endpoints := map[string][]string{}
	for _, name := range []string{"cart-1", "cart-2"} {
		ln, err := net.Listen("tcp", freeAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		h := grpchealth.NewServer()
		h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING)
		s := grpc.NewServer()
		healthpb.RegisterHealthServer(s, h)
		testpb.RegisterTestServiceServer(s, newGRPCApp(name))
		go func() { _ = s.Serve(ln) }()
		t.Cleanup(s.Stop)
		port := ln.Addr().(*net.TCPAddr).Port
		in, address := m.inbound("cart", port, sections{"service": fmt.Sprintf("{name: cart, port: %d, protocol: grpc}", port)})
		in.ready()
		servers = append(servers, h)
		endpoints["cart"] = append(endpoints["cart"], address)
	}
	m.catalog(endpoints)
	listen := freeAddress(t)
	policies := `{cart: {balance: {algorithm: random, slow_start: 0}, health: %s}}`
	web := m.sidecar("web", sections{
		"service":   "{name: web}",
		"outbound":  fmt.Sprintf(`{upstreams: [{service: cart, listen: "%s", protocol: grpc}]}`, listen),
		"discovery": m.discovery(),
		"policies":  fmt.Sprintf(policies, "{grpc: {service: shop.Cart}, interval: 200ms, fast_interval: 100ms}"),
	})
	web.ready()
	web.checked(endpoints["cart"][0], "healthy")
	web.checked(endpoints["cart"][1], "healthy")
	client := dialGRPC(t, listen)
	answers := func() map[string]int {
		t.Helper()
		by := map[string]int{}
		for range 40 {
			out, err := client.UnaryCall(within(t, patience), &testpb.SimpleRequest{})
			if err != nil {
				t.Fatal(err)
			}
			by[out.ServerId]++
		}
		return by
	}
	if by := answers(); by["cart-1"] == 0 || by["cart-2"] == 0 {
		t.Errorf("answers %v", by)
	}
	servers[0].SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_NOT_SERVING)
	if v := web.checked(endpoints["cart"][0], "unhealthy"); v.Kind != "grpc" || v.Cause != "not_serving" {
		t.Errorf("%+v", v)
	}
	if by := answers(); by["cart-1"] != 0 {
		t.Errorf("answers %v", by)
	}
	web.rewrite(sections{"policies": fmt.Sprintf(policies, "off")})
	web.checked(endpoints["cart"][0], "")
	if by := answers(); by["cart-1"] == 0 {
		t.Errorf("without checks, answers %v", by)
	}
}

// A TCP check speaks with the application through both sidecars, so that it
// knows when only the sidecar is left.
func TestTCPCheckThroughSidecars(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var hang atomic.Bool
	ln, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				ping := make([]byte, 6)
				if _, err := io.ReadFull(c, ping); err != nil {
					return
				}
				if hang.Load() {
					_, _ = io.Copy(io.Discard, c)
					return
				}
				_, _ = io.WriteString(c, "+PONG\r\n")
			}()
		}
	}()
	port := ln.Addr().(*net.TCPAddr).Port
	in, address := m.inbound("cache", port, sections{"service": fmt.Sprintf("{name: cache, port: %d, protocol: tcp}", port)})
	in.ready()
	m.catalog(map[string][]string{"cache": {address}})
	web := m.sidecar("web", sections{
		"service":   "{name: web}",
		"outbound":  fmt.Sprintf(`{upstreams: [{service: cache, listen: "%s", protocol: tcp}]}`, freeAddress(t)),
		"discovery": m.discovery(),
		"policies":  `{cache: {health: {tcp: {send: "PING\r\n", expect: "+PONG"}, interval: 200ms, fast_interval: 100ms, timeout: 3s, unhealthy_threshold: 1}}}`,
	})
	web.ready()
	web.checked(address, "healthy")
	hang.Store(true)
	if v := web.checked(address, "unhealthy"); v.Cause != "timeout" {
		t.Errorf("it hangs: %+v", v)
	}
	hang.Store(false)
	web.checked(address, "healthy")
	_ = ln.Close()
	if v := web.checked(address, "unhealthy"); v.Cause != "closed" {
		t.Errorf("only its sidecar is left: %+v", v)
	}
	in.kill()
	eventually(t, patience, "it is told that nobody is there", func() (bool, string) {
		v := web.check(address)
		return v.Result == "connect", fmt.Sprintf("%+v", v)
	})
}
