package hedge

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

const ms = time.Millisecond

func TestValidate(t *testing.T) {
	set := func(change func(*Config)) Config {
		c := Default()
		change(&c)
		return c
	}
	for _, test := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"default", Default(), nil},
		{"zero", Config{}, []string{"percentile", "min_samples", "max_attempts"}},
		{"mode", set(func(c *Config) { c.Mode = guard.Observe + 1 }), []string{"mode"}},
		{"percentile", set(func(c *Config) { c.Percentile = 49.9 }), []string{"percentile"}},
		{"percentile 100", set(func(c *Config) { c.Percentile = 100 }), []string{"percentile"}},
		{"no number", set(func(c *Config) { c.Percentile = Percentile(math.NaN()) }), []string{"percentile"}},
		{"times", set(func(c *Config) { c.Delay, c.MinDelay = -1, 2*time.Minute }), []string{"delay", "min_delay"}},
		{"delay below the least", set(func(c *Config) { c.Delay = time.Microsecond }), []string{"delay"}},
		{"attempts", set(func(c *Config) { c.MaxAttempts = 5 }), []string{"max_attempts"}},
		{"statuses", set(func(c *Config) { c.NonFatalStatuses = []retry.GRPCStatus{14, 0, 14} }), []string{"non_fatal_statuses[1]", "non_fatal_statuses[2]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			test.cfg.Validate(func(field, problem string) {
				if problem == "" {
					t.Errorf("%s: no problem given", field)
				}
				got = append(got, field)
			})
			if !slices.Equal(got, test.want) {
				t.Errorf("mistakes in %v, want %v", got, test.want)
			}
		})
	}
}

func FuzzPercentile(f *testing.F) {
	for _, s := range []string{"p95", "p99.9", "p50", "95", "p", "pp", "p1e3", "p-1", "p.", "p9.9.9", "P95", "pNaN", "p000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var p Percentile
		err := p.UnmarshalText([]byte(s))
		if err != nil {
			if !strings.Contains(err.Error(), "write p95") {
				t.Errorf("%q: %v gives no remedy", s, err)
			}
			return
		}
		if s[0] != 'p' || p < 0 || math.IsNaN(float64(p)) || math.IsInf(float64(p), 0) {
			t.Fatalf("%q is taken for %v", s, float64(p))
		}
		text, _ := p.MarshalText()
		var again Percentile
		if err := again.UnmarshalText(text); err != nil || again != p {
			t.Fatalf("%q is written %s and read %v, %v", s, text, again, err)
		}
	})
}

// TestBuckets: every duration is in the bucket whose edge is next above it, by an
// eighth at most.
func TestBuckets(t *testing.T) {
	last := -1
	for d := time.Duration(1); d < 200*time.Second; d += d/50 + 1 {
		b := bucketOf(d)
		if b < last || b >= bucketsAll {
			t.Fatalf("%v is in bucket %d behind %d", d, b, last)
		}
		last = b
		if b == bucketsAll-1 {
			continue
		}
		if e := edge(b); e <= d || b > 0 && e > d+d/8+1 {
			t.Fatalf("%v is in the bucket up to %v", d, e)
		}
	}
	if last != bucketsAll-1 || bucketOf(-1) != 0 || bucketOf(math.MaxInt64) != bucketsAll-1 {
		t.Errorf("the ends are in buckets %d, %d and %d", bucketOf(-1), last, bucketOf(math.MaxInt64))
	}
}

