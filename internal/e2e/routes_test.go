package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// curl's requests take the routes that the configuration gives them.
func TestRoutesWithCurl(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	m := newMesh(t)
	services := map[string][]string{}
	for _, name := range []string{"api", "api-v2", "legacy"} {
		services[name] = []string{loopback(serve(t, named(name, echo(name))))}
	}
	m.catalog(services)
	listen := freeAddress(t)
	web := m.sidecar("web", sections{
		"service": "{name: web}", "identity": "", "discovery": m.discovery(),
		"policies": `{"*": {transport: plaintext}}`,
		"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s", routes: [
			{name: closed, match: {path_prefix: /admin}, respond: {status: 403, body: "not here\n"}},
			{name: moved, match: {path: /old}, respond: {status: 308}, response_headers: {set: {Location: /new}}},
			{name: canary, match: {headers: [{name: x-canary, exact: "1"}]}, to: api-v2, request_headers: {set: {x-was: canary}}},
			{name: legacy, match: {path_prefix: /legacy/, methods: [GET, HEAD]}, to: legacy, rewrite: {path_prefix: /},
			 request_headers: {remove: [user-agent]}, response_headers: {set: {x-from: legacy}}},
			{name: slow, match: {query: [{name: slow, present: true}]}, timeout: 30s},
			{name: half, match: {path: /half}, split: [{service: api, weight: 50}, {service: legacy, weight: 50}]}]}]}`, listen),
	})
	web.ready()
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(curl, append([]string{"-sS", "-i", "--max-time", "30", "--noproxy", "*"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	url := "http://" + listen
	for _, c := range []struct {
		args  []string
		want  []string
		route string
	}{
		{[]string{url + "/x"}, []string{" 200 OK", `"Instance":"api"`}, "api"},
		{[]string{url + "/admin/users"}, []string{" 403 Forbidden", "not here"}, "closed"},
		{[]string{"--http2-prior-knowledge", url + "/admin"}, []string{"HTTP/2 403", "not here"}, "closed"},
		{[]string{url + "/old"}, []string{" 308 Permanent Redirect", "Location: /new", "content-length: 0"}, "moved"},
		{[]string{"-H", "X-Canary: 1", url + "/x"}, []string{`"Instance":"api-v2"`, `"X-Was":["canary"]`}, "canary"},
		{[]string{"-H", "X-Canary: 2", url + "/x"}, []string{`"Instance":"api"`}, "api"},
		{[]string{url + "/legacy/a/b?c=d"}, []string{`"Instance":"legacy"`, `"Path":"/a/b"`, "x-from: legacy"}, "legacy"},
		{[]string{"-d", "x=1", url + "/legacy/a"}, []string{`"Instance":"api"`, `"Path":"/legacy/a"`}, "api"},
		{[]string{"--path-as-is", url + "/legacy/../admin"}, []string{" 400 Bad Request", "bad_request"}, "api"},
		{[]string{url + "/x?slow"}, []string{`"Instance":"api"`}, "slow"},
	} {
		out := run(c.args...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("curl %q: no %q in\n%s", c.args, want, out)
			}
		}
		id, _, _ := strings.Cut(after(strings.ToLower(out), "x-request-id: "), "\r\n")
		if id == "" { // an answer of the application: it saw the id
			id, _, _ = strings.Cut(after(out, `"X-Request-Id":["`), `"`)
		}
		r := web.recorded("curl's request", func(r *record) bool { return r.RequestID == id })
		if r.Route != c.route {
			t.Errorf("curl %q took the route %q, want %q", c.args, r.Route, c.route)
		}
		if strings.Contains(c.route, "legacy") && strings.Contains(out, `"User-Agent"`) {
			t.Errorf("the user agent is passed on:\n%s", out)
		}
	}
	both := map[bool]int{}
	for range 60 {
		both[strings.Contains(run(url+"/half"), `"Instance":"legacy"`)]++
	}
	// Of 60 draws with one half each, fewer than 8 come once in 10^10 times.
	if both[true] < 8 || both[false] < 8 {
		t.Errorf("a split in halves gave %v", both)
	}
	web.counts(60, "outrigger_route_requests_total", `route="half"`, `result="ok"`, `class="2xx"`)
	web.counts(1, "outrigger_route_requests_total", `route="api"`, `result="downstream"`, `class="4xx"`)
	web.counts(60, "outrigger_route_duration_seconds_count", `route="half"`)
	if _, body := web.get("/config"); !strings.Contains(body, `route        half: path = "/half" -> 50% api 50% legacy`) {
		t.Errorf("/config does not show the route:\n%s", body)
	}
}

func after(s, sep string) string {
	_, rest, _ := strings.Cut(s, sep)
	return rest
}

// The methods of a gRPC service go where their routes say, counted for each, and
// what no route takes is answered UNIMPLEMENTED.
func TestGRPCRoutes(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	one, _ := serveGRPC(t, newGRPCApp("one"))
	two, _ := serveGRPC(t, newGRPCApp("two"))
	m.catalog(map[string][]string{"one": {loopback(one)}, "two": {loopback(two)}})
	listen := freeAddress(t)
	web := m.sidecar("web", sections{
		"service": "{name: web}", "identity": "", "discovery": m.discovery(),
		"policies": `{"*": {transport: plaintext}}`,
		"outbound": fmt.Sprintf(`{upstreams: [{service: one, listen: "%s", protocol: grpc, unmatched: refuse, routes: [
			{name: unary, match: {grpc: {service: grpc.testing.TestService, method: UnaryCall}}, to: two, timeout: 10s},
			{name: empty, match: {grpc: {service: grpc.testing.TestService, method: EmptyCall}}}]}]}`, listen),
	})
	web.ready()
	c := dialGRPC(t, listen)
	for range 5 {
		if res, err := c.UnaryCall(within(t, patience), &testpb.SimpleRequest{}); err != nil || res.ServerId != "two" {
			t.Fatalf("UnaryCall: %v, %v", res, err)
		}
		if _, err := c.EmptyCall(within(t, patience), &testpb.Empty{}); err != nil {
			t.Fatalf("EmptyCall: %v", err)
		}
	}
	s, err := c.FullDuplexCall(within(t, patience))
	if err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.Unimplemented || !strings.Contains(status.Convert(err).Message(), "no_route") {
		t.Errorf("FullDuplexCall: %v", err)
	}
	if r := web.recorded("the refusal", func(r *record) bool { return r.Reason == "no_route" }); r.Flag != "NR" || r.Route != "one" {
		t.Errorf("record %+v", r)
	}
	web.counts(5, "outrigger_route_requests_total", `route="unary"`, `result="ok"`)
	web.counts(5, "outrigger_route_requests_total", `route="empty"`, `result="ok"`)
	web.counts(1, "outrigger_route_requests_total", `route="one"`, `result="local"`)
}

// Reloads that change routes lose no request, also when they bring in services
// that nobody asked for before, and take others out.
func TestRoutesReloadUnderLoad(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	services := map[string][]string{}
	for i := range 6 {
		name := fmt.Sprintf("v%d", i)
		services[name] = []string{loopback(serve(t, named(name, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(5 * time.Millisecond) // so that some are under way
		}))))}
	}
	m.catalog(services)
	listen := freeAddress(t)
	outbound := func(routes string) sections {
		return sections{"outbound": fmt.Sprintf(`{upstreams: [{service: v0, listen: "%s", routes: [%s]}]}`, listen, routes)}
	}
	web := m.sidecar("web", sections{
		"service": "{name: web}", "identity": "", "discovery": m.discovery(), "policies": `{"*": {transport: plaintext, retry: off}}`,
	}.with(outbound("")))
	web.ready()
	l := startLoad(t, "http://"+listen+"/x", loadOptions{Workers: 6, Pause: 2 * time.Millisecond})
	l.more(t, 50)
	for i := 1; i <= 5; i++ {
		name := fmt.Sprintf("v%d", i)
		web.rewrite(outbound(fmt.Sprintf(`{name: x, match: {path: /x}, to: %s}`, name)))
		web.applied(i)
		before := l.answered(name)
		l.more(t, 50)
		if n := l.answered(name) - before; n < 40 {
			t.Errorf("after reload %d %s answered %d of 50", i, name, n)
		}
	}
	web.rewrite(outbound(""))
	web.applied(6)
	before := l.answered("v0")
	l.more(t, 50)
	if n := l.answered("v0") - before; n < 40 {
		t.Errorf("without routes v0 answered %d of 50", n)
	}
	l.mustEnd(t, 300)
}
