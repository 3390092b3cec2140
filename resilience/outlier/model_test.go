package outlier

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// modelEndpoint is a slow reference of Endpoint: it keeps every result since
// the endpoint last changed its state and counts them anew for each question.
type modelEndpoint struct {
	state    State
	results  []modelResult
	all      []Outcome // every result ever, Age being its time
	until    time.Duration
	level    int
	steps    []time.Duration // healthy time is counted from here
	probe    string          // "", "out", "passed", "failed"
	probedAt time.Duration   // first Sweep that saw the probe, or -1
	capped   bool
}

type modelResult struct {
	at  time.Duration
	res Result
}

type model struct {
	cfg Config
	e   map[*Endpoint]*modelEndpoint
}

func (m *model) observe(e *modelEndpoint, now time.Duration, res Result, status uint16) {
	e.all = append(e.all, Outcome{res, status, now})
	switch {
	case e.state == Healthy && res != Ignored:
		e.results = append(e.results, modelResult{now, res})
	case e.state == Probation && e.probe == "out":
		e.probe = map[Result]string{Success: "passed", Failure: "failed", LocalFailure: "failed", Ignored: ""}[res]
	}
}

// window returns the results of the current tenth and the nine before it.
func (m *model) window(e *modelEndpoint, now time.Duration) (total, failed int) {
	tick := m.cfg.Window / 10
	for _, r := range e.results {
		if now/tick-r.at/tick < 10 {
			total++
			if r.res != Success {
				failed++
			}
		}
	}
	return total, failed
}

func (m *model) rows(e *modelEndpoint) (row, local int) {
	localOver := !m.cfg.SplitOrigins
	rowOver := false
	for _, r := range slices.Backward(e.results) {
		if r.res == Success {
			break
		}
		if r.res == LocalFailure && m.cfg.SplitOrigins {
			if !localOver {
				local++
			}
			continue
		}
		localOver = true
		if !rowOver {
			row++
		}
	}
	return row, local
}

func (m *model) cause(e *modelEndpoint, now time.Duration) (Cause, float64) {
	row, local := m.rows(e)
	total, failed := m.window(e, now)
	switch {
	case m.cfg.ConsecutiveFailures > 0 && row >= int(m.cfg.ConsecutiveFailures):
		return ConsecutiveFailures, 1
	case m.cfg.ConsecutiveLocalFailures > 0 && local >= int(m.cfg.ConsecutiveLocalFailures):
		return ConsecutiveLocalFailures, 1
	case m.cfg.FailurePercent > 0 && failed > 0 && total >= int(m.cfg.MinimumRequests) && 100*failed >= int(m.cfg.FailurePercent)*total:
		return FailurePercent, float64(failed) / float64(total)
	}
	return NoCause, 0
}

func (m *model) enter(e *modelEndpoint, to State, now time.Duration) {
	e.state, e.results, e.probe, e.probedAt, e.capped = to, nil, "", -1, false
	e.until = 0
	e.steps = nil
	if to == Healthy {
		e.steps = []time.Duration{now}
	}
}

func (m *model) eject(e *modelEndpoint, now time.Duration) {
	d := m.cfg.BaseEjection
	for range e.level {
		d *= 2
	}
	if e.level == 0 || d < 2*m.cfg.MaxEjection {
		e.level++
	}
	m.enter(e, Ejected, now)
	e.until = now + min(d, m.cfg.MaxEjection)
}

