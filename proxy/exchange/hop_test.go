package exchange_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const retries = "X-Outrigger-Retries"

// application makes h the endpoint.
func (b *bed) application(h http.HandlerFunc) {
	s := httptest.NewServer(h)
	b.cluster.SetLocal([]upstream.EndpointSpec{{Address: netip.MustParseAddrPort(s.Listener.Addr().String()), Weight: 1, Healthy: true}})
	b.onStop(func() {
		b.expireAll()
		s.CloseClientConnections()
		s.Close()
	})
}

// layered is a number of services, each of which calls the next through two
// sidecars, of which the first repeats requests. The last refuses all.
func layered(t *testing.T, layers int, forward bool, layer retry.Layer) (ask func(header string) int, last *atomic.Int64) {
	t.Helper()
	last = new(atomic.Int64)
	h := func(w http.ResponseWriter, _ *http.Request) {
		last.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// The calls of an application go out by the process that its own come in by.
	own := exchange.NewHops()
	for range layers {
		in := newBed(t, mtlsDown, func(s *setup) { s.dir, s.hops = telemetry.Inbound, own })
		in.application(h)
		own = exchange.NewHops()
		out := newBed(t, mtlsUp, func(s *setup) {
			s.next, s.hops = in, own
			s.policy.Retry = retrying(3)
			s.policy.Retry.BudgetPercent, s.policy.Retry.BudgetMinPerSecond, s.policy.Retry.Layer = 100, 1000, layer
		})
		out.cluster.SetLocal([]upstream.EndpointSpec{{Address: addrOf(in.ln.Addr()), Weight: 1, Healthy: true}})
		tr := &http.Transport{}
		out.onStop(tr.CloseIdleConnections)
		c, url := &http.Client{Transport: tr, Timeout: patience}, "http://"+out.ln.Addr().String()+"/"
		ask = func(header string) int {
			q, _ := http.NewRequest(http.MethodGet, url, nil)
			if header != "" {
				q.Header.Set(retries, header)
			}
			return code(t, c, q)
		}
		call := ask
		h = func(w http.ResponseWriter, r *http.Request) {
			header := ""
			if forward {
				header = r.Header.Get(retries)
			}
			w.WriteHeader(call(header))
		}
	}
	return ask, last
}

func code(t *testing.T, c *http.Client, r *http.Request) int {
	res, err := c.Do(r)
	if err != nil {
		t.Error(err)
		return 599
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// TestAmplification: five layers of three attempts make 243 of one request; with
// one layer that repeats, and applications that pass the field on, three.
func TestAmplification(t *testing.T) {
	for _, c := range []struct {
		layers  int
		forward bool
		layer   retry.Layer
		header  string // of the first request
		want    int64
	}{
		{5, true, retry.Outermost, "", 3},
		{5, false, retry.Outermost, "", 243},
		{3, true, retry.Every, "", 27},
		{2, true, retry.Outermost, "caller", 3},                // not an application's to say
		{2, true, retry.Outermost, strings.Repeat("0", 48), 3}, // nor made up
	} {
		t.Run(fmt.Sprint(c.layers, c.forward, c.layer, len(c.header)), func(t *testing.T) {
			ask, last := layered(t, c.layers, c.forward, c.layer)
			if got := ask(c.header); got != http.StatusServiceUnavailable {
				t.Errorf("answered %d", got)
			}
			if n := last.Load(); n != c.want {
				t.Errorf("the last service got %d requests, want %d", n, c.want)
			}
		})
	}
}

// TestHopHeader: who is told, and who is believed.
func TestHopHeader(t *testing.T) {
	seen := make(chan string, 10)
	app := func(_ http.ResponseWriter, r *http.Request) { seen <- strings.Join(r.Header[retries], "+") }
	ask := func(b *bed, client *http.Client, scheme, header string) string {
		t.Helper()
		q, _ := http.NewRequest(http.MethodGet, scheme+"://"+b.ln.Addr().String()+"/", nil)
		if header != "" {
			q.Header.Set(retries, header)
		}
		if got := code(t, client, q); got != http.StatusOK {
			t.Fatalf("answered %d", got)
		}
		return <-seen
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: patience}

	// A listener for all drops what it is told, whoever says it.
	b := newBed(t, plain, func(s *setup) { s.dir = telemetry.Inbound })
	b.application(app)
	if got := ask(b, client, "http", "caller"); got != "" {
		t.Errorf("a stranger was believed: the application got %q", got)
	}
	// An outbound one tells nobody outside the mesh.
	b = newBed(t, plain, func(s *setup) { s.policy.Retry = retrying(3) })
	b.application(app)
	for _, header := range []string{"", "caller"} {
		if got := ask(b, client, "http", header); got != "" {
			t.Errorf("a plaintext endpoint was told %q", got)
		}
	}
	// Of the mesh it tells who can be tried again.
	in := newBed(t, mtlsDown, func(s *setup) { s.dir = telemetry.Inbound })
	in.application(app)
	for attempts, want := range map[int]int{1: 0, 2: 48} {
		out := newBed(t, mtlsUp, func(s *setup) { s.next, s.policy.Retry = in, retrying(attempts) })
		out.cluster.SetLocal([]upstream.EndpointSpec{{Address: addrOf(in.ln.Addr()), Weight: 1, Healthy: true}})
		first := ask(out, client, "http", "")
		if len(first) != want {
			t.Errorf("with %d attempts the application got %q", attempts, first)
		}
	}
}