// TestLatencyAgainstModel compares with a list of all observations over random
// histories.
func TestLatencyAgainstModel(t *testing.T) {
	type seen struct {
		window uint32
		d      time.Duration
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		var l Latency
		var all []seen
		now := time.Duration(rnd.Int64N(int64(time.Hour)))
		for range 60 {
			now += time.Duration(rnd.Int64N(int64(8 * time.Second)))
			if rnd.IntN(10) == 0 {
				now += time.Duration(rnd.Int64N(int64(time.Minute)))
			}
			for range rnd.IntN(60) {
				d := time.Duration(math.Exp(rnd.NormFloat64()*2) * float64(10*ms))
				l.Observe(now, d)
				all = append(all, seen{windowAt(now), d})
			}
			var left []time.Duration
			for _, s := range all {
				if w := windowAt(now); s.window == w || s.window+1 == w {
					left = append(left, s.d)
				}
			}
			now += refresh // what was found is not older than this
			left = left[:0]
			for _, s := range all {
				if w := windowAt(now); s.window == w || s.window+1 == w {
					left = append(left, s.d)
				}
			}
			p, enough := []Percentile{50, 90, 95, 99.9}[rnd.IntN(4)], 1+rnd.IntN(200)
			got, ok := l.Quantile(now, p, enough)
			if ok != (len(left) >= enough) {
				t.Fatalf("%d of at least %d samples: %t", len(left), enough, ok)
			}
			if !ok {
				continue
			}
			slices.Sort(left)
			want := left[int(math.Ceil(float64(p)/100*float64(len(left))))-1]
			if edge(bucketOf(want)) != got {
				t.Fatalf("%v of %d is %v, want the edge above %v", p, len(left), got, want)
			}
		}
	}
}

// TestQuantileIsKept: the counts are not looked at for each request, and what was
// found for one percentile is not given for another.
func TestQuantileIsKept(t *testing.T) {
	var l Latency
	for i := range 100 {
		l.Observe(0, time.Duration(i+1)*ms)
	}
	first, _ := l.Quantile(0, 95, 100)
	for range 1000 {
		l.Observe(0, 10*time.Second)
	}
	if got, _ := l.Quantile(refresh-1, 95, 100); got != first {
		t.Errorf("a moment later %v, before %v", got, first)
	}
	if got, ok := l.Quantile(refresh-1, 50, 100); !ok || got < time.Second {
		t.Errorf("another percentile is %v, %t", got, ok)
	}
	if got, _ := l.Quantile(2*refresh, 95, 100); got < 10*time.Second {
		t.Errorf("then %v", got)
	}
	if _, ok := l.Quantile(2*Window, 95, 100); ok {
		t.Error("what is older than two windows still counts")
	}
	l.Observe(0, ms) // a late reading
	if _, ok := l.Quantile(2*Window+refresh, 95, 1); ok {
		t.Error("a late reading of the clock counts as new")
	}
}

func TestWait(t *testing.T) {
	var all, route Latency
	c := Default()
	if _, ok := c.Wait(0, nil, &route, &all); ok {
		t.Error("a wait without samples")
	}
	for range 100 {
		all.Observe(0, 100*ms)
	}
	now := 2 * refresh
	if d, ok := c.Wait(now, nil, &route, &all); !ok || d < 100*ms || d > 113*ms {
		t.Errorf("by the destination %v, %t", d, ok)
	}
	for range 100 {
		route.Observe(now, 10*ms)
	}
	now += 2 * refresh
	if d, ok := c.Wait(now, nil, &route, &all); !ok || d < 10*ms || d > 12*ms {
		t.Errorf("by the route %v, %t", d, ok)
	}
	c.MinDelay = 50 * ms
	if d, _ := c.Wait(now, nil, &route, &all); d != 50*ms {
		t.Errorf("%v is below the least", d)
	}
	c.Percentile = 99.9 // takes 5000
	if _, ok := c.Wait(now+2*refresh, nil, &route, &all); ok {
		t.Error("p99.9 of 100 samples")
	}
	c.Delay = 7 * ms
	if d, ok := c.Wait(now); !ok || d != 7*ms {
		t.Errorf("fixed %v, %t", d, ok)
	}
}

