package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// adminPorts are for addresses that are opened again.
var adminPorts = testkit.Ports{Low: 26000, High: 28000}

// waiting is a sidecar that Consul has not described.
type waiting struct {
	*described
	t       *testing.T
	client  http.Client
	started chan started
}

// started is what First has returned.
type started struct {
	loaded *config.Loaded
	err    error
}

// wait runs a sidecar whose file has the section admin, if there is one, and else an address of
// the admin API by default.
func wait(t *testing.T, section, byDefault string) *waiting {
	t.Helper()
	d := prepared(t)
	base, m := d.admin(t, section)
	if byDefault != "" {
		m.Config.Admin.Listen = byDefault
	}
	d.base, d.where, d.named = base, "http://127.0.0.1:8500", "web-1"
	if err := d.openEarly(m, Options{Version: "1.2.3"}); err != nil {
		t.Fatal(err)
	}
	w := &waiting{described: d, t: t, started: make(chan started, 1)}
	transport := &http.Transport{}
	w.client.Transport = transport
	d.follow(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		loaded, err := d.First(ctx)
		w.started <- started{loaded, err}
	}()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		<-done
	})
	return w
}

// admin is the file below what Consul says with a section admin.
func (d *described) admin(t *testing.T, section string) (*config.Base, *config.Making) {
	t.Helper()
	if section != "" {
		section = "admin: " + section + "\n"
	}
	base, err := config.ParseBase("base.yaml", []byte(d.text(section)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := base.Make()
	if err != nil {
		t.Fatal(err)
	}
	return base, m
}

// get asks at an address, and tells whether that went by a connection that was there.
func (w *waiting) get(address, path string) (status int, body string, reused bool) {
	w.t.Helper()
	ctx := httptrace.WithClientTrace(w.t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, err.Error(), false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Error(err)
	}
	return resp.StatusCode, string(b), reused
}

// asks waits until the answer at an address has the words.
func (w *waiting) asks(address, path, words string) {
	w.t.Helper()
	var body string
	defer func() {
		if w.t.Failed() {
			w.t.Log(body)
		}
	}()
	soon(w.t, path+" says "+words, func() bool {
		_, body, _ = w.get(address, path)
		return strings.Contains(body, words)
	})
}

// describe has Consul describe the sidecar, with more in our own language.
func (w *waiting) describe(more map[string]any) {
	s := web(w.t)
	s.Proxy.Proxy.Config = map[string]any{"outrigger": more}
	w.say <- s
}

// serve runs the proxy that Consul has described until the test ends.
func (w *waiting) serve() *Proxy {
	w.t.Helper()
	first := <-w.started
	if first.err != nil {
		w.t.Fatal(first.err)
	}
	p, err := New(Options{Config: first.loaded, Log: slog.New(slog.DiscardHandler), Sidecar: w.Sidecar})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, context.Background()) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	return p
}

func at(t *testing.T) string { return fmt.Sprint("127.0.0.1:", adminPorts.Free(t)) }

// The addresses that are known answer before Consul has, and go on at the same
// connections then.
func TestEarlyAddresses(t *testing.T) {
	api, probes, metrics, hooks := at(t), at(t), at(t), at(t)
	w := wait(t, fmt.Sprintf(`{listen: "%s", probe_listen: "%s", metrics_listen: "%s", lifecycle: {listen: "%s", startup_timeout: 40s}}`, api, probes, metrics, hooks), "")
	const words = "waiting for Consul at http://127.0.0.1:8500 since 20"
	for _, c := range []struct {
		address, path string
		status        int
		words         string
	}{
		{api, "/ready", http.StatusServiceUnavailable, words},
		{api, "/live", http.StatusOK, "live"},
		{api, "/consul", http.StatusOK, "NOT IN FORCE: " + words},
		{api, "/", http.StatusOK, "web-1  outrigger 1.2.3"},
		{api, "/endpoints", http.StatusServiceUnavailable, "not known yet: " + words},
		{api, "/metrics", http.StatusOK, `outrigger_consul_age_seconds{watch="registration"} -1`},
		{probes, "/ready", http.StatusServiceUnavailable, words},
		{probes, "/live", http.StatusOK, "live"},
		{metrics, "/metrics", http.StatusOK, "outrigger_build_info{"},
	} {
		if status, body, _ := w.get(c.address, c.path); status != c.status || !strings.Contains(body, c.words) {
			t.Errorf("%s%s: %d %s", c.address, c.path, status, body)
		}
	}
	// Whoever waits for the start is answered when it is over.
	hook := make(chan string, 1)
	go func() {
		status, body, _ := w.get(hooks, "/graceful_startup")
		hook <- fmt.Sprint(status, " ", body)
	}()

	w.saying.Follow([]string{"sidecar/registration"})
	w.saying.Fail("sidecar/registration", errors.New("connection refused"))
	w.asks(api, "/ready", ": last error: sidecar/registration: connection refused")
	gateway := web(t)
	gateway.Proxy.Kind = "mesh-gateway"
	w.say <- gateway
	w.asks(api, "/ready", "cannot be served: consul registration web-sidecar-proxy: is of kind mesh-gateway")

	w.describe(nil)
	p := w.serve()
	if p.AdminAddress().String() != api {
		t.Errorf("the admin API is at %s", p.AdminAddress())
	}
	status, body, reused := w.get(api, "/endpoints")
	if status != http.StatusOK || !reused {
		t.Errorf("after Consul's answer: %d %s, at the same connection: %t", status, body, reused)
	}
	w.asks(api, "/consul", "sidecar web-sidecar-proxy of web in dc1")
	w.asks(api, "/metrics", "outrigger_config_version 1\n")
	w.asks(metrics, "/metrics", "outrigger_config_version 1\n")
	if got := <-hook; !strings.HasPrefix(got, "200 ready") {
		t.Errorf("the hook of the start: %s", got)
	}
	if status, body, _ := w.get(probes, "/ready"); status != http.StatusOK {
		t.Errorf("the probe: %d %s", status, body)
	}
}

// Where Consul's description asks for another address, the one before is given up,
// also where it is in the way.
func TestEarlyAddressMoves(t *testing.T) {
	before, after := at(t), at(t)
	port := before[strings.LastIndexByte(before, ':'):]
	for _, c := range []struct{ name, to, ask, gone string }{
		{"to another port", after, after, before},
		{"to all addresses of the same port", "0.0.0.0" + port, before, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wait(t, "", before)
			w.asks(before, "/ready", "waiting for Consul")
			w.describe(map[string]any{"admin": map[string]any{"listen": c.to, "allow_remote": true}})
			w.serve()
			w.asks(c.ask, "/consul", "sidecar web-sidecar-proxy of web in dc1")
			if c.gone != "" {
				soon(t, "the address before is closed", func() bool { return !open(c.gone) })
			}
		})
	}
}

