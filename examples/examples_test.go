package examples

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// TestExamples runs every directory beside it that has configuration files; the
// scenarios in simulate are TestResilience's.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary; run without -short")
	}
	bin := build(t)
	tests := map[string]func(*testing.T, string){"two-sidecars": twoSidecars, "edge": edge, "redis": redis, "routes": routes}
	dirs, err := filepath.Glob("*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if dir := filepath.Dir(d); dir != "simulate" && tests[dir] == nil {
			t.Errorf("%s is run by no test", filepath.Dir(d))
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, bin)
		})
	}
}

func twoSidecars(t *testing.T, bin string) {
	x := prepare(t, bin, "two-sidecars")
	var cert atomic.Value
	x.serve("8081", func(w http.ResponseWriter, r *http.Request) {
		cert.Store(r.Header.Get("X-Forwarded-Client-Cert"))
		io.WriteString(w, "hello from api\n")
	})
	x.devCA("web", "api")
	x.sidecar("api", "api.yaml", "15002")
	x.sidecar("web", "web.yaml", "15001")

	url := "http://" + x.address("9001") + "/"
	if status, body, err := get(url); err != nil || status != 200 || body != "hello from api\n" {
		t.Fatalf("GET through both sidecars: %d %q, %v", status, body, err)
	}
	if got := fmt.Sprint(cert.Load()); !strings.Contains(got, "URI=spiffe://example.test/web") || !strings.Contains(got, "By=spiffe://example.test/api") {
		t.Errorf("api was told of its caller: %q", got)
	}
	if status, body, err := send("DELETE", url); err != nil || status != 403 || !strings.Contains(body, "denied") {
		t.Errorf("DELETE, which no rule allows: %d %q, %v", status, body, err)
	}
	if status, body, err := get("http://" + x.address("15106") + "/"); err == nil && status < 400 {
		t.Errorf("plaintext to the strict inbound port: %d %q", status, body)
	}
}

func edge(t *testing.T, bin string) {
	x := prepare(t, bin, "edge")
	var hits [3]atomic.Int64
	var stops []func()
	for i, port := range []string{"8101", "8102", "8103"} {
		stops = append(stops, x.serve(port, func(w http.ResponseWriter, r *http.Request) {
			hits[i].Add(1)
			if i == 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
	}
	x.sidecar("edge", "edge.yaml", "15003")
	url := "http://" + x.address("8000") + "/"
	const rounds = 100
	for n := range rounds {
		if status, body, err := get(url); err != nil || status != 200 {
			t.Fatalf("request %d with one failing instance: %d %q, %v", n, status, body, err)
		}
	}
	if n := hits[2].Load(); n < 3 || n > 10 {
		t.Errorf("the failing instance got %d of %d requests; 3 in a row eject it", n, rounds)
	}
	if _, body, err := get("http://" + x.address("15003") + "/endpoints"); err != nil || !strings.Contains(body, "ejected") {
		t.Errorf("no ejection is shown: %s %v", body, err)
	}
	stops[0]()
	before := hits[1].Load()
	for n := range 20 {
		if status, body, err := get(url); err != nil || status != 200 {
			t.Fatalf("request %d with one instance stopped: %d %q, %v", n, status, body, err)
		}
	}
	if got := hits[1].Load() - before; got != 20 {
		t.Errorf("the one that is left got %d of 20", got)
	}
}

func routes(t *testing.T, bin string) {
	x := prepare(t, bin, "routes")
	var hits [3]atomic.Int64
	for i, port := range []string{"8111", "8112", "8113"} {
		x.serve(port, func(w http.ResponseWriter, r *http.Request) {
			hits[i].Add(1)
			fmt.Fprintf(w, "%s %s %s", port, r.URL.Path, r.Header.Get("x-from"))
		})
	}
	x.sidecar("edge", "edge.yaml", "15007")
	url := "http://" + x.address("8010")
	for path, want := range map[string]string{
		"/": "8111 / ", "/api/users/7": "8113 /7 edge", "/api/users": "8111 /api/users ",
	} {
		if status, body, err := get(url + path); err != nil || status != 200 || body != want {
			t.Errorf("GET %s: %d %q, %v; want %q", path, status, body, err, want)
		}
	}
	if status, body, err := get(url + "/admin/x"); err != nil || status != 403 || body != "not from here\n" {
		t.Errorf("GET /admin/x: %d %q, %v", status, body, err)
	}
	before := hits[1].Load()
	const rounds = 200
	for n := range rounds {
		if status, body, err := get(url + "/checkout"); err != nil || status != 200 {
			t.Fatalf("request %d: %d %q, %v", n, status, body, err)
		}
	}
	if n := hits[1].Load() - before; n < 3 || n > 50 {
		t.Errorf("the next version got %d of %d requests; its share is a tenth", n, rounds)
	}
}

func redis(t *testing.T, bin string) {
	server, err := exec.LookPath("redis-server")
	if err != nil {
		testkit.Missing(t, "redis-server is not installed")
	}
	x := prepare(t, bin, "redis")
	_, port, _ := net.SplitHostPort(x.address("6379"))
	x.start("redis-server", server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	x.devCA("cart", "redis")
	x.sidecar("redis", "server.yaml", "15005")
	x.sidecar("cart", "client.yaml", "15004")

	x.eventually("redis through mTLS", func() error {
		c, err := net.DialTimeout("tcp", x.address("6380"), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		r := bufio.NewReader(c)
		for _, step := range []struct{ ask, want string }{
			{"PING\r\n", "+PONG\r\n"},
			{"SET greeting hello\r\n", "+OK\r\n"},
			{"GET greeting\r\n", "$5\r\n"},
		} {
			if _, err := io.WriteString(c, step.ask); err != nil {
				return err
			}
			if got, err := r.ReadString('\n'); err != nil || got != step.want {
				return fmt.Errorf("%q gave %q, %v", step.ask, got, err)
			}
		}
		return nil
	})
	// What is no TLS is not let in on the other side.
	c, err := net.DialTimeout("tcp", x.address("15107"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(c, "PING\r\n")
	if b, _ := io.ReadAll(c); strings.Contains(string(b), "PONG") {
		t.Error("the strict port lets plaintext in")
	}
}
