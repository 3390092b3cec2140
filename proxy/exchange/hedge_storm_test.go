package exchange_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// TestHedgeStorm: whatever origins do, at whatever moment, and callers too, each
// request has one answer, its own, and nothing is left over (which stop and the
// leak check of the package see).
func TestHedgeStorm(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			s := &several{}
			s.pair = newPair(t, l, func(set *setup) {
				set.policy.Hedge, set.policy.Retry = hedged(), retrying(3)
				set.policy.Hedge.MaxAttempts = 3
				set.policy.Hedge.Delay = 300 * time.Microsecond
				set.policy.Retry.BudgetPercent, set.policy.Retry.BudgetMinPerSecond = 1000, 1e6
				set.policy.Retry.PerTryTimeout = time.Second
			}, nil, nil)
			hedges := 0
			var eps []upstream.EndpointSpec
			for range 4 {
				o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					if rand.IntN(3) == 0 {
						select {
						case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
						case <-r.Context().Done():
							return
						}
					}
					switch rand.IntN(12) {
					case 0:
						panic(http.ErrAbortHandler)
					case 1:
						w.WriteHeader(503)
					case 2:
						w.WriteHeader(103)
						_, _ = w.Write(b)
					case 3:
						_, _ = w.Write(b[:len(b)/2])
						_ = http.NewResponseController(w).Flush()
						_, _ = w.Write(b[len(b)/2:])
					case 4:
						if _, ok := w.(http.Hijacker); ok && r.ProtoMajor == 1 {
							c, _, _ := w.(http.Hijacker).Hijack()
							_ = c.Close()
							return
						}
						_, _ = w.Write(b)
					default:
						_, _ = w.Write(b)
					}
				}))
				o.Config.Protocols = protocols(l.up)
				o.Start()
				s.onStop(func() { o.CloseClientConnections(); o.Close() })
				eps = append(eps, upstream.EndpointSpec{Address: netip.MustParseAddrPort(o.Listener.Addr().String()), Weight: 1, Healthy: true})
			}
			s.cluster.SetLocal(eps)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 60 {
						ctx, cancel := context.WithCancel(t.Context())
						if rand.IntN(10) == 0 {
							time.AfterFunc(time.Duration(rand.IntN(1500))*time.Microsecond, cancel)
						}
						body := string(octets(1 + rand.IntN(3000)))
						g := <-s.send(ctx, "PUT", body)
						if g.err == nil && g.status == 200 && g.body != body {
							t.Errorf("got %d bytes that are not those sent, %d", len(g.body), len(body))
						}
						if ctx.Err() == nil && g.err != nil {
							t.Errorf("got %v", g.err)
						}
						cancel()
					}
				})
			}
			wg.Wait()
			for _, e := range s.server.Ledger.Last(1000, false) {
				for _, a := range e.Attempts {
					if a.Hedge {
						hedges++
					}
				}
			}
			if hedges == 0 {
				t.Error("nothing was hedged")
			}
			eventually(t, "the end of all attempts", func() bool {
				_, states := s.registry.States()
				for _, e := range states {
					if e.Active != 0 {
						return false
					}
				}
				return len(states) == len(eps)
			})
		})
	}
}
