package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// model is the queue in the slowest way that is plainly right: one list in the
// order of arrival, and for each priority the order of turns.
type model struct {
	cfg      Config
	waiting  []*Waiter
	turns    [Priorities][]uint64 // callers, the next first
	credit   [Priorities]float64
	standing bool
	ends     time.Duration
	waits    []time.Duration // of the oldest, as seen in the interval
	shed     bool
}

func (m *model) reserve() int {
	if m.cfg.LeastSharePercent == 0 {
		return 0
	}
	return max(1, int(float64(m.cfg.Size)*m.cfg.LeastSharePercent/100))
}

func (m *model) of(rank int, caller *uint64) (list []*Waiter) {
	for _, w := range m.waiting {
		if w.Priority.Rank() == rank && (caller == nil || w.Caller == *caller) {
			list = append(list, w)
		}
	}
	return list
}

func (m *model) newestFirst() bool {
	return m.cfg.Order == LIFO || m.cfg.Order == Adaptive && m.standing
}

func (m *model) observe(now time.Duration) {
	wait := time.Duration(0)
	if len(m.waiting) > 0 {
		wait = now - m.waiting[0].Since()
	}
	m.waits = append(m.waits, wait)
	if now < m.ends || m.cfg.Target == 0 {
		return
	}
	m.standing = slices.Min(m.waits) > m.cfg.Target || m.shed && now < m.ends+m.cfg.Interval
	m.shed, m.waits, m.ends = false, []time.Duration{wait}, now+m.cfg.Interval
}

func (m *model) remove(w *Waiter) {
	m.waiting = slices.DeleteFunc(m.waiting, func(x *Waiter) bool { return x == w })
	r := w.Priority.Rank()
	if len(m.of(r, &w.Caller)) == 0 {
		m.turns[r] = slices.DeleteFunc(m.turns[r], func(c uint64) bool { return c == w.Caller })
	}
	if len(m.waiting) == 0 {
		m.waits = append(m.waits, 0)
	}
}

// most is the caller of a priority with the most waiters.
func (m *model) most(rank int) uint64 {
	best, n := uint64(0), -1
	for _, c := range m.turns[rank] {
		if k := len(m.of(rank, &c)); k > n {
			best, n = c, k
		}
	}
	return best
}

func (m *model) last(rank int, caller uint64) *Waiter {
	list := m.of(rank, &caller)
	if m.newestFirst() {
		return list[0]
	}
	return list[len(list)-1]
}

func (m *model) victim(w *Waiter) *Waiter {
	own := w.Priority.Rank()
	for r := Priorities - 1; r >= 0; r-- {
		if r != own && len(m.of(r, nil)) > m.reserve() && (r > own || len(m.of(own, nil)) < m.reserve()) {
			return m.last(r, m.most(r))
		}
	}
	mine := m.of(own, &w.Caller)
	if len(m.turns[own]) == 0 {
		return nil
	}
	caller := m.most(own)
	if len(m.of(own, &caller)) > len(mine)+1 {
		return m.last(own, caller)
	}
	if m.newestFirst() {
		if len(mine) > 0 {
			return mine[0]
		}
		if m.waiting[0].Priority.Rank() == own {
			return m.waiting[0]
		}
	}
	return nil
}

func (m *model) push(now time.Duration, w *Waiter) (bool, *Waiter) {
	m.observe(now)
	var v *Waiter
	if len(m.waiting) >= m.cfg.Size {
		if v = m.victim(w); v == nil {
			return false, nil
		}
		m.remove(v)
	}
	r := w.Priority.Rank()
	if len(m.of(r, &w.Caller)) == 0 {
		m.turns[r] = append(m.turns[r], w.Caller)
	}
	m.waiting = append(m.waiting, w)
	return true, v
}

func (m *model) pop(now time.Duration) *Waiter {
	m.observe(now)
	top, owed := -1, -1
	for r := range Priorities {
		switch {
		case len(m.of(r, nil)) == 0:
			m.credit[r] = 0
		case top < 0:
			top, m.credit[r] = r, 0
		default:
			m.credit[r] = min(2, m.credit[r]+m.cfg.LeastSharePercent/100)
			if owed < 0 && m.credit[r] >= 1 {
				owed = r
			}
		}
	}
	if top < 0 {
		return nil
	}
	if owed >= 0 {
		m.credit[owed]--
		top = owed
	}
	caller := m.turns[top][0]
	m.turns[top] = append(m.turns[top][1:], caller)
	list := m.of(top, &caller)
	w := list[0]
	if m.newestFirst() {
		w = list[len(list)-1]
	}
	m.remove(w)
	return w
}