// An address that nobody asked for may be another's for a while; the start waits for
// it only if Consul's description leaves it so.
func TestEarlyAddressTaken(t *testing.T) {
	for _, moves := range []bool{false, true} {
		t.Run(fmt.Sprint("moves: ", moves), func(t *testing.T) {
			other, err := net.Listen("tcp", at(t))
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			address := other.Addr().String()
			w := wait(t, "", address)
			if w.adminURL() != "off" {
				t.Error("it has an address that is another's")
			}
			if moves {
				address = at(t)
			}
			w.describe(map[string]any{"admin": map[string]any{"listen": address}})
			if !moves {
				soon(t, "it is described", func() bool {
					_, checks := w.ready()
					return strings.Contains(checks[0].Detail, "it starts")
				})
				_ = other.Close()
			}
			w.serve()
			w.asks(address, "/consul", "sidecar web-sidecar-proxy of web in dc1")
		})
	}
}

// An address that was asked for must be had at once, and be one that may be.
func TestEarlyAddressRefused(t *testing.T) {
	other, err := net.Listen("tcp", at(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, c := range []struct{ section, want string }{
		{fmt.Sprintf(`{listen: "%s"}`, other.Addr()), "base.yaml:6:17: admin.listen: cannot listen: "},
		{fmt.Sprintf(`{listen: "%s", probe_listen: "%s"}`, at(t), other.Addr()), "admin.probe_listen: cannot listen: "},
		{`{listen: "0.0.0.0:15000"}`, "base.yaml:6:17: admin.listen: "},
		{`{lifecycle: {listen: "0.0.0.0:1"}}`, "admin.lifecycle.listen: is 0.0.0.0:1, from which others could end the proxy"},
	} {
		d := prepared(t)
		_, m := d.admin(t, c.section)
		if err := d.openEarly(m, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.section, err)
		}
		if len(d.desks) > 0 {
			t.Errorf("%s: addresses stay open", c.section)
		}
	}
}

// The process can be ended before Consul has answered.
func TestEarlyShutdown(t *testing.T) {
	api, hooks := at(t), at(t)
	w := wait(t, fmt.Sprintf(`{listen: "%s", lifecycle: {listen: "%s"}}`, api, hooks), "")
	if status, body, _ := w.get(hooks, "/graceful_shutdown"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if first := <-w.started; !errors.Is(first.err, context.Canceled) {
		t.Errorf("the wait ended with %v", first.err)
	}
}

// NewSidecar opens what the configuration names, and tells of mistakes with it.
func TestNewSidecarOpens(t *testing.T) {
	address := at(t)
	base, err := config.ParseBase("base.yaml", []byte(`admin: {listen: "`+address+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	flags := []config.Layer{{From: "--proxy-id", Path: []string{"discovery", "consul", "sidecar", "proxy_id"}, Data: []byte(`"web-1-proxy"`)}}
	if base, err = base.Over(flags...); err != nil {
		t.Fatal(err)
	}
	o := Options{Log: slog.New(slog.DiscardHandler)}
	s, err := NewSidecar(base, flags, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.closeDesks()
	if s.adminURL() != "http://"+address+"/" || s.named != "web-1-proxy" || !strings.HasPrefix(s.where, "http://") {
		t.Errorf("the admin API is at %s, of %s, which asks %s", s.adminURL(), s.named, s.where)
	}
	if _, err := NewSidecar(base, flags, o); err == nil || !strings.Contains(err.Error(), "base.yaml:1:17: admin.listen: cannot listen") {
		t.Errorf("a second one at the same address: %v", err)
	}
}
