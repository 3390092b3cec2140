package upstream

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// gated returns a cluster whose gate lets most in and has a queue as change
// makes it.
func gated(b *bed, most int64, change func(*queue.Config)) *Cluster {
	return b.r.Acquire(spec(func(s *Spec) { gateSpec(s, most, change) }), 0)
}

func gateSpec(s *Spec, most int64, change func(*queue.Config)) {
	q := queue.Default()
	if change != nil {
		change(&q)
	}
	s.Policy.Limits.MaxRequests, s.Policy.Limits.Queue = most, &q
}

func (g *Gate) ask(a Ask) queue.Result {
	if g.TryEnter(0) {
		return queue.Entered
	}
	a.Now = g.cluster.registry.sweeper.Now()
	if a.Deadline > 0 {
		a.Deadline += a.Now
	}
	why, _ := g.Enter(&a)
	return why
}

// Many who come, go, give up and are given up: there are never more inside than
// the limit allows, everybody is told what became of them, and nothing is left.
func TestGateUnderContention(t *testing.T) {
	const most, workers, rounds = 5, 48, 150
	b := newBed(t)
	c := gated(b, most, func(q *queue.Config) { q.Size, q.Target, q.Order = 30, 0, queue.FIFO })
	var inside, peak atomic.Int64
	var got [queue.Results]atomic.Int64
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				a := Ask{Caller: uint64(i % 5), Priority: queue.Ranked(i % queue.Priorities)}
				switch r.IntN(8) {
				case 0:
					a.Deadline = time.Duration(r.IntN(200)) * time.Microsecond
				case 1:
					gone := make(chan struct{})
					close(gone)
					a.Gone = gone
				}
				why := c.Gate.ask(a)
				got[why].Add(1)
				if why != queue.Entered {
					continue
				}
				n := inside.Add(1)
				for m := peak.Load(); n > m && !peak.CompareAndSwap(m, n); m = peak.Load() {
				}
				for range r.IntN(300) {
					_ = r.Uint64()
				}
				inside.Add(-1)
				c.Gate.Leave(b.sw.Now())
			}
		})
	}
	// Reloads come in between.
	for i := range 50 {
		b.r.Acquire(spec(func(s *Spec) { gateSpec(s, int64(1+i%most), func(q *queue.Config) { q.Size = 5 + i }) }), 0)
		b.r.Release(c)
	}
	b.r.Acquire(spec(func(s *Spec) { gateSpec(s, most, nil) }), 0)
	b.r.Release(c)
	wg.Wait()
	if peak.Load() > most {
		t.Errorf("%d at once, limit %d", peak.Load(), most)
	}
	sum := int64(0)
	for r := range got {
		sum += got[r].Load()
	}
	if sum != workers*rounds || got[queue.Entered].Load() == 0 || got[queue.Stopped].Load() != 0 {
		t.Errorf("%d were told something", sum)
	}
	if n, q, v := c.Gate.waiting.Load(), c.Gate.queue.Len(), c.Limits.Requests.Value(); n != 0 || int64(q) != 0 || v != 0 {
		t.Errorf("left: %d waiting, %d in the queue, %d active", n, q, v)
	}
}

// in runs f where time stands still until all wait.
func in(t *testing.T, most int64, change func(*queue.Config), f func(b *bed, c *Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		f(b, gated(b, most, change))
	})
}

// asking asks in a goroutine of its own and waits until that waits or is through.
func (g *Gate) asking(a Ask) chan queue.Result {
	got := make(chan queue.Result, 1)
	go func() { got <- g.ask(a) }()
	synctest.Wait()
	return got
}

func want(t *testing.T, got chan queue.Result, want queue.Result) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-got:
		if r != want {
			t.Errorf("%s, want %s", r, want)
		}
	default:
		t.Errorf("still waits, want %s", want)
	}
}

func TestGateLetsInAsOthersLeave(t *testing.T) {
	in(t, 1, nil, func(b *bed, c *Cluster) {
		if c.Gate.ask(Ask{}) != queue.Entered {
			t.Fatal("no room in an empty gate")
		}
		first, second := c.Gate.asking(Ask{}), c.Gate.asking(Ask{Priority: queue.High})
		if c.Gate.waiting.Load() != 2 || c.Limits.Requests.Value() != 1 {
			t.Fatalf("%d wait, %d active", c.Gate.waiting.Load(), c.Limits.Requests.Value())
		}
		c.Gate.Leave(b.sw.Now())
		want(t, second, queue.Entered)
		c.Gate.Leave(b.sw.Now())
		want(t, first, queue.Entered)
		c.Gate.Leave(b.sw.Now())
	})
}

func TestGateGivesUp(t *testing.T) {
	in(t, 1, func(q *queue.Config) { q.Size = 3; q.MaxWait = 50 * time.Millisecond }, func(_ *bed, c *Cluster) {
		c.Gate.ask(Ask{})
		gone := make(chan struct{})
		long := c.Gate.asking(Ask{})
		late := c.Gate.asking(Ask{Deadline: 20 * time.Millisecond, Caller: 2})
		left := c.Gate.asking(Ask{Gone: gone, Caller: 3})
		want(t, c.Gate.asking(Ask{}), queue.Full)
		close(gone)
		want(t, left, queue.Gone)
		time.Sleep(20 * time.Millisecond)
		want(t, late, queue.TooLate)
		time.Sleep(30 * time.Millisecond)
		want(t, long, queue.WaitedOut)
		if n := c.Limits.Rejected(limit.Requests); n != 4 {
			t.Errorf("%d refused", n)
		}
		c.Gate.Leave(0)
	})
}

func TestGateStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		ctx, cancel := context.WithCancel(context.Background())
		b.r.ctx = ctx
		c := gated(b, 1, nil)
		c.Gate.ask(Ask{})
		got := c.Gate.asking(Ask{})
		cancel()
		want(t, got, queue.Stopped)
		c.Gate.Leave(0)
	})
}

// A reload that gives more room, or none of the limit, is felt by those who wait
// already; one that takes the queue away lets them wait on.
func TestGateReload(t *testing.T) {
	in(t, 1, nil, func(b *bed, c *Cluster) {
		apply := func(change func(*Spec)) {
			b.r.Acquire(spec(change), 0)
			b.r.Release(c)
		}
		c.Gate.ask(Ask{})
		var got []chan queue.Result
		for range 4 {
			got = append(got, c.Gate.asking(Ask{}))
		}
		apply(func(s *Spec) { gateSpec(s, 2, nil) })
		want(t, got[0], queue.Entered)
		apply(func(s *Spec) { s.Policy.Limits.MaxRequests = 2 })
		want(t, c.Gate.asking(Ask{}), queue.Full)
		c.Gate.Leave(0)
		want(t, got[1], queue.Entered)
		if c.Gate.waiting.Load() != 2 {
			t.Errorf("%d wait", c.Gate.waiting.Load())
		}
		apply(nil)
		want(t, got[2], queue.Entered)
		want(t, got[3], queue.Entered)
		for range 4 {
			c.Gate.Leave(0)
		}
	})
}

// While the queue stands those who have waited longer than the target are turned
// away as soon as anything happens.
func TestGateSheds(t *testing.T) {
	in(t, 1, nil, func(b *bed, c *Cluster) {
		c.Gate.ask(Ask{})
		var got []chan queue.Result
		for range 30 {
			got = append(got, c.Gate.asking(Ask{}))
			time.Sleep(7 * time.Millisecond)
			c.Gate.Leave(b.sw.Now())
			c.Limits.Requests.Acquire(0) // another took the place at once
			got = append(got, c.Gate.asking(Ask{}))
		}
		synctest.Wait()
		delayed := 0
		for _, ch := range got {
			select {
			case r := <-ch:
				if r == queue.Delayed {
					delayed++
				}
			default:
			}
		}
		if delayed == 0 {
			t.Error("nobody was turned away")
		}
		for c.Limits.Requests.Value() > 0 || c.Gate.waiting.Load() > 0 {
			c.Gate.Leave(b.sw.Now())
			synctest.Wait()
		}
	})
}

func TestGateObserves(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { gateSpec(s, 2, nil); s.Policy.Limits.Mode = guard.Observe }), 0)
	for range 5 {
		if c.Gate.ask(Ask{}) != queue.Entered {
			t.Fatal("observe mode refused")
		}
	}
	if n := c.Limits.WouldHaveRejected(limit.Requests); n != 3 || c.Gate.Most() != 0 {
		t.Errorf("would have refused %d; limit %d", n, c.Gate.Most())
	}
}

// What it counts can be asked for.
func TestGateCounts(t *testing.T) {
	in(t, 1, func(q *queue.Config) { q.Size, q.LeastSharePercent = 1, 0 }, func(_ *bed, c *Cluster) {
		c.Gate.ask(Ask{})
		low := c.Gate.asking(Ask{Priority: queue.Low})
		critical := c.Gate.asking(Ask{Priority: queue.Critical})
		want(t, low, queue.Displaced)
		c.Gate.Leave(0)
		want(t, critical, queue.Entered)
		c.Gate.Leave(0)
		got := c.Metrics().QueueTotals()
		if got.Results[0][queue.Entered] != 1 || got.Results[3][queue.Displaced] != 1 || got.Waits.Count() != 2 {
			t.Errorf("%v", got.Results)
		}
	})
}

func TestGateAllocatesNothing(t *testing.T) {
	b := newBed(t)
	for name, c := range map[string]*Cluster{"plain": b.r.Acquire(spec(func(s *Spec) { s.Name = "x" }), 0), "with a queue": gated(b, 10, nil)} {
		if n := testing.AllocsPerRun(100, func() {
			if !c.Gate.TryEnter(0) {
				t.Error("no room")
			}
			c.Gate.Leave(0)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkGate(b *testing.B) {
	bed := newBed(b)
	c := gated(bed, 100, nil)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if c.Gate.TryEnter(0) {
				c.Gate.Leave(0)
			}
		}
	})
}

// The words of the metrics are those of the machine.
func TestQueueWords(t *testing.T) {
	var got telemetry.QueueTotals
	if len(got.Results) != queue.Priorities || len(got.Results[0]) != queue.Results {
		t.Fatal("telemetry counts other results than the machine has")
	}
	for r := range queue.Results {
		if a, b := telemetry.QueueResult(r).String(), queue.Result(r).String(); a != b {
			t.Errorf("%q is %q in metrics", b, a)
		}
	}
	for r := range queue.Priorities {
		if a, b := telemetry.Priority(r).String(), queue.Ranked(r).String(); a != b {
			t.Errorf("%q is %q in metrics", b, a)
		}
	}
}
