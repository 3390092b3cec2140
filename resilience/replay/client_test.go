package replay

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// world is a World by two functions.
type world struct {
	begin   func(now time.Duration, a Attempt) (Fate, bool)
	abandon func(now time.Duration, a Attempt)
}

func (w world) Begin(now time.Duration, a Attempt) (Fate, bool) { return w.begin(now, a) }

func (w world) Abandon(now time.Duration, a Attempt) {
	if w.abandon != nil {
		w.abandon(now, a)
	}
}

func fixed(f Fate) world {
	return world{begin: func(time.Duration, Attempt) (Fate, bool) { return f, true }}
}

// ends notes how exchanges ended.
type ends []string

func (l *ends) Ended(now time.Duration, r *Request, e End) {
	*l = append(*l, fmt.Sprintf("%v #%d %v %d after %v, %d attempts, endpoint %d", now, r.ID, e.Reason, e.Status, e.Latency, e.Attempts, e.Endpoint))
}

func endpoints(n int) []Endpoint {
	list := make([]Endpoint, n)
	for i := range list {
		list[i] = Endpoint{Name: fmt.Sprintf("10.0.0.%d:80", i+1), Healthy: true}
	}
	return list
}

// source offers requests at a rate, evenly or as a Poisson process.
type source struct {
	e       *Engine
	id      ActorID
	c       *Client
	r       Random
	each    time.Duration
	poisson bool
	until   time.Duration
	n       uint64
	callers uint64
	request Request
}

func offer(e *Engine, c *Client, each, until time.Duration, poisson bool) *source {
	s := &source{e: e, c: c, r: e.Fork(), each: each, until: until, poisson: poisson, request: Request{Idempotent: true, Replayable: true}}
	s.id = e.Add(s)
	e.At(0, s.id, 0)
	return s
}

func (s *source) Fire(now time.Duration, _ uint64) {
	if now >= s.until {
		return
	}
	s.n++
	r := s.request
	r.ID = s.n
	if s.callers > 0 {
		r.Caller = s.n % s.callers
	}
	s.c.Offer(r)
	wait := s.each
	if s.poisson {
		wait = time.Duration(-math.Log(1-s.r.Fraction()) * float64(s.each))
	}
	s.e.At(now+wait, s.id, 0)
}