func (m *model) sweep(now time.Duration, all []*Endpoint) (events []string) {
	emit := func(i int, kind Kind, cause Cause) { events = append(events, fmt.Sprint(i, " ", kind, " ", cause)) }
	out := 0
	for i, key := range all {
		e := m.e[key]
		switch {
		case e.state == Healthy:
			for e.level > 0 && len(e.steps) > 0 && now-e.steps[0] >= m.cfg.Window {
				e.steps[0] += m.cfg.Window
				e.level--
			}
		case e.state == Ejected && now >= e.until:
			m.enter(e, Probation, now)
			emit(i, KindProbation, NoCause)
		case e.probe == "passed":
			m.enter(e, Healthy, now)
			emit(i, KindReadmitted, ProbePassed)
		case e.probe == "failed":
			m.eject(e, now)
			emit(i, KindEjected, ProbeFailed)
		case e.probe == "out" && e.probedAt < 0:
			e.probedAt = now
		case e.probe == "out" && now-e.probedAt >= m.cfg.Window:
			e.probe, e.probedAt = "", -1
		}
		if e.state != Healthy {
			out++
		}
	}
	spare := max(len(all)-int(m.cfg.KeepEndpoints), 0)
	for out > spare {
		first := -1
		for i, key := range all {
			if e := m.e[key]; e.state != Healthy && (first < 0 || e.until < m.e[all[first]].until) {
				first = i
			}
		}
		m.enter(m.e[all[first]], Healthy, now)
		emit(first, KindReadmitted, TooFewLeft)
		out--
	}
	limit := min(max(int(m.cfg.MaxEjectedPercent)*len(all)/100, 1), spare)
	for _, rule := range []Cause{ConsecutiveFailures, ConsecutiveLocalFailures, FailurePercent} {
		var found []int
		for i, key := range all {
			if c, _ := m.cause(m.e[key], now); c == rule && m.e[key].state == Healthy {
				found = append(found, i)
			}
		}
		slices.SortStableFunc(found, func(a, b int) int {
			_, x := m.cause(m.e[all[a]], now)
			_, y := m.cause(m.e[all[b]], now)
			return int(1e9*y) - int(1e9*x)
		})
		for _, i := range found {
			e := m.e[all[i]]
			switch {
			case out < limit:
				m.eject(e, now)
				out++
				emit(i, KindEjected, rule)
			case !e.capped:
				e.capped = true
				emit(i, KindCapReached, rule)
			}
		}
	}
	for _, key := range all {
		if c, _ := m.cause(m.e[key], now); c == NoCause {
			m.e[key].capped = false
		}
	}
	return events
}

// TestAgainstModel runs random traffic through a Detector and the reference
// and compares every event, every state and the evidence.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		cfg := Default()
		cfg.Jitter = 0
		cfg.Window = time.Duration(1+rnd.IntN(20)) * time.Second
		cfg.ConsecutiveFailures = uint32(rnd.IntN(6))
		cfg.SplitOrigins = rnd.IntN(2) == 0
		cfg.ConsecutiveLocalFailures = uint32(rnd.IntN(4))
		cfg.MinimumRequests = uint32(1 + rnd.IntN(20))
		cfg.FailurePercent = float64(rnd.IntN(101))
		cfg.MaxEjection = time.Duration(1+rnd.IntN(40)) * time.Second
		cfg.MaxEjectedPercent = float64(1 + rnd.IntN(100))
		cfg.KeepEndpoints = uint32(rnd.IntN(4))
		d := New(cfg)
		m := &model{cfg: cfg, e: map[*Endpoint]*modelEndpoint{}}
		known := make([]*Endpoint, 1+rnd.IntN(12))
		for i := range known {
			known[i] = &Endpoint{}
			m.e[known[i]] = &modelEndpoint{probedAt: -1}
		}
		present := known
		now := time.Duration(rnd.IntN(100)) * time.Second
		for step := range 600 {
			i := rnd.IntN(len(known))
			e := known[i]
			switch op := rnd.IntN(20); {
			case op < 12:
				// The first endpoints are bad ones.
				res := Success
				if rnd.IntN(len(known)+2) >= i {
					res = []Result{Success, Failure, LocalFailure, Ignored}[rnd.IntN(4)]
				}
				status := uint16(rnd.IntN(600))
				for range 1 + rnd.IntN(3) {
					d.Observe(e, now, res, status)
					m.observe(m.e[e], now, res, status)
				}
			case op < 14:
				got := e.TryProbe()
				want := m.e[e].state == Probation && m.e[e].probe == ""
				if got != want {
					t.Fatalf("seed %d step %d: TryProbe %t, want %t", seed, step, got, want)
				}
				if want {
					m.e[e].probe, m.e[e].probedAt = "out", -1
				}
			case op < 16:
				now += time.Duration(rnd.Int64N(int64(cfg.Window / 4)))
			case op == 16 && rnd.IntN(10) == 0:
				now += time.Duration(rnd.Int64N(int64(time.Hour)))
			case op == 17 && rnd.IntN(4) == 0:
				present = nil
				for _, e := range known {
					if rnd.IntN(5) > 0 {
						present = append(present, e)
					}
				}
			default:
				var got []string
				for _, ev := range d.Sweep(now, 0, present) {
					cause := ev.Cause
					if ev.Kind == KindProbation {
						cause = NoCause
					}
					got = append(got, fmt.Sprint(slices.Index(present, ev.Endpoint), " ", ev.Kind, " ", cause))
				}
				if want := m.sweep(now, present); !slices.Equal(got, want) {
					t.Fatalf("seed %d step %d: events %q, want %q\n%+v", seed, step, got, want, cfg)
				}
				compare(t, m, known, now)
			}
		}
	}
}

