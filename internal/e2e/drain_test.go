package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The instances of an upstream are restarted one after the other, each leaving
// the catalog first, as an orchestrator does it. No request is lost.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.instances(3, echo, sections{"drain": "{delay: 1s, timeout: 5s}"})
	m.catalog(addresses(list))
	web, call := m.outbound("web", "api", nil)
	web.ready()
	l := startLoad(t, "http://"+call+"/", loadOptions{Workers: 6, Pause: 10 * time.Millisecond})
	posts := startLoad(t, "http://"+call+"/", loadOptions{Method: http.MethodPost, Workers: 2, Pause: 10 * time.Millisecond})
	l.more(t, 30)
	for _, in := range list {
		rest := map[string][]string{"api": nil}
		for _, other := range list {
			if other != in {
				rest["api"] = append(rest["api"], other.address)
			}
		}
		in.signal(syscall.SIGTERM)
		eventually(t, patience, "it is not ready any more", func() (bool, string) {
			status, body := in.get("/ready")
			return status == http.StatusServiceUnavailable || !in.running(), body
		})
		m.catalog(rest)
		if code := in.code(patience); code != 0 {
			t.Errorf("%s: exit code %d", in.name, code)
		}
		in.start()
		in.ready()
		m.catalog(addresses(list))
		eventually(t, patience, in.name+" gets traffic again", func() (bool, string) {
			return web.endpoint(in.address).Address != "", ""
		})
		l.more(t, 20)
	}
	l.mustEnd(t, 150)
	posts.mustEnd(t, 30)
}

// SIGTERM lets requests under way finish and takes no new connections after
// the delay; the application's own calls go on until the end. A drain without
// cut connections ends with code 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	release := make(chan struct{})
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}))
	other, otherInbound := m.inbound("other", serve(t, echo("other")), nil)
	out, in := freeAddress(t), freeAddress(t)
	api := m.sidecar("api", sections{
		"service":   fmt.Sprintf("{name: api, port: %d}", app),
		"inbound":   fmt.Sprintf(`{listen: "%s"}`, in),
		"outbound":  fmt.Sprintf(`{upstreams: [{service: other, listen: "%s"}]}`, out),
		"discovery": m.discovery(),
		"drain":     "{delay: 4s, timeout: 1m}",
	})
	m.catalog(map[string][]string{"api": {in}, "other": {otherInbound}})
	web, call := m.outbound("web", "api", sections{"policies": "{api: {retry: off, outlier: off}}"})
	for _, s := range []*sidecar{other, api, web} {
		s.ready()
	}
	// The application holds a connection to its sidecar, and uses it later.
	egress, err := net.Dial("tcp", out)
	if err != nil {
		t.Fatal(err)
	}
	defer egress.Close()
	reader := bufio.NewReader(egress)
	callOut := func() error {
		_ = egress.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(egress, "GET /egress HTTP/1.1\r\nHost: other\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d, %v", resp.StatusCode, err)
		}
		return nil
	}
	if err := callOut(); err != nil {
		t.Fatal(err)
	}
	patient := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	slow := make(chan string, 1)
	go func() {
		resp, err := patient.Get("http://" + call + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		slow <- fmt.Sprint(resp.StatusCode, " ", string(b), " ", err)
	}()
	eventually(t, patience, "the slow request is under way", func() (bool, string) {
		n := api.metric("outrigger_exchanges_active", `direction="inbound"`)
		return n == 1, fmt.Sprint(n)
	})
	api.signal(syscall.SIGTERM)
	eventually(t, patience, "it says that it is not ready", func() (bool, string) {
		status, body := api.get("/ready")
		return status == 503 && strings.Contains(body, "shutting down"), body
	})
	// Within the delay everything goes on.
	if resp, body := fetch(t, http.MethodGet, "http://"+call+"/quick", nil); resp.StatusCode != 200 {
		t.Errorf("within the delay: %d %s", resp.StatusCode, body)
	}
	eventually(t, patience, "no new connections are taken", func() (bool, string) {
		c, err := net.Dial("tcp", in)
		if err == nil {
			_ = c.Close()
		}
		return err != nil, ""
	})
	if err := callOut(); err != nil {
		t.Errorf("egress during the inbound drain: %v", err)
	}
	close(release)
	if got := <-slow; got != "200 done <nil>" {
		t.Errorf("the request under way: %s", got)
	}
	if err := callOut(); err != nil {
		t.Errorf("egress after the inbound drain: %v", err)
	}
	_ = egress.Close() // the application has ended
	if code := api.code(patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !hasLine(api.out.String(), "event=drained", "cut_off=0") {
		t.Error("the drain is not in the log")
	}
}

// What is still in use at the end of the drain is cut off, which the exit code
// tells. An idle connection is not in use.
func TestDrainCutsOff(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := serveTCP(t, echoTCP)
	tcp := fmt.Sprintf("{name: db, port: %d, protocol: tcp}", app)
	for _, c := range []struct {
		name  string
		busy  bool
		twice bool
		code  int
	}{
		{"in use", true, false, 3},
		{"idle", false, false, 0},
		{"second signal", true, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			drain := "{delay: 0s, timeout: 1s}"
			if c.twice {
				drain = "{delay: 1m, timeout: 1m}"
			}
			db, in := m.inbound("db", app, sections{"service": tcp, "drain": drain})
			db.ready()
			cert := m.ca.issue(spiffe("web"), nil)
			if c.busy {
				conn := dialTLS(t, in, cert)
				if err := say(conn, "hello"); err != nil {
					t.Fatal(err)
				}
			}
			db.signal(syscall.SIGTERM)
			if c.twice {
				db.says("event=drain")
				db.signal(syscall.SIGTERM)
			}
			if code := db.code(patience); code != c.code {
				t.Errorf("exit code %d; want %d", code, c.code)
			}
		})
	}
}

// An application that keeps an unused connection to its sidecar open does not
// make a drain end with cut connections.
func TestDrainWithIdleEgress(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.catalog(map[string][]string{"api": nil})
	web, call := m.outbound("web", "api", sections{"drain": "{delay: 0s, timeout: 1s}"})
	web.ready()
	c, err := net.Dial("tcp", call)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	web.signal(syscall.SIGTERM)
	if code := web.code(patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