func TestEnds(t *testing.T) {
	ms := time.Millisecond
	r2 := retry.Default()
	r2.BackoffBase, r2.BackoffMax = 0, 0
	perTry := r2
	perTry.PerTryTimeout = 5 * ms
	for _, c := range []struct {
		name   string
		policy Policy
		fate   Fate
		want   string
	}{
		{"good", Policy{Timeout: time.Second}, Fate{Latency: 3 * ms, Status: 200}, "3ms #1 ok 200 after 3ms, 1 attempts, endpoint 0"},
		{"at once", Policy{}, Fate{Status: 204}, "0s #1 ok 204 after 0s, 1 attempts, endpoint 0"},
		{"timeout", Policy{Timeout: 2 * ms}, Fate{Latency: 3 * ms}, "2ms #1 request_timeout 0 after 2ms, 1 attempts, endpoint 0"},
		{"no timeout", Policy{}, Fate{Latency: time.Hour}, "1h0m0s #1 ok 0 after 1h0m0s, 1 attempts, endpoint 0"},
		{"error", Policy{}, Fate{Latency: ms, Reason: outcome.UpstreamError, Status: 503}, "1ms #1 upstream_error 503 after 1ms, 1 attempts, endpoint 0"},
		{"retried", Policy{Retry: &r2}, Fate{Latency: ms, Reason: outcome.UpstreamError, Status: 503}, "2ms #1 upstream_error 503 after 2ms, 2 attempts, endpoint 0"},
		{"per try", Policy{Retry: &perTry}, Fate{Latency: time.Second}, "10ms #1 try_timeout 0 after 10ms, 2 attempts, endpoint 0"},
		{"never retried", Policy{Retry: &r2}, Fate{Latency: ms, Reason: outcome.UpstreamProtocol}, "1ms #1 upstream_protocol 0 after 1ms, 1 attempts, endpoint 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := New(1)
			var got ends
			cl := NewClient(e, c.policy, fixed(c.fate), &got)
			cl.SetEndpoints(endpoints(1))
			cl.Offer(Request{ID: 1, Idempotent: true, Replayable: true})
			e.Run(2 * time.Hour)
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestNoEndpoints(t *testing.T) {
	e := New(1)
	var got ends
	cl := NewClient(e, Policy{}, fixed(Fate{}), &got)
	cl.Offer(Request{ID: 1})
	cl.SetEndpoints([]Endpoint{{Name: "a"}})
	cl.Policy().Balance.PanicPercent = 0
	cl.SetEndpoints([]Endpoint{{Name: "a"}})
	cl.Offer(Request{ID: 2})
	if want := (ends{"0s #1 no_endpoints 0 after 0s, 0 attempts, endpoint -1", "0s #2 no_endpoints 0 after 0s, 0 attempts, endpoint -1"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestLimitRefuses(t *testing.T) {
	e := New(1)
	p := Policy{}
	p.Limits.MaxRequests = 2
	cl := NewClient(e, p, fixed(Fate{Latency: time.Second}), nil)
	cl.SetEndpoints(endpoints(3))
	for range 5 {
		cl.Offer(Request{})
	}
	e.Run(2 * time.Second)
	if n := cl.Stats.Total(); n.Good != 2 || n.Refused != 3 || cl.Stats.Reasons[outcome.LimitRequests] != 3 {
		t.Errorf("%+v", n)
	}
	cl.Offer(Request{})
	e.Run(4 * time.Second)
	if n := cl.Stats.Total(); n.Good != 3 {
		t.Errorf("the places were not given back: %+v", n)
	}
}

// TestBreakerOnTheVirtualClock: it opens, refuses for open_for, tries and closes.
func TestBreakerOnTheVirtualClock(t *testing.T) {
	e := New(1)
	b := breaker.Default()
	b.ConsecutiveFailures, b.OpenFor = 3, 5*time.Second
	cl := NewClient(e, Policy{Breaker: &b}, world{begin: func(now time.Duration, _ Attempt) (Fate, bool) {
		if now < 10*time.Second {
			return Fate{Latency: time.Millisecond, Reason: outcome.ConnectFailed}, true
		}
		return Fate{Latency: time.Millisecond, Status: 200}, true
	}}, nil)
	cl.SetEndpoints(endpoints(2))
	offer(e, cl, 100*time.Millisecond, 20*time.Second, false)
	e.Run(21 * time.Second)
	n := cl.Stats.Total()
	// Open after 3 failures at 0.2 s, trials at 5.3 s (fails) and 10.4 s (passes).
	if n.Failed != 4 || n.BreakerOpened != 2 || n.Refused != 50+50 || n.Good != 96 {
		t.Errorf("%+v", n)
	}
}

// TestBreakerOfAnEndpoint: one that fails is left alone, and others get its share.
func TestBreakerOfAnEndpoint(t *testing.T) {
	e := New(1)
	b := breaker.Default()
	b.Scope, b.ConsecutiveFailures, b.OpenFor = breaker.ScopeEndpoint, 3, time.Hour
	sent := [3]int{}
	bad := 1
	cl := NewClient(e, Policy{Breaker: &b}, world{begin: func(_ time.Duration, a Attempt) (Fate, bool) {
		sent[a.Endpoint]++
		if a.Endpoint == bad || bad < 0 {
			return Fate{Latency: time.Millisecond, Reason: outcome.ConnectFailed}, true
		}
		return Fate{Latency: time.Millisecond, Status: 200}, true
	}}, nil)
	cl.Policy().Balance.Algorithm = balance.WeightedRoundRobin
	cl.SetEndpoints(endpoints(3))
	offer(e, cl, 10*time.Millisecond, 10*time.Second, false)
	e.Run(10 * time.Second)
	if n := cl.Stats.Total(); n.Failed != 3 || n.Refused != 0 || sent[1] != 3 || cl.Stats.now.Open != 1 {
		t.Errorf("%+v, sent %v, %d open", n, sent, cl.Stats.now.Open)
	}
	bad = -1 // all of them
	for range 100 {
		cl.Offer(Request{})
		e.Run(e.Now() + 10*time.Millisecond)
	}
	if n := cl.Stats.Total(); n.Failed != 3+6 || n.Refused != 94 || cl.Stats.Reasons[outcome.BreakerOpen] != 94 {
		t.Errorf("%+v", n)
	}
	if cl.SetEndpoints(endpoints(2)); cl.Stats.now.Open != 2 {
		t.Errorf("%d open of those that are left", cl.Stats.now.Open)
	}
}

// TestEjection: an endpoint that always fails is left out, and comes back.
func TestEjection(t *testing.T) {
	e := New(1)
	o := outlier.Default()
	cl := NewClient(e, Policy{Outlier: &o}, world{begin: func(now time.Duration, a Attempt) (Fate, bool) {
		if a.Endpoint == 2 && now < 30*time.Second {
			return Fate{Latency: time.Millisecond, Reason: outcome.UpstreamReset}, true
		}
		return Fate{Latency: time.Millisecond}, true
	}}, nil)
	cl.SetEndpoints(endpoints(5))
	early, late := cl.Stats.Watch(5*time.Second, 30*time.Second), cl.Stats.Watch(80*time.Second, 100*time.Second)
	offer(e, cl, time.Millisecond, 100*time.Second, true)
	e.Run(101 * time.Second)
	n := cl.Stats.Total()
	if n.Ejections < 3 || n.Readmissions < 1 {
		t.Errorf("%+v", n)
	}
	if early.Failed > 5 || late.Failed != 0 {
		t.Errorf("%d failed of %d, later %d", early.Failed, early.Ended(), late.Failed)
	}
}

// chaos is a world in which everything happens, some of it late.
type chaos struct {
	e  *Engine
	id ActorID
	c  *Client
	r  Random

	pending map[Ref]bool
	begun   int
	ended   int
}

func (w *chaos) Begin(now time.Duration, a Attempt) (Fate, bool) {
	w.begun++
	x := w.r.Next()
	latency := time.Duration(x % uint64(80*time.Millisecond))
	if x>>60 == 0 {
		latency = 0
	}
	if x>>50&3 == 0 {
		w.pending[a.Ref] = true
		w.e.At(now+latency, w.id, uint64(a.Ref))
		return Fate{}, false
	}
	return Fate{Latency: latency, Reason: w.reason(), Status: uint16(200 + x%400)}, true
}

func (w *chaos) reason() outcome.Reason {
	if w.r.Next()%3 > 0 {
		return outcome.OK
	}
	all := []outcome.Reason{outcome.ConnectFailed, outcome.UpstreamReset, outcome.UpstreamError, outcome.StaleConnection, outcome.UpstreamProtocol}
	return all[w.r.Next()%uint64(len(all))]
}

func (w *chaos) Fire(_ time.Duration, arg uint64) {
	ref := Ref(arg)
	if w.pending[ref] {
		delete(w.pending, ref)
		w.c.Answer(ref, Fate{Reason: w.reason(), Status: 200})
		w.c.Answer(ref, Fate{Reason: w.reason(), Status: 200}) // names nothing any more
	}
}

func (w *chaos) Abandon(_ time.Duration, a Attempt) {
	w.ended++
	delete(w.pending, a.Ref)
}

// parking is a guard that lets some wait and forgets some.
type parking struct {
	c     *Client
	r     Random
	e     *Engine
	id    ActorID
	in    int
	inner int
}

func (g *parking) Enter(now time.Duration, x *Exchange, note *uint64) (Answer, outcome.Reason) {
	*note = x.Request.ID
	switch g.r.Next() % 8 {
	case 0:
		return Refuse, outcome.Overload
	case 1:
		g.in++
		g.e.At(now+time.Duration(g.r.Next()%uint64(100*time.Millisecond)), g.id, uint64(x.Ref()))
		return Wait, outcome.OK
	}
	g.inner++
	return Pass, outcome.OK
}

func (g *parking) Fire(_ time.Duration, arg uint64) {
	if x := g.c.exchanges.get(Ref(arg)); x != nil && x.waiting {
		if arg>>32&7 == 1 {
			g.in--
			g.c.Resume(Ref(arg), outcome.RateLimited)
			return
		}
		g.in--
		g.inner++
	}
	g.c.Resume(Ref(arg), outcome.OK)
}

func (g *parking) Leave(_ time.Duration, x *Exchange, note *uint64, waiting bool, _ outcome.Reason) {
	if *note != x.Request.ID {
		panic("the note was lost")
	}
	if waiting {
		g.in--
	} else {
		g.inner--
	}
}

// eager hedges after a fixed time.
type eager struct{ allow int }

func (h *eager) After(_ time.Duration, x *Exchange) (time.Duration, bool) {
	return 20 * time.Millisecond, x.attempts < 3
}

func (h *eager) May(time.Duration, *Exchange) bool { h.allow++; return h.allow%7 != 0 }

func (h *eager) Observe(time.Duration, time.Duration, outcome.Reason) {}

// wild runs a client through everything and returns what came of it.
func wild(t *testing.T, seed uint64) (*Client, *chaos, map[uint64]int) {
	e := New(seed)
	w := &chaos{e: e, r: e.Fork(), pending: map[Ref]bool{}}
	w.id = e.Add(w)
	r, o, b := retry.Default(), outlier.Default(), breaker.Default()
	r.Attempts, r.PerTryTimeout = 4, 60*time.Millisecond
	o.MaxEjectedPercent, o.KeepEndpoints = 90, 0
	b.FailurePercent, b.OpenFor = 70, 100*time.Millisecond
	p := Policy{Timeout: 150 * time.Millisecond, Retry: &r, Outlier: &o, Breaker: &b}
	p.Limits.MaxRequests = 60
	p.Balance = balance.Default()
	p.Balance.Algorithm = balance.Algorithm(seed % 7)
	if seed%3 == 0 {
		b.Scope = breaker.ScopeEndpoint
	}
	seen := map[uint64]int{}
	c := NewClient(e, p, w, counter(seen))
	w.c = c
	g := &parking{c: c, r: e.Fork(), e: e}
	g.id = e.Add(g)
	c.Guard(g)
	if seed%2 == 0 {
		c.Hedge(&eager{})
	}
	c.SetEndpoints(endpoints(int(seed%5) + 1))
	s := offer(e, c, time.Millisecond, 20*time.Second, true)
	for i := range 20 {
		e.Run(time.Duration(i) * time.Second)
		c.SetEndpoints(endpoints(int(w.r.Next()%6) + 1))
		for range 5 {
			c.Cancel(c.Offer(Request{ID: s.n<<32 | w.r.Next()>>40, Idempotent: true}))
		}
	}
	e.Run(25 * time.Second)
	c.Stats.Close(e.Now())
	if g.in != 0 || g.inner != 0 {
		t.Errorf("seed %d: %d wait at the guard and %d are inside", seed, g.in, g.inner)
	}
	return c, w, seen
}

type counter map[uint64]int

func (c counter) Ended(_ time.Duration, r *Request, _ End) { c[r.ID]++ }

// TestConservation: every exchange ends once, every attempt ends, and what was
// acquired is given back, whatever the world does.
func TestConservation(t *testing.T) {
	for seed := range uint64(14) {
		c, w, seen := wild(t, seed)
		n := c.Stats.Total()
		if n.Offered != n.Ended() || c.Stats.Active() != 0 || n.Offered < 19000 {
			t.Errorf("seed %d: %d offered, %d ended, %d active", seed, n.Offered, n.Ended(), c.Stats.Active())
		}
		for id, k := range seen {
			if k != 1 {
				t.Fatalf("seed %d: exchange %d ended %d times", seed, id, k)
			}
		}
		if uint64(w.begun) != n.Sent || len(w.pending) != 0 {
			t.Errorf("seed %d: the world saw %d attempts of %d; %d are pending", seed, w.begun, n.Sent, len(w.pending))
		}
		if c.tries.used() != 0 || c.exchanges.used() != 0 || c.limits.Requests.Value() != 0 {
			t.Errorf("seed %d: %d tries, %d exchanges and %d places are in use", seed, c.tries.used(), c.exchanges.used(), c.limits.Requests.Value())
		}
		for _, ep := range c.endpoints {
			if ep.load.Inflight() != 0 {
				t.Errorf("seed %d: %s has %d in flight", seed, ep.Name, ep.load.Inflight())
			}
		}
		var sum Counts
		for i := range c.Stats.Points {
			sum.Add(&c.Stats.Points[i].Counts)
		}
		if sum != n {
			t.Errorf("seed %d: the points sum up to %+v, want %+v", seed, sum, n)
		}
	}
}

func TestSameSeedSameResult(t *testing.T) {
	a, _, _ := wild(t, 6)
	b, _, _ := wild(t, 6)
	other, _, _ := wild(t, 20)
	if !reflect.DeepEqual(a.Stats, b.Stats) {
		t.Error("two runs of one seed differ")
	}
	if reflect.DeepEqual(a.Stats.Points, other.Stats.Points) {
		t.Error("two seeds give the same run")
	}
}

// TestCaution: an endpoint that fails more than others, but not enough to be
// ejected, gets less.
func TestCaution(t *testing.T) {
	share := func(caution *outlier.Caution) float64 {
		e := New(1)
		o := outlier.Default()
		o.ConsecutiveFailures, o.FailurePercent, o.Caution = 0, 0, caution
		sent, all := 0, 0
		r := NewRandom(5)
		cl := NewClient(e, Policy{Outlier: &o}, world{begin: func(now time.Duration, a Attempt) (Fate, bool) {
			if all++; a.Endpoint == 1 {
				sent++
			}
			if a.Endpoint == 1 && r.Fraction() < .5 {
				return Fate{Latency: time.Millisecond, Reason: outcome.UpstreamError, Status: 503}, true
			}
			return Fate{Latency: time.Millisecond, Status: 200}, true
		}}, nil)
		cl.Policy().Balance.Algorithm = balance.Random
		cl.SetEndpoints(endpoints(5))
		offer(e, cl, 2*time.Millisecond, time.Minute, true)
		e.Run(time.Minute)
		return float64(sent) / float64(all)
	}
	cfg := outlier.DefaultCaution()
	if s := share(nil); s < .19 || s > .21 {
		t.Errorf("without caution the endpoint has %.3f", s)
	}
	if s := share(&cfg); s > .08 {
		t.Errorf("with caution the endpoint has %.3f", s)
	}
	cfg.Mode = guard.Observe
	if s := share(&cfg); s < .19 {
		t.Errorf("in observe mode the endpoint has %.3f", s)
	}
}

// TestHedging: what is slow for one in a hundred is answered by another endpoint,
// for little more load, and the losers are called off.
func TestHedging(t *testing.T) {
	run := func(h *hedge.Config) (*Client, uint64) {
		e := New(1)
		r := NewRandom(2)
		abandoned := uint64(0)
		cl := NewClient(e, Policy{Hedge: h}, world{
			begin: func(time.Duration, Attempt) (Fate, bool) {
				f := Fate{Latency: time.Duration((.5 + r.Fraction()) * float64(10*time.Millisecond)), Status: 200}
				if r.Fraction() < .01 {
					f.Latency *= 100
				}
				return f, true
			},
			abandon: func(time.Duration, Attempt) { abandoned++ },
		}, nil)
		cl.SetEndpoints(endpoints(10))
		w := cl.Stats.Watch(10*time.Second, time.Minute)
		offer(e, cl, 5*time.Millisecond, time.Minute, true)
		e.Run(2 * time.Minute)
		if w.Good != w.Began || cl.tries.used() != 0 {
			t.Errorf("%d of %d are good, %d attempts are left", w.Good, w.Began, cl.tries.used())
		}
		return cl, abandoned
	}
	cfg := hedge.Default()
	without, _ := run(nil)
	with, abandoned := run(&cfg)
	was, is := without.Stats.windows[0].Latency.Quantile(.999), with.Stats.windows[0].Latency.Quantile(.999)
	n := with.Stats.Total()
	if is*10 > was {
		t.Errorf("p99.9 falls from %v to %v only", was, is)
	}
	if more := float64(n.Hedges) / float64(n.Offered); more > .06 || more < .02 {
		t.Errorf("%.3f hedges a request", more)
	}
	if n.Hedges != abandoned || n.HedgesWon == 0 {
		t.Errorf("%+v, %d called off", n, abandoned)
	}
	cfg.Mode = guard.Observe
	if n := func() Counts { c, _ := run(&cfg); return c.Stats.Total() }(); n.Hedges != 0 {
		t.Errorf("%d hedges while only observed", n.Hedges)
	}
}

// TestNoAllocation: a replay at full speed allocates nothing an exchange.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	e, c := recorded()
	step := func() {
		for i := range 1000 {
			c.Offer(Request{ID: uint64(i), Idempotent: true, Replayable: true})
			e.Run(e.Now() + 100*time.Microsecond)
		}
	}
	for range 20 {
		step()
	}
	// A point of the series each 10 ms of a run would be an allocation now and then.
	c.Stats.Interval = time.Hour
	if n := testing.AllocsPerRun(20, step); n > 20 {
		t.Errorf("%v allocations for 1000 exchanges", n)
	}
}

// recorded is a client of ten endpoints whose outcomes are known at once, with
// the default policy of a proxy.
func recorded() (*Engine, *Client) {
	e := New(1)
	r, o, b := retry.Default(), outlier.Default(), breaker.Default()
	rnd := NewRandom(9)
	c := NewClient(e, Policy{Timeout: time.Second, Retry: &r, Outlier: &o, Breaker: &b}, world{begin: func(time.Duration, Attempt) (Fate, bool) {
		x := rnd.Next()
		f := Fate{Latency: time.Duration(x%8+1) * time.Millisecond, Status: 200}
		if x>>54 < 2 {
			f.Reason, f.Status = outcome.UpstreamError, 503
		}
		return f, true
	}}, nil)
	c.SetEndpoints(endpoints(10))
	return e, c
}

// BenchmarkReplay is the cost of an outcome: 1 µs is a million a second.
func BenchmarkReplay(b *testing.B) {
	e, c := recorded()
	b.ReportAllocs()
	for b.Loop() {
		c.Offer(Request{Idempotent: true, Replayable: true})
		e.Run(e.Now() + 100*time.Microsecond)
	}
}
