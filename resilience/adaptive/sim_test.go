package adaptive

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

const ms = time.Millisecond

// world is a destination with slots, behind a limiter, on a virtual clock.
type world struct {
	l       *Limiter
	slots   int
	service func(now time.Duration) time.Duration
	every   func(now time.Duration) time.Duration // until the next request comes

	now      time.Duration
	busy     events          // what is worked on, by when it ends
	waiting  []time.Duration // in the destination, by when they came
	active   int64
	most     int64
	admitted int
	refused  int
	done     []job
	limits   []int64 // one a second
}

type job struct{ came, at time.Duration }

type events []job

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(job)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func (w *world) start() {
	for len(w.busy) < w.slots && len(w.waiting) > 0 {
		heap.Push(&w.busy, job{w.waiting[0], w.now + w.service(w.now)})
		w.waiting = w.waiting[1:]
	}
}

// run goes on until the end.
func (w *world) run(until time.Duration) {
	next := w.now + w.every(w.now)
	for {
		if len(w.busy) > 0 && w.busy[0].at <= next {
			j := heap.Pop(&w.busy).(job)
			if j.at > until {
				heap.Push(&w.busy, j)
				break
			}
			w.tick(j.at)
			w.done = append(w.done, job{j.came, w.now})
			w.l.Observe(w.now, w.now-j.came, w.active)
			w.active--
			w.start()
			continue
		}
		if next > until {
			break
		}
		w.tick(next)
		if w.active < w.l.Limit() {
			w.active++
			w.admitted++
			w.most = max(w.most, w.active)
			w.waiting = append(w.waiting, w.now)
			w.start()
		} else {
			w.refused++
		}
		next = w.now + w.every(w.now)
	}
	w.tick(until)
}

func (w *world) tick(now time.Duration) {
	for s := w.now/time.Second + 1; s <= now/time.Second; s++ {
		w.limits = append(w.limits, w.l.Limit())
	}
	w.now = now
}

// between returns how many were done in a time, and a quantile of what they took.
func (w *world) between(from, to time.Duration, q float64) (n int, took time.Duration) {
	var list []time.Duration
	for _, j := range w.done {
		if j.at > from && j.at <= to {
			list = append(list, j.at-j.came)
		}
	}
	if len(list) == 0 {
		return 0, 0
	}
	slices.Sort(list)
	return len(list), list[int(q*float64(len(list)-1))]
}

func always(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// poisson is how long it is until the next of so many a second.
func poisson(r *rand.Rand, perSecond float64) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration {
		return time.Duration(r.ExpFloat64() / perSecond * float64(time.Second))
	}
}

// The result to reproduce: a destination with ten slots of 10 ms, and three
// times as many requests as it can work on. The limit settles at 10 to 16 within
// 30 s; then the 99th percentile is at most 2.5 times the minimum and the
// goodput at least 90 % of what is possible, dips included.
func TestTenSlots(t *testing.T) {
	for name, tune := range map[string]func(*Limiter){
		"from nothing": func(*Limiter) {},
		// The baseline of one that begins in the middle of an overload is wrong.
		"from a wrong baseline": func(l *Limiter) { l.base, l.want, l.rising = 4e7, 40, false; l.set(40) },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			w := &world{l: New(Default()), slots: 10, service: always(10 * ms), every: poisson(r, 3000)}
			tune(w.l)
			w.run(120 * time.Second)
			n, p99 := w.between(30*time.Second, 120*time.Second, 0.99)
			_, least := w.between(0, 120*time.Second, 0)
			goodput := float64(n) / 90 / 1000
			s := w.l.Snapshot()
			t.Logf("limits %v; p99 %s, least %s, goodput %.1f %%, baseline %s, %d dips", w.limits, p99, least, goodput*100, s.Baseline, s.Dips)
			in := 0
			for _, l := range w.limits[30:] {
				if l > 16 {
					t.Errorf("the limit was %d", l)
				}
				if l >= 10 {
					in++
				}
			}
			if in < 85 { // in a dip it is lower
				t.Errorf("the limit was 10 or more only %d times of 90", in)
			}
			if p99 > 25*ms || goodput < 0.9 {
				t.Errorf("p99 %s, goodput %.1f %%", p99, goodput*100)
			}
		})
	}
}

// Times that vary by themselves cost some of what is possible, not much of it.
func TestVaryingTimes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	w := &world{l: New(Default()), slots: 40, service: func(time.Duration) time.Duration {
		return time.Duration((0.4 + 0.6*r.ExpFloat64()) * float64(10*ms))
	}, every: poisson(r, 12000)}
	w.run(90 * time.Second)
	n, p99 := w.between(30*time.Second, 90*time.Second, 0.99)
	t.Logf("limits %v; %d a second, p99 %s, %+v", w.limits, n/60, p99, w.l.Snapshot())
	if n/60 < 3400 { // of 4000
		t.Errorf("%d a second", n/60)
	}
	if p99 > 80*ms {
		t.Errorf("p99 %s", p99)
	}
}

// The destination gets slower, and later as quick as before: the limit finds its
// way both times.
func TestServiceTimeChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	w := &world{l: New(Default()), slots: 10, service: func(now time.Duration) time.Duration {
		if now > 60*time.Second && now < 120*time.Second {
			return 25 * ms
		}
		return 10 * ms
	}, every: poisson(r, 3000)}
	w.run(180 * time.Second)
	t.Logf("limits %v", w.limits)
	for _, c := range []struct{ from, to, want int }{{30, 60, 900}, {60, 70, 200}, {75, 120, 350}, {125, 180, 900}} {
		n, p99 := w.between(time.Duration(c.from)*time.Second, time.Duration(c.to)*time.Second, 0.99)
		if got := n / (c.to - c.from); got < c.want {
			t.Errorf("from %d to %d s: %d a second, want %d; p99 %s", c.from, c.to, got, c.want, p99)
		}
	}
}

// Where there is room the limit gives it, and does not go where nobody has been.
func TestRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	w := &world{l: New(Default()), slots: 400, service: always(20 * ms), every: poisson(r, 10_000)}
	w.run(20 * time.Second)
	n, _ := w.between(10*time.Second, 20*time.Second, 0.5)
	t.Logf("limits %v, refused %d of %d", w.limits, w.refused, w.refused+w.admitted)
	if n < 99_000 {
		t.Errorf("%d of about 100000 were let in", n)
	}
	if got := w.l.Limit(); got > 1000 || got < 200 {
		t.Errorf("the limit is %d, of about 200 active", got)
	}
	w.every = poisson(r, 500) // ten active
	before := w.l.Limit()
	w.run(60 * time.Second)
	if got := w.l.Limit(); got > before {
		t.Errorf("the limit went from %d to %d while nobody used it", before, got)
	}
}

// In observe mode nothing is refused or lowered, and the limit that would hold
// is found all the same.
func TestObserveMode(t *testing.T) {
	cfg := Default()
	cfg.Mode = guard.Observe
	r := rand.New(rand.NewPCG(5, 1))
	w := &world{l: New(cfg), slots: 10, service: always(10 * ms), every: poisson(r, 700)}
	w.slots = 10
	w.l.limit.Store(1 << 40)
	for s := range 60 {
		w.run(time.Duration(s) * time.Second)
		if s := w.l.Snapshot(); s.Dips > 0 || s.Learning {
			t.Fatal("it was lowered")
		}
	}
	if got := w.l.Limit(); got < 7 || got > 100 {
		t.Errorf("the limit would be %d", got)
	}
}
