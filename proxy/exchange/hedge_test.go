package exchange_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

// asked is a request that an origin has, to be answered when the test says so.
type asked struct {
	at     string // the origin's address
	r      *http.Request
	body   string
	answer chan func(http.ResponseWriter) // takes one
	gone   chan struct{}                  // closed when the proxy has given the request up
}

// several is a pair with a number of origins that answer when they are told to.
type several struct {
	*pair
	asked chan asked
}

// hedged is a policy that hedges as soon as it can.
func hedged() *hedge.Config {
	c := hedge.Default()
	c.MinDelay, c.Delay = 0, time.Millisecond
	return &c
}

func newSeveral(t testing.TB, l legs, n int, change func(*setup)) *several {
	t.Helper()
	s := &several{asked: make(chan asked, 16)}
	s.pair = newPair(t, l, func(set *setup) {
		set.policy.Hedge, set.policy.Retry = hedged(), retrying(1)
		if change != nil {
			change(set)
		}
	}, nil, nil)
	var eps []upstream.EndpointSpec
	for range n {
		o := httptest.NewUnstartedServer(nil)
		o.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.Header.Get("x-now") != "" {
				return // answered as it comes
			}
			a := asked{o.Listener.Addr().String(), r, string(b), make(chan func(http.ResponseWriter), 1), make(chan struct{})}
			s.asked <- a
			select {
			case f := <-a.answer:
				f(w)
			case <-r.Context().Done():
				close(a.gone)
			}
		})
		o.Config.Protocols = protocols(l.up)
		o.Start()
		s.onStop(func() { o.CloseClientConnections(); o.Close() })
		eps = append(eps, upstream.EndpointSpec{Address: netip.MustParseAddrPort(o.Listener.Addr().String()), Weight: 1, Healthy: true})
	}
	s.cluster.SetLocal(eps)
	return s
}

// next is the next request that an origin gets.
func (s *several) next(t testing.TB) asked {
	t.Helper()
	select {
	case a := <-s.asked:
		return a
	case <-time.After(patience):
		t.Fatalf("no origin was asked; %s", s.hedges())
	}
	return asked{}
}

func (a *asked) calledOff(t testing.TB) {
	t.Helper()
	select {
	case <-a.gone:
	case <-time.After(patience):
		t.Fatal("an attempt that lost was not called off")
	}
}

// answer is what a client has got.
type answer struct {
	status int
	grpc   string
	body   string
	err    error
}

// send asks in the background.
func (s *several) send(ctx context.Context, method, body string, header ...string) <-chan answer {
	got := make(chan answer, 1)
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+s.ln.Addr().String()+"/svc/x", in)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	go func() {
		res, err := s.client.Do(r)
		if err != nil {
			got <- answer{err: err}
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		code := res.Header.Get("grpc-status")
		if code == "" {
			code = res.Trailer.Get("grpc-status")
		}
		got <- answer{res.StatusCode, code, string(b), err}
	}()
	return got
}

func says(status int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func resets(http.ResponseWriter) { panic(http.ErrAbortHandler) }

func statusOnly(code, pushback string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("grpc-status", code)
		if pushback != "" {
			w.Header().Set("grpc-retry-pushback-ms", pushback)
		}
	}
}

// entry is what the ledger has of the last exchange, n attempts.
func (s *several) entry(t testing.TB, n int) (e ledger.Entry) {
	t.Helper()
	eventually(t, "the exchange is in the ledger", func() bool {
		list := s.server.Ledger.Last(1, false)
		if len(list) == 1 {
			e = list[0]
		}
		return len(list) == 1
	})
	if e.AttemptCount != n || len(e.Attempts) != n {
		t.Fatalf("%d attempts, want %d", e.AttemptCount, n)
	}
	return e
}

// at returns the attempt at an endpoint.
func at(t testing.TB, e *ledger.Entry, endpoint string) ledger.Attempt {
	t.Helper()
	for _, a := range e.Attempts {
		if a.Endpoint == endpoint {
			return a
		}
	}
	t.Fatalf("no attempt at %s in %+v", endpoint, e.Attempts)
	return ledger.Attempt{}
}

