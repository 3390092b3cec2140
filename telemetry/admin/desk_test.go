package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Another Server takes over on the connections that are open, and requests that
// have begun end with the one before.
func TestDeskChangesServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialed()
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error, 1)
		held := make(chan struct{})
		desk := NewDesk(d, sample(func(o *Options) {
			o.Views.Discovery = func() []WatchView { <-held; return nil }
			o.Views.Ready = func() (bool, []Check) { return false, nil }
		}))
		go func() { end <- desk.Run(ctx) }()
		idle, busy := d.dial(), d.dial()
		defer idle.Close()
		defer busy.Close()
		if got := get(idle, "/ready"); got != "HTTP/1.1 503 Service Unavailable" {
			t.Errorf("the first Server: %s", got)
		}
		began := make(chan string, 1)
		go func() { began <- get(busy, "/discovery") }()
		synctest.Wait()
		desk.Use(sample(nil))
		if got := get(idle, "/ready"); got != "HTTP/1.1 200 OK" {
			t.Errorf("the second Server on the same connection: %s", got)
		}
		close(held)
		if got := <-began; got != "HTTP/1.1 200 OK" {
			t.Errorf("what had begun: %s", got)
		}
		cancel()
		if err := <-end; err != nil {
			t.Error(err)
		}
	})
}

// End waits for Run, lets requests finish as the end of Run's context does, and
// may be called again.
func TestDeskEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialed()
		end := make(chan error, 1)
		desk := NewDesk(d, sample(func(o *Options) {
			o.Views.Discovery = func() []WatchView { time.Sleep(stopTimeout / 2); return nil } // of the bubble's clock
		}))
		go func() { end <- desk.Run(t.Context()) }()
		c := d.dial()
		defer c.Close()
		answer := make(chan string, 1)
		go func() { answer <- get(c, "/discovery") }()
		synctest.Wait()
		desk.End()
		desk.End()
		if err := <-end; err != nil {
			t.Error(err)
		}
		if got := <-answer; got != "HTTP/1.1 200 OK" {
			t.Errorf("the request in flight: %s", got)
		}
		select {
		case <-d.closed:
		default:
			t.Error("the listener is still open")
		}
	})
}

// waitingFor is a Server that waits.
func waitingFor(why string) *Server {
	o := Options{Now: func() time.Time { return noon }, Metrics: http.NotFoundHandler()}
	o.Views = Views{
		Ready: func() (bool, []Check) {
			return false, []Check{{Name: "identity", OK: true, Detail: "well"}, {Name: "consul", Detail: why}}
		},
		Mesh: func() MeshView {
			return MeshView{Waiting: why, Watches: []WatchView{{Service: "sidecar/roots", Source: "consul", LastError: "refused"}}}
		},
	}
	return NewWaiting(o)
}

// Before there is a plan what is known is told, and of all else that it is not
// there yet, and why.
func TestWaiting(t *testing.T) {
	const why = "waiting for Consul at http://127.0.0.1:8500: refused"
	s := waitingFor(why)
	for _, c := range []struct {
		method, path string
		status       int
		words        string
	}{
		{"GET", "/live", http.StatusOK, "live"},
		{"GET", "/ready", http.StatusServiceUnavailable, why},
		{"GET", "/", http.StatusOK, why},
		{"GET", "/consul", http.StatusOK, "NOT IN FORCE: " + why},
		{"GET", "/dashboard.css", http.StatusOK, ""},
		{"GET", "/endpoints", http.StatusServiceUnavailable, "not known yet: " + why + "\n"},
		{"GET", "/config", http.StatusServiceUnavailable, "not known yet: " + why},
		{"GET", "/why?id=1", http.StatusServiceUnavailable, "not known yet: " + why},
		{"POST", "/endpoints/eject", http.StatusServiceUnavailable, "not known yet: " + why},
	} {
		w := ask(s, c.method, c.path, "")
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.words) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if w := ask(s, "GET", "/endpoints", "", "Host", "evil.test"); w.Code != http.StatusForbidden {
		t.Errorf("another Host: %d", w.Code)
	}
	var v MeshView
	if err := json.Unmarshal(ask(s, "GET", "/consul?format=json", "").Body.Bytes(), &v); err != nil || v.Waiting != why || v.Findings == nil {
		t.Errorf("as JSON: %+v, %v", v, err)
	}
	lines := slices.Collect(strings.Lines(ask(s, "GET", "/consul", "").Body.String()))
	if len(lines) != 5 || !strings.HasPrefix(lines[4], "sidecar/roots") {
		t.Errorf("the text has more than what is waited for and the watches: %q", lines)
	}
}