func (m *model) shedOne(now time.Duration) *Waiter {
	m.observe(now)
	if len(m.waiting) == 0 {
		return nil
	}
	w := m.waiting[0]
	switch waited := now - w.Since(); {
	case waited >= m.cfg.MaxWait:
	case m.standing && waited > m.cfg.Target:
		m.shed = true
	default:
		return nil
	}
	m.remove(w)
	return w
}

// compare runs the operations that the bytes stand for on both.
func compare(t *testing.T, ops []byte) {
	if len(ops) < 4 {
		return
	}
	cfg := Config{
		Size: 1 + int(ops[0])%12, Order: Order(ops[1] % 3), MaxWait: time.Duration(1+ops[2]%100) * time.Millisecond,
		Interval: 20 * time.Millisecond, Target: time.Duration(ops[3]%8) * time.Millisecond, LeastSharePercent: float64(ops[3]>>3%4) * 8,
	}
	q, m := New(cfg), &model{cfg: cfg}
	now := time.Duration(0)
	names := map[*Waiter]string{nil: "nobody"}
	var in []*Waiter
	drop := func(w *Waiter) {
		in = slices.DeleteFunc(in, func(x *Waiter) bool { return x == w })
	}
	for i, op := range ops[4:] {
		now += time.Duration(op>>5) * 700 * time.Microsecond
		what := ""
		switch op & 7 {
		case 0, 1, 2, 3:
			w := &Waiter{Priority: Ranked(int(op>>3) & 3), Caller: uint64(op&3) + uint64(op>>6)}
			names[w] = fmt.Sprintf("%d", i)
			ok, out := q.Push(now, w)
			wantOK, wantOut := m.push(now, w)
			if ok {
				in = append(in, w)
			} else if w.Result() != Full {
				t.Fatalf("%d: refused with %s", i, w.Result())
			}
			if ok != wantOK || out != wantOut {
				t.Fatalf("%d: push %v, out %s; the model says %v, %s", i, ok, names[out], wantOK, names[wantOut])
			}
			if drop(out); out != nil && out.Result() != Displaced {
				t.Fatalf("%d: displaced with %s", i, out.Result())
			}
		case 4, 5:
			got, want := q.Pop(now), m.pop(now)
			if drop(got); got != want {
				t.Fatalf("%d: pop %s, the model says %s", i, names[got], names[want])
			}
			what = "pop"
		case 6:
			got, want := q.Shed(now), m.shedOne(now)
			if drop(got); got != want {
				t.Fatalf("%d: shed %s, the model says %s", i, names[got], names[want])
			}
		case 7:
			if len(in) == 0 {
				continue
			}
			w := in[int(op>>3)%len(in)]
			if !q.Remove(w, Gone) || q.Remove(w, Gone) || w.Result() != Gone {
				t.Fatalf("%d: remove", i)
			}
			m.remove(w)
			drop(w)
		}
		callers := 0
		for r := range Priorities {
			callers += len(m.turns[r])
			if q.LenOf(Ranked(r)) != len(m.of(r, nil)) {
				t.Fatalf("%d %s: %d of %s wait, the model has %d", i, what, q.LenOf(Ranked(r)), Ranked(r), len(m.of(r, nil)))
			}
		}
		if q.Len() != len(m.waiting) || q.Len() > cfg.Size || q.Standing() != m.standing || q.Callers() != callers {
			t.Fatalf("%d %s: %d wait, standing %v, %d callers; the model has %d, %v, %d", i, what, q.Len(), q.Standing(), q.Callers(), len(m.waiting), m.standing, callers)
		}
	}
	for q.Len() > 0 {
		if got, want := q.Pop(now), m.pop(now); got != want {
			t.Fatalf("at the end: pop %s, the model says %s", names[got], names[want])
		}
	}
}

func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		ops := make([]byte, 4+r.IntN(200))
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		compare(t, ops)
	}
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte{3, 0, 50, 2, 0, 1, 2, 8, 16, 24, 4, 4, 6, 7, 255, 226, 4, 4})
	f.Add([]byte{0, 1, 1, 9, 64, 65, 66, 4, 100, 200, 230, 6, 6, 6})
	f.Add([]byte{11, 2, 99, 31, 0, 33, 65, 97, 129, 161, 193, 225, 228, 196, 4, 7, 15})
	f.Fuzz(compare)
}