func TestDecide(t *testing.T) {
	good := Question{Attempts: 1, Others: 1}
	set := func(change func(*Question)) Question {
		q := good
		change(&q)
		return q
	}
	for _, test := range []struct {
		q    Question
		want Why
	}{
		{good, Started},
		{set(func(q *Question) { q.Attempts = 2 }), AttemptsSpent},
		{set(func(q *Question) { q.Others = 0 }), NoOther},
		{set(func(q *Question) { q.Others = -1 }), NoOther},
		{set(func(q *Question) { q.Waiting = 1 }), Queueing},
		{set(func(q *Question) { q.Ejected = 1 }), Ejections},
		{set(func(q *Question) { q.Panicking = true }), Ejections},
		{set(func(q *Question) { q.Broken = true }), BreakerNotClosed},
		{set(func(q *Question) { q.Short = true }), MemoryShort},
		{set(func(q *Question) { q.Pushback = retry.PushbackStop }), PushedBack},
		{set(func(q *Question) { q.Pushback = retry.PushbackWait }), Started},
	} {
		c := Default()
		b := retry.NewBudget(retry.Config{BudgetMinPerSecond: 0.1}) // one in the horizon
		before := b.Balance(0)
		if got := c.Decide(test.q, b, 0); got != test.want {
			t.Errorf("%+v: %s, want %s", test.q, got, test.want)
		}
		if got := before - b.Balance(0); got != map[bool]float64{true: 1}[test.want == Started] {
			t.Errorf("%s took %v from the budget", test.want, got)
		}
		if test.want == Started {
			if got := c.Decide(test.q, b, 0); got != BudgetSpent {
				t.Errorf("the second is %s", got)
			}
			if b.Withdraw(0) {
				t.Error("retries have a budget of their own")
			}
			if got := c.Decide(test.q, nil, 0); got != Started {
				t.Errorf("without a budget %s", got)
			}
		}
		c.Mode = guard.Observe
		b = retry.NewBudget(retry.Config{BudgetMinPerSecond: 0.1})
		want := test.want
		if want == Started {
			want = Observed
		}
		if got := c.Decide(test.q, b, 0); got != want || b.Balance(0) != 1 {
			t.Errorf("observed: %s, want %s; %v left of the budget", got, want, b.Balance(0))
		}
		c.Mode = guard.Percent(25)
		test.q.Draw = 7499
		if got := c.Decide(test.q, b, 0); got != want || b.Balance(0) != 1 {
			t.Errorf("outside of the percentage: %s, want %s; %v left of the budget", got, want, b.Balance(0))
		}
		test.q.Draw = 7500
		if got := c.Decide(test.q, b, 0); got != test.want {
			t.Errorf("within the percentage: %s, want %s", got, test.want)
		}
	}
}

func TestHedges(t *testing.T) {
	c := Default()
	if !c.Hedges(true, 1) || c.Hedges(false, 1) || c.Hedges(true, 2) {
		t.Error("by default only what is idempotent is hedged, once")
	}
	c.NonIdempotent = true
	if !c.Hedges(false, 1) || c.Fatal(14) || !c.Fatal(5) || !c.Fatal(0) {
		t.Error("told otherwise, all is hedged, and only UNAVAILABLE does not end it")
	}
}

// TestMethods: a bounded number of methods have latencies of their own, whoever
// comes first.
func TestMethods(t *testing.T) {
	var l Latencies
	if l.Method(7) != nil {
		t.Error("a method that was never answered is known")
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for k := range uint64(100) {
				if m := l.Learn(k * 2); m != nil {
					m.Observe(0, ms)
				}
			}
		})
	}
	wg.Wait()
	known := 0
	for k := range uint64(100) {
		if m := l.Method(k * 2); m != nil {
			known++
			if m != l.Learn(k*2) {
				t.Error("a method has two")
			}
		}
	}
	if known != mostMethods {
		t.Errorf("%d methods are known", known)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{"unknown": true}
	for _, w := range Whys() {
		if s := w.String(); seen[s] {
			t.Errorf("%q twice", s)
		} else {
			seen[s] = true
		}
	}
	if Why(200).String() != "unknown" {
		t.Error("a value beyond has a name")
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var l Latencies
	b := retry.NewBudget(retry.Default())
	c := Default()
	m := l.Learn(5)
	now := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 10 * ms
		l.All.Observe(now, 5*ms)
		l.Learn(5).Observe(now, 5*ms)
		_, _ = c.Wait(now, l.Method(5), m, &l.All)
		c.Decide(Question{Attempts: 1, Others: 1}, b, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestConcurrent: what many count at once is all counted, over the turns of windows
// too.
func TestConcurrent(t *testing.T) {
	var l Latency
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				now := time.Duration(i/1000) * Window
				l.Observe(now, 3*ms)
				l.Quantile(now, 95, 100)
			}
		})
	}
	wg.Wait()
	if got := l.quantile(1, 95, 8001); got < 3*ms || got > 4*ms {
		t.Errorf("found %v", got)
	}
	if got := l.quantile(1, 95, 16001); got != 0 {
		t.Error("more was counted than there was")
	}
}
