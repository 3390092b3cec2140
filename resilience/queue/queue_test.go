package queue

import (
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// served runs n places, one a tick, with what arrive puts in between, and
// counts who got them.
func served(q *Queue, ticks int, tick time.Duration, arrive func(now time.Duration)) (got map[uint64]int, byRank [Priorities]int, waits []time.Duration) {
	got = map[uint64]int{}
	for i := range ticks {
		now := time.Duration(i) * tick
		arrive(now)
		for q.Shed(now) != nil {
		}
		if w := q.Pop(now); w != nil {
			got[w.Caller]++
			byRank[w.Priority.Rank()]++
			waits = append(waits, now-w.Since())
		}
	}
	return got, byRank, waits
}

// One caller who floods gets no more than an equal part while others want theirs.
func TestCallersTakeTurns(t *testing.T) {
	for _, o := range []Order{FIFO, LIFO, Adaptive} {
		cfg := Default()
		cfg.Order, cfg.Size = o, 30
		q := New(cfg)
		got, _, _ := served(q, 3000, ms, func(now time.Duration) {
			for range 10 {
				q.Push(now, &Waiter{Caller: 1})
			}
			if now/ms%2 == 0 { // half of the places by three callers together
				q.Push(now, &Waiter{Caller: 2 + uint64(now/ms/2%3)})
			}
		})
		for c := uint64(2); c < 5; c++ {
			if got[c] < 490 {
				t.Errorf("%s: caller %d asked 500 times and got %d places, the noisy one %d", o, c, got[c], got[1])
			}
		}
		if got[1] < 1400 {
			t.Errorf("%s: the noisy caller got %d of the 1500 places that nobody else wanted", o, got[1])
		}
	}
}

// The highest priority comes first, and none starves.
func TestPriorities(t *testing.T) {
	cfg := Default()
	cfg.Order = FIFO
	q := New(cfg)
	_, got, _ := served(q, 4000, ms, func(now time.Duration) {
		for r := range Priorities {
			q.Push(now, &Waiter{Priority: Ranked(r)})
		}
	})
	for r, want := range [Priorities]int{3400, 200, 200, 200} {
		if got[r] < want-10 || got[r] > want+10 {
			t.Errorf("%s got %d places, want about %d", Ranked(r), got[r], want)
		}
	}
	cfg.LeastSharePercent = 0
	q = New(cfg)
	if _, got, _ = served(q, 1000, ms, func(now time.Duration) {
		q.Push(now, &Waiter{Priority: High})
		q.Push(now, &Waiter{Priority: Low})
	}); got != [Priorities]int{0, 1000, 0, 0} {
		t.Errorf("without a guaranteed share the places went to %v", got)
	}
}

// Three times as many come as can be served: the delay of those who are keeps to
// the target, whatever the order; once it is over the queue is what it was.
func TestDelayIsBounded(t *testing.T) {
	for _, o := range []Order{FIFO, LIFO, Adaptive} {
		cfg := Default()
		cfg.Order, cfg.Size = o, 1000
		q := New(cfg)
		stood := false
		_, _, waits := served(q, 5000, ms, func(now time.Duration) {
			for range 3 {
				q.Push(now, &Waiter{})
			}
			stood = stood || q.Standing()
		})
		if !stood || len(waits) != 5000 {
			t.Fatalf("%s: stood %v, %d served", o, stood, len(waits))
		}
		for i, w := range waits[300:] {
			if w > cfg.Target {
				t.Fatalf("%s: number %d had waited %s", o, i+300, w)
			}
		}
		for now := 5 * time.Second; q.Len() > 0; now += ms {
			q.Pop(now)
		}
		for now := 6 * time.Second; now < 7*time.Second; now += ms {
			q.Push(now, &Waiter{})
			q.Pop(now)
		}
		if q.Standing() {
			t.Errorf("%s: an idle queue stands", o)
		}
	}
}

// A peak shorter than the interval is served whole, in order.
func TestPeakIsServed(t *testing.T) {
	q := New(Default())
	for i := range 80 {
		q.Push(0, &Waiter{Caller: 1, Priority: Normal}) // all at once
		_ = i
	}
	n := 0
	for now := ms; q.Len() > 0; now += ms {
		if q.Shed(now) != nil {
			t.Fatalf("somebody was turned away at %s", now)
		}
		q.Pop(now)
		n++
	}
	if n != 80 {
		t.Errorf("%d served", n)
	}
}

// A clock that jumps either way turns away no more than max_wait allows, and
// nothing stops.
func TestClockJumps(t *testing.T) {
	q := New(Default())
	q.Push(time.Hour, &Waiter{})
	q.Push(time.Minute, &Waiter{}) // back
	if q.Shed(time.Second) != nil || q.Len() != 2 {
		t.Error("a clock that went back turned somebody away")
	}
	if w := q.Pop(time.Second); w == nil || w.Since() != time.Hour {
		t.Errorf("pop: %+v", w)
	}
	if w := q.Shed(1000 * time.Hour); w == nil || w.Result() != WaitedOut {
		t.Errorf("after a jump ahead: %+v", w)
	}
	q.Push(1000*time.Hour, &Waiter{})
	if q.Standing() || q.Pop(1000*time.Hour) == nil {
		t.Error("the queue does not go on")
	}
}

// A higher priority takes the place of a lower one, down to what that is
// guaranteed.
func TestHigherDisplacesLower(t *testing.T) {
	cfg := Default()
	cfg.Size, cfg.LeastSharePercent = 20, 10
	q := New(cfg)
	for range 20 {
		q.Push(0, &Waiter{Priority: Low})
	}
	for range 18 {
		if ok, out := q.Push(0, &Waiter{Priority: High}); !ok || out == nil || out.Priority != Low || out.Result() != Displaced {
			t.Fatalf("%v, %+v", ok, out)
		}
	}
	if ok, out := q.Push(0, &Waiter{Priority: High}); ok || out != nil || q.LenOf(Low) != 2 {
		t.Errorf("%v, %+v, %d low", ok, out, q.LenOf(Low))
	}
	if ok, out := q.Push(0, &Waiter{Priority: Normal}); !ok || out.Priority != High {
		t.Errorf("normal gets none of what it is guaranteed: %v, %+v", ok, out)
	}
}

func TestConfigChange(t *testing.T) {
	cfg := Default()
	q := New(cfg)
	for range 100 {
		q.Push(0, &Waiter{})
	}
	cfg.Size, cfg.Target, cfg.Order = 10, 0, FIFO
	q.SetConfig(cfg)
	if ok, _ := q.Push(ms, &Waiter{}); ok || q.Len() != 100 {
		t.Errorf("%v, %d wait", ok, q.Len())
	}
	for range 91 {
		q.Pop(ms)
	}
	if ok, _ := q.Push(ms, &Waiter{}); !ok || q.Config().Size != 10 {
		t.Error("no room after it has shrunk")
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Target, c.Order = 0, LIFO }, ""},
		{func(c *Config) { c.Size = 0 }, "size"},
		{func(c *Config) { c.Size = MaxSize + 1 }, "size"},
		{func(c *Config) { c.Order = 9 }, "order"},
		{func(c *Config) { c.MaxWait = 0 }, "max_wait target"},
		{func(c *Config) { c.Target = -1 }, "target"},
		{func(c *Config) { c.Target = time.Second }, "target"},
		{func(c *Config) { c.Target = 0 }, "target"},
		{func(c *Config) { c.Interval = ms }, "interval"},
		{func(c *Config) { c.LeastSharePercent = 26 }, "least_share_percent"},
	} {
		cfg := Default()
		c.change(&cfg)
		var got []string
		cfg.Validate(func(field, _ string) { got = append(got, field) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", cfg, s, c.want)
		}
	}
}