func compare(t *testing.T, m *model, known []*Endpoint, now time.Duration) {
	t.Helper()
	for i, key := range known {
		got, want := key.Evidence(now), m.e[key]
		if got.State != want.state || got.Until != want.until || int(got.Level) != want.level || got.Capped != want.capped {
			t.Fatalf("endpoint %d: %+v, want %+v", i, got, want)
		}
		if key.swept != nil {
			total, failed := m.window(want, now)
			if int(got.Requests) != total || int(got.Failures) != failed {
				t.Fatalf("endpoint %d: window %d/%d, want %d/%d", i, got.Failures, got.Requests, failed, total)
			}
		}
		row, local := m.rows(want)
		if int(got.Consecutive) != row || int(got.ConsecutiveLocal) != local {
			t.Fatalf("endpoint %d: in a row %d+%d, want %d+%d", i, got.Consecutive, got.ConsecutiveLocal, row, local)
		}
		last := want.all[max(len(want.all)-20, 0):]
		if len(got.Recent) != len(last) {
			t.Fatalf("endpoint %d: %d outcomes, want %d", i, len(got.Recent), len(last))
		}
		for k, o := range got.Recent {
			w := last[len(last)-1-k]
			w.Age = now.Truncate(time.Millisecond) - w.Age.Truncate(time.Millisecond)
			if o != w {
				t.Fatalf("endpoint %d: outcome %d is %v, want %v", i, k, o, w)
			}
		}
	}
}

// TestSuccessRateAgainstModel compares the rule with its textbook form.
func TestSuccessRateAgainstModel(t *testing.T) {
	ejected := 0
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		cfg := Config{
			Window: 10 * time.Second, MinimumRequests: 10, SuccessRateStdev: 0.5 + rnd.Float64()*2,
			SuccessRateMinimumEndpoints: uint32(2 + rnd.IntN(8)), MaxEjectedPercent: 100,
		}
		d := New(cfg)
		var all []*Endpoint
		rates := map[*Endpoint]float64{}
		for range 2 + rnd.IntN(15) {
			e := &Endpoint{}
			all = append(all, e)
			n, failed := rnd.IntN(60), 0
			for range n {
				res := Success
				if rnd.IntN(10) < len(all)%4 {
					res = Failure
					failed++
				}
				d.Observe(e, 0, res, 0)
			}
			if n >= 10 {
				rates[e] = 1 - float64(failed)/float64(n)
			}
		}
		want := map[*Endpoint]bool{}
		if len(rates) >= int(cfg.SuccessRateMinimumEndpoints) {
			sum, squares := 0.0, 0.0
			for _, r := range rates {
				sum += r
			}
			mean := sum / float64(len(rates))
			for _, r := range rates {
				squares += (r - mean) * (r - mean)
			}
			for e, r := range rates {
				// z*z*n against squares, without the root.
				below := mean - r
				want[e] = below > 1e-9 && below*below*float64(len(rates)) > cfg.SuccessRateStdev*cfg.SuccessRateStdev*squares
			}
		}
		d.Sweep(0, 0, all)
		for i, e := range all {
			if got := e.State() == Ejected; got != want[e] {
				t.Fatalf("seed %d endpoint %d: ejected %t, want %t", seed, i, got, want[e])
			}
			if want[e] {
				ejected++
			}
		}
	}
	if ejected < 100 {
		t.Errorf("only %d ejections; the test shows little", ejected)
	}
}