// hedges are the metrics of hedging.
func (s *several) hedges() string {
	var list []string
	for line := range strings.Lines(s.scraped()) {
		if strings.HasPrefix(line, "outrigger_hedges") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return strings.Join(list, ", ")
}

// scraped is what a scrape of the metrics gives.
func (s *several) scraped() string {
	w := httptest.NewRecorder()
	s.metrics.Handler().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/metrics", http.NoBody))
	return w.Body.String()
}

func (s *several) counts(t testing.TB, line string) {
	t.Helper()
	eventually(t, line, func() bool { return strings.Contains(s.scraped(), line) })
}

// TestHedge: the first answer counts, whoever gives it, and the other attempt is
// called off and not held against its endpoint.
func TestHedge(t *testing.T) {
	for _, l := range allLegs {
		for _, first := range []bool{true, false} {
			name := l.String() + map[bool]string{true: ", the first to come answers", false: ", the second answers"}[first]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSeveral(t, l, 2, nil)
				got := s.send(t.Context(), "PUT", "a body", "x-told", "yes")
				a, b := s.next(t), s.next(t)
				if a.at == b.at {
					t.Fatal("both attempts went to one endpoint")
				}
				for _, x := range []asked{a, b} {
					if x.body != "a body" || x.r.Header.Get("x-told") != "yes" || x.r.Header.Get("x-request-id") == "" {
						t.Errorf("an origin got %q with %v", x.body, x.r.Header)
					}
				}
				if x, y := a.r.Header.Get("x-request-id"), b.r.Header.Get("x-request-id"); x != y {
					t.Errorf("request ids %s and %s", x, y)
				}
				winner, loser := a, b
				if !first {
					winner, loser = b, a
				}
				winner.answer <- says(200, "good")
				if g := <-got; g.err != nil || g.status != 200 || g.body != "good" {
					t.Errorf("got %+v", g)
				}
				loser.calledOff(t)
				e := s.entry(t, 2)
				won, lost := at(t, &e, winner.at), at(t, &e, loser.at)
				if won.Reason != outcome.OK || won.Status != 200 || lost.Reason != outcome.Superseded || lost.Status != 0 || won.Hedge == lost.Hedge || e.Attempts[0].Hedge {
					t.Errorf("attempts %+v", e.Attempts)
				}
				result := map[bool]string{true: "won", false: "cancelled"}[won.Hedge]
				s.counts(t, `outrigger_hedges_total{cluster="api",direction="outbound",result="`+result+`"} 1`)
				s.counts(t, `outrigger_endpoint_attempts_total{cluster="api",endpoint="`+loser.at+`",result="ignored"} 1`)
				s.counts(t, `outrigger_endpoint_attempts_active{cluster="api",endpoint="`+loser.at+`"} 0`)
				// The connections serve on.
				got = s.send(t.Context(), "GET", "")
				a, b = s.next(t), s.next(t)
				b.answer <- says(204, "")
				if g := <-got; g.err != nil || g.status != 204 {
					t.Errorf("then %+v", g)
				}
				a.calledOff(t)
				for _, rec := range s.wantReasons("ok", "ok") {
					if rec.Method == "PUT" && rec.Endpoint != winner.at || rec.Attempts != 2 {
						t.Errorf("record %+v, answered by %s", rec, winner.at)
					}
				}
			})
		}
	}
}

// TestHedgeNotFired: what is answered in time, or must not be sent twice, goes out
// once.
func TestHedgeNotFired(t *testing.T) {
	for _, test := range []struct {
		name, method, body string
		change             func(*setup)
		withheld           string
	}{
		{"not slow", "GET", "", func(s *setup) { s.policy.Hedge.Delay = time.Hour }, ""},
		{"not idempotent", "POST", "x", nil, ""},
		{"observed", "GET", "", func(s *setup) { s.policy.Hedge.Mode = guard.Observe }, `outrigger_would_have_total{action="hedged",cluster="api",direction="outbound"} 1`},
		{"not of the percentage", "GET", "", func(s *setup) { s.policy.Hedge.Mode = guard.Percent(99.99) }, `outrigger_would_have_total{action="hedged",cluster="api",direction="outbound"} 1`},
		{"no budget", "GET", "", func(s *setup) { s.policy.Retry.BudgetPercent, s.policy.Retry.BudgetMinPerSecond = 1, 0 }, "budget_spent"},
		{"nothing learnt", "GET", "", func(s *setup) { s.policy.Hedge.Delay = 0 }, "too_few_samples"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSeveral(t, legs{}, 2, test.change)
			got := s.send(t.Context(), test.method, test.body)
			a := s.next(t)
			switch w := test.withheld; {
			case strings.HasPrefix(w, "outrigger"):
				s.counts(t, w)
			case w != "":
				s.counts(t, `outrigger_hedges_withheld_total{cluster="api",direction="outbound",why="`+w+`"} 1`)
			}
			a.answer <- says(200, "good")
			if g := <-got; g.err != nil || g.body != "good" {
				t.Errorf("got %+v", g)
			}
			s.entry(t, 1)
			s.wantReasons("ok")
			if n := len(s.asked); n != 0 {
				t.Errorf("origins were asked %d times more", n)
			}
		})
	}
	t.Run("one endpoint", func(t *testing.T) {
		t.Parallel()
		s := newSeveral(t, legs{}, 1, nil)
		got := s.send(t.Context(), "GET", "")
		a := s.next(t)
		s.counts(t, `outrigger_hedges_withheld_total{cluster="api",direction="outbound",why="no_other"} 1`)
		a.answer <- says(200, "good")
		<-got
		s.entry(t, 1)
	})
}