func TestWords(t *testing.T) {
	for _, o := range []Order{Adaptive, FIFO, LIFO} {
		var back Order
		if b, _ := o.MarshalText(); back.UnmarshalText(b) != nil || back != o {
			t.Errorf("%s", o)
		}
	}
	for r := range Priorities {
		var back Priority
		if b, _ := Ranked(r).MarshalText(); back.UnmarshalText(b) != nil || back != Ranked(r) || back.Rank() != r {
			t.Errorf("%s", Ranked(r))
		}
	}
	var o Order
	var p Priority
	if o.UnmarshalText([]byte("last")) == nil || p.UnmarshalText([]byte("urgent")) == nil {
		t.Error("unknown words are taken")
	}
	if p != Normal || Priority(0).String() != "normal" || Results != int(Stopped)+1 || Stopped.String() != "stopped" {
		t.Error("the zero value is not normal, or the words do not fit")
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	q := New(Default())
	ws := make([]Waiter, 64)
	now := time.Duration(0)
	if n := testing.AllocsPerRun(100, func() {
		for i := range ws {
			ws[i] = Waiter{Caller: uint64(i % 7), Priority: Ranked(i % Priorities)}
			q.Push(now, &ws[i])
		}
		for q.Shed(now) != nil {
		}
		for q.Pop(now) != nil {
		}
		now += ms
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPushPop(b *testing.B) {
	q := New(Default())
	var w Waiter
	now := time.Duration(0)
	for b.Loop() {
		now += time.Microsecond
		w = Waiter{Caller: uint64(now & 63)}
		q.Push(now, &w)
		q.Shed(now)
		q.Pop(now)
	}
}
