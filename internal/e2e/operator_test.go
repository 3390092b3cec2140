package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// tell runs the program against the sidecar's admin API.
func (s *sidecar) tell(args ...string) (out string, err error) {
	s.t.Helper()
	b, err := exec.CommandContext(within(s.t, patience), program, append(args, "--admin", s.admin)...).CombinedOutput()
	return string(b), err
}

func (s *sidecar) mustTell(args ...string) string {
	s.t.Helper()
	out, err := s.tell(args...)
	if err != nil {
		s.t.Fatalf("outrigger %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// stands returns an endpoint's state as "outrigger endpoints --json" has it.
func (s *sidecar) stands(address string) string {
	s.t.Helper()
	var list []struct {
		Address  string
		Standing struct{ State string }
	}
	if err := json.Unmarshal([]byte(s.mustTell("endpoints", "--json")), &list); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range list {
		if e.Address == address {
			return e.Standing.State
		}
	}
	return "unknown"
}

// answering returns which instances answer 60 requests, in order.
func answering(t *testing.T, url string) string {
	t.Helper()
	by := map[string]bool{}
	for range 60 {
		resp, _ := fetch(t, http.MethodGet, url, nil)
		by[resp.Header.Get("X-Instance")] = true
	}
	var list []string
	for i := 1; i <= 3; i++ {
		if name := fmt.Sprintf("api-%d", i); by[name] {
			list = append(list, name)
		}
	}
	return strings.Join(list, " ")
}

// An operator takes an endpoint out, pins others, and takes it back; the orders
// outlive a reload and the endpoint's leaving and returning, and end by themselves.
func TestOperatorsHand(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.instances(3, func(string) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	}, nil)
	m.catalog(addresses(list))
	policies := `{api: {balance: {algorithm: weighted_round_robin, slow_start: 0}, timeout: %s}}`
	web, call := m.outbound("web", "api", sections{"policies": fmt.Sprintf(policies, "10s")})
	web.ready()
	url := "http://" + call + "/"
	one, two := list[0].address, list[1].address
	wants := func(want string) {
		t.Helper()
		if got := answering(t, url); got != want {
			t.Fatalf("%s answer, want %s\n%s", got, want, web.mustTell("endpoints"))
		}
	}
	wants("api-1 api-2 api-3")

	l := startLoad(t, url, loadOptions{})
	out := web.mustTell("eject", "api", two, "--for", "10m", "--reason", "bad disk")
	if !strings.HasPrefix(out, "api: ejected "+two+" for 10m, until ") {
		t.Errorf("eject says %q", out)
	}
	wants("api-1 api-3")
	web.says("event=hand_eject", "cluster=api", two, "by=127.0.0.1:", "for=10m0s", `reason="bad disk"`)
	if text := web.mustTell("endpoints", "--cluster", "api"); !hasLine(text, two, "ejected by hand", "end of order in 10m", "bad disk, by 127.0.0.1:") {
		t.Errorf("endpoints says\n%s", text)
	}
	if n := web.metric("outrigger_endpoint_hand", two); n != 1 {
		t.Errorf("outrigger_endpoint_hand is %v", n)
	}

	web.rewrite(sections{"policies": fmt.Sprintf(policies, "11s")})
	wants("api-1 api-3")
	m.catalog(map[string][]string{"api": {one}})
	eventually(t, patience, "the endpoint has left", func() (bool, string) { return web.stands(two) == "absent", web.stands(two) })
	m.catalog(addresses(list))
	eventually(t, patience, "the endpoint has returned", func() (bool, string) { return web.stands(two) == "by_hand", web.stands(two) })
	wants("api-1 api-3")

	web.mustTell("pin", "api", one)
	wants("api-1")
	if got := web.stands(list[2].address); got != "passed_over" {
		t.Errorf("the third stands %s", got)
	}
	if out := web.mustTell("release", "api", two); out != "api: released "+two+"\n" {
		t.Errorf("release says %q", out)
	}
	wants("api-1")
	web.mustTell("release", "api")
	wants("api-1 api-2 api-3")

	ordered := time.Now()
	web.mustTell("eject", "api", two, "--for", "3s")
	got := answering(t, url)
	if took := time.Since(ordered); got != "api-1 api-3" && took < 3*time.Second {
		t.Errorf("%s answer within %v of the order", got, took)
	}
	web.says("event=hand_over", "cluster=api", two)
	eventually(t, patience, "the order is over", func() (bool, string) { return web.stands(two) == "healthy", web.mustTell("endpoints") })
	wants("api-1 api-2 api-3")
	for what, want := range map[string]float64{"eject": 2, "pin": 1, "release": 2, "expire": 1} {
		if n := web.metric("outrigger_hand_orders_total", `order="`+what+`"`, `cluster="api"`); n != want {
			t.Errorf("%v orders %s, want %v", n, what, want)
		}
	}
	l.mustEnd(t, 50)

	for _, args := range [][]string{
		{"eject", "nobody", two},
		{"eject", "api", "10.9.9.9:1"},
		{"eject", "api", two, "--for", "25h"},
		{"eject", "api", two, "--for", "0s"},
		{"pin", "api"},
		{"release", "api", two},
		{"release", "api"},
		{"endpoints", "--cluster", "nobody"},
		{"top", "--interval", "0s"},
	} {
		if out, err := web.tell(args...); err == nil || !strings.Contains(out, "outrigger: ") {
			t.Errorf("%v: %v %q, want a refusal", args, err, out)
		}
	}
	wants("api-1 api-2 api-3")
}

// top counts what went through in the interval.
func TestTop(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, nil)
	l := startLoad(t, p.call+"/", loadOptions{})
	l.more(t, 5)
	// On a busy machine nothing may go through in one interval.
	var text string
	eventually(t, patience, "top sees requests", func() (bool, string) {
		text = p.web.mustTell("top", "--once", "--interval", "500ms")
		return hasLine(text, "api", "outbound", "100 %"), text
	})
	if strings.Contains(text, "\x1b") || !hasLine(text, "web", "ready", "plan 1") || !hasLine(text, "api", "outbound", "100 %", "1/1") || !hasLine(text, "api", p.inbound, "healthy", "████████ 100 %") {
		t.Errorf("top says\n%s", text)
	}
	var r struct {
		Seconds  float64
		Clusters []struct {
			Name    string
			Rate    float64
			Success float64
			P99Ms   float64 `json:"p99_ms"`
		}
	}
	var began time.Time
	eventually(t, patience, "top counts requests", func() (bool, string) {
		began, r.Clusters = time.Now(), nil
		text = p.web.mustTell("top", "--once", "--json", "--interval", "500ms")
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		return len(r.Clusters) > 0 && r.Clusters[0].Rate > 0, text
	})
	if r.Seconds < 0.4 || r.Seconds > time.Since(began).Seconds() || len(r.Clusters) != 1 {
		t.Fatalf("%+v", r)
	}
	if c := r.Clusters[0]; c.Name != "api" || c.Rate <= 0 || c.Success != 1 || c.P99Ms <= 0 {
		t.Errorf("%+v", c)
	}
	l.mustEnd(t, 5)
	p.web.kill()
	if out, err := p.web.tell("top", "--once"); err == nil || !strings.Contains(out, "no admin API at "+p.web.admin) {
		t.Errorf("without a proxy: %v %q", err, out)
	}
}