// TestHedgeFailures: a failure does not win while another attempt may do better;
// where all fail, retries go on as usual.
func TestHedgeFailures(t *testing.T) {
	for _, l := range allLegs {
		for _, test := range []struct {
			name   string
			one    func(http.ResponseWriter)
			two    func(http.ResponseWriter) // once the proxy knows of the first
			status int
			reason string
		}{
			{"503, then good", says(503, "busy"), says(200, "good"), 200, "ok"},
			{"reset, then good", resets, says(200, "good"), 200, "ok"},
			{"both 503", says(503, "busy"), says(503, "busy"), 503, "upstream_error"},
			{"reset, then 503", resets, says(503, "busy"), 503, "upstream_error"},
			{"503, then reset", says(503, "busy"), resets, 503, "upstream_error"},
			{"both reset", resets, resets, 503, "upstream_reset"},
			{"404 is an answer", says(404, ""), nil, 404, "ok"},
		} {
			for _, swapped := range []bool{false, true} {
				t.Run(l.String()+", "+test.name+map[bool]string{true: ", swapped"}[swapped], func(t *testing.T) {
					t.Parallel()
					s := newSeveral(t, l, 2, nil)
					got := s.send(t.Context(), "GET", "")
					a, b := s.next(t), s.next(t)
					if swapped {
						a, b = b, a
					}
					a.answer <- test.one
					if test.two != nil {
						select {
						case g := <-got:
							t.Fatalf("got %+v before the second attempt had ended", g)
						case b.answer <- test.two:
						}
					}
					if g := <-got; g.err != nil || g.status != test.status {
						t.Errorf("got %+v", g)
					}
					e := s.entry(t, 2)
					if e.Reason.String() != test.reason {
						t.Errorf("ended with %s", e.Reason)
					}
					s.wantReasons(test.reason)
				})
			}
		}
	}
}

// TestHedgeThenRetry: both attempts count as attempts, and what follows goes to a
// third endpoint.
func TestHedgeThenRetry(t *testing.T) {
	s := newSeveral(t, legs{}, 3, func(set *setup) { set.policy.Retry = retrying(3) })
	got := s.send(t.Context(), "GET", "")
	a, b := s.next(t), s.next(t)
	a.answer <- says(503, "busy")
	b.answer <- says(503, "busy")
	c := s.next(t)
	if a.at == b.at || a.at == c.at || b.at == c.at {
		t.Errorf("attempts at %s, %s and %s", a.at, b.at, c.at)
	}
	c.answer <- says(200, "good")
	if g := <-got; g.body != "good" {
		t.Errorf("got %+v", g)
	}
	e := s.entry(t, 3)
	if !e.Attempts[1].Hedge || e.Attempts[2].Hedge || !e.Attempts[1].Asked || e.Attempts[1].Why != retry.Again || e.Attempts[0].Asked {
		t.Errorf("attempts %+v", e.Attempts)
	}
}

// TestHedgeMore: a third attempt after the second.
func TestHedgeMore(t *testing.T) {
	s := newSeveral(t, legs{true, true}, 3, func(set *setup) { set.policy.Hedge.MaxAttempts = 3 })
	got := s.send(t.Context(), "GET", "")
	all := []asked{s.next(t), s.next(t), s.next(t)}
	all[1].answer <- says(200, "good")
	if g := <-got; g.body != "good" {
		t.Errorf("got %+v", g)
	}
	all[0].calledOff(t)
	all[2].calledOff(t)
	e := s.entry(t, 3)
	if a := at(t, &e, all[1].at); a.Reason != outcome.OK {
		t.Errorf("attempts %+v", e.Attempts)
	}
}

// TestHedgeGRPC: statuses that policy excepts do not win (gRFC A6), others do at
// once.
func TestHedgeGRPC(t *testing.T) {
	for _, up := range []bool{true, false} {
		for _, test := range []struct {
			name, status string
			one, two     func(http.ResponseWriter)
		}{
			{"UNAVAILABLE waits", "0", statusOnly("14", ""), statusOnly("0", "")},
			{"UNAVAILABLE with a pushback waits", "0", statusOnly("14", "-1"), statusOnly("0", "")},
			{"NOT_FOUND is passed on", "5", statusOnly("5", ""), nil},
			{"INTERNAL is passed on", "13", statusOnly("13", ""), nil},
			{"OK", "0", statusOnly("0", ""), nil},
			{"both UNAVAILABLE", "14", statusOnly("14", ""), statusOnly("14", "")},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				s := newSeveral(t, legs{true, up}, 2, func(set *setup) { set.policy.Hedge.NonIdempotent = true })
				got := s.send(t.Context(), "POST", "message", "content-type", "application/grpc", "te", "trailers")
				a, b := s.next(t), s.next(t)
				if x, y := a.r.Header.Get("grpc-previous-rpc-attempts"), b.r.Header.Get("grpc-previous-rpc-attempts"); x+y != "1" {
					t.Errorf("previous attempts %q and %q", x, y)
				}
				a.answer <- test.one
				if test.two != nil {
					b.answer <- test.two
				} else {
					b.calledOff(t)
				}
				if g := <-got; g.err != nil || g.grpc != test.status {
					t.Errorf("got %+v", g)
				}
				s.entry(t, 2)
			})
		}
	}
}

// TestHedgeCallerGone: with the caller all attempts end.
func TestHedgeCallerGone(t *testing.T) {
	for _, up := range []bool{true, false} {
		for _, one := range []func(http.ResponseWriter){nil, says(503, "busy"), resets} {
			s := newSeveral(t, legs{true, up}, 2, nil)
			ctx, cancel := context.WithCancel(t.Context())
			got := s.send(ctx, "GET", "")
			a, b := s.next(t), s.next(t)
			if one != nil {
				a.answer <- one
			}
			cancel()
			if g := <-got; !errors.Is(g.err, context.Canceled) {
				t.Errorf("got %+v", g)
			}
			b.calledOff(t)
			if one == nil {
				a.calledOff(t)
			}
			s.wantReasons("downstream_gone")
		}
	}
}

// TestHedgeDeadline: the time of the whole exchange holds for all its attempts, and
// that of each for itself.
func TestHedgeDeadline(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			s := newSeveral(t, l, 2, func(set *setup) { set.policy.Timeout = 3 * time.Second })
			got := s.send(t.Context(), "GET", "")
			a, b := s.next(t), s.next(t)
			if g := <-got; g.status != 504 {
				t.Errorf("got %+v", g)
			}
			a.calledOff(t)
			b.calledOff(t)
			s.wantReasons("request_timeout")

			s = newSeveral(t, l, 2, func(set *setup) { set.policy.Retry.PerTryTimeout = 2 * time.Second })
			got = s.send(t.Context(), "GET", "")
			a, b = s.next(t), s.next(t)
			if g := <-got; g.status != 504 {
				t.Errorf("got %+v", g)
			}
			a.calledOff(t)
			b.calledOff(t)
			s.wantReasons("try_timeout")
		})
	}
}

// TestHedgeLearns: after enough answers it is known what is slow, by route if it has
// latencies of its own.
func TestHedgeLearns(t *testing.T) {
	var lat hedge.Latency
	s := newSeveral(t, legs{}, 2, func(set *setup) {
		h := set.policy.Hedge
		h.Delay, h.Percentile, h.MinSamples = 0, 50, 20
		set.route.Latency = &lat
	})
	for range 20 {
		if g := <-s.send(t.Context(), "GET", "", "x-now", "yes"); g.status != 200 {
			t.Fatalf("got %+v", g)
		}
	}
	for range 100 { // what was found is kept for a moment
		got := s.send(t.Context(), "GET", "")
		a := s.next(t)
		select {
		case b := <-s.asked:
			b.answer <- says(200, "good")
			if g := <-got; g.body != "good" {
				t.Errorf("got %+v", g)
			}
			a.calledOff(t)
			for name, l := range map[string]*hedge.Latency{"route": &lat, "cluster": &s.cluster.Latencies().All} {
				if _, ok := l.Quantile(s.sweeper.Now(), 60, 20); !ok {
					t.Errorf("nothing was learnt of the %s", name)
				}
			}
			return
		case <-time.After(100 * time.Millisecond):
			a.answer <- says(200, "")
			<-got
		}
	}
	t.Fatalf("nothing was hedged: %s", s.hedges())
}

// TestHedgeWords: telemetry has the words of the machine.
func TestHedgeWords(t *testing.T) {
	for _, w := range hedge.Whys() {
		if got := telemetry.HedgeAnswer(w).String(); got != w.String() {
			t.Errorf("%s is counted as %s", w, got)
		}
	}
}
