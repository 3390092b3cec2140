package breaker

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// model is the breaker written for clearness: it keeps every result.
type model struct {
	cfg         Config
	state       State
	phase       int
	openedAt    time.Duration
	results     []modelResult
	consecutive int
	trials      map[int]modelTrial // under way
	succeeded   int                // trials, in this phase
	next        int
	opened      uint64
	refused     uint64
}

type modelResult struct {
	at     time.Duration
	failed bool
}

type modelTrial struct {
	phase int
	began time.Duration
}

// modelTicket is a request that passed.
type modelTicket struct {
	phase int
	trial int // -1: none
	free  bool
}

func (m *model) enter(s State, now time.Duration) {
	m.state = s
	m.phase++
	m.results, m.consecutive, m.succeeded = nil, 0, 0
	m.trials = map[int]modelTrial{}
	if s == Open {
		m.openedAt = now
		m.opened++
	}
}

func (m *model) look(now time.Duration) {
	m.openedAt = min(m.openedAt, now)
	for id, tr := range m.trials {
		tr.began = min(tr.began, now)
		m.trials[id] = tr
	}
	if m.state == Open && now >= m.openedAt+m.cfg.OpenFor {
		m.enter(HalfOpen, now)
	}
}

func (m *model) allow(now time.Duration, d guard.Draw) (modelTicket, bool) {
	m.look(now)
	if m.state == Closed {
		return modelTicket{phase: m.phase, trial: -1}, true
	}
	if m.state == HalfOpen {
		full := func() bool { return len(m.trials)+m.succeeded >= int(m.cfg.HalfOpenRequests) }
		if full() {
			for id, tr := range m.trials {
				if now-tr.began >= m.cfg.OpenFor {
					delete(m.trials, id)
				}
			}
		}
		if !full() {
			m.next++
			m.trials[m.next] = modelTrial{m.phase, now}
			return modelTicket{phase: m.phase, trial: m.next}, true
		}
	}
	m.refused++
	return modelTicket{free: true}, !m.cfg.Mode.Acts(d)
}

func (m *model) done(t modelTicket, now time.Duration, res Result) {
	if t.free {
		return
	}
	m.look(now)
	if t.phase != m.phase {
		return
	}
	if t.trial >= 0 {
		if _, ok := m.trials[t.trial]; !ok {
			return
		}
		delete(m.trials, t.trial)
		switch res {
		case Failure:
			m.enter(Open, now)
		case Success:
			m.succeeded++
			if m.succeeded >= int(m.cfg.HalfOpenRequests) {
				m.enter(Closed, now)
			}
		}
		return
	}
	switch res {
	case Success:
		m.results = append(m.results, modelResult{now, false})
		m.consecutive = 0
	case Failure:
		m.results = append(m.results, modelResult{now, true})
		m.consecutive++
		total, failed := m.window(now)
		if m.cfg.ConsecutiveFailures > 0 && m.consecutive >= int(m.cfg.ConsecutiveFailures) ||
			m.cfg.FailurePercent > 0 && total >= int(m.cfg.MinimumRequests) && 100*float64(failed)/float64(total) >= m.cfg.FailurePercent {
			m.enter(Open, now)
		}
	}
}

// window counts the results of the present tenth of the window and of the nine
// before it.
func (m *model) window(now time.Duration) (total, failed int) {
	tenth := m.cfg.Window / 10
	for _, r := range m.results {
		if r.at/tenth > now/tenth-10 {
			total++
			if r.failed {
				failed++
			}
		}
	}
	return total, failed
}

// TestAgainstModel runs random traffic through the breaker and the model and
// wants the same answer to every question.
func TestAgainstModel(t *testing.T) {
	opened, refused := uint64(0), uint64(0)
	for seed := range uint64(150) {
		t.Run("", func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 71))
			cfg := Config{
				Mode:             []guard.Mode{guard.Enforce, guard.Observe, guard.Percent(40)}[rnd.IntN(3)],
				Window:           time.Duration(1+rnd.IntN(5)) * time.Second,
				MinimumRequests:  uint32(1 + rnd.IntN(20)),
				FailurePercent:   []float64{0, 20, 50, 100}[rnd.IntN(4)],
				OpenFor:          time.Duration(1+rnd.IntN(3000)) * time.Millisecond,
				HalfOpenRequests: uint32(1 + rnd.IntN(4)),
			}
			if cfg.FailurePercent == 0 || rnd.IntN(2) == 0 {
				cfg.ConsecutiveFailures = uint32(1 + rnd.IntN(6))
			}
			w := newBench(cfg)
			m := &model{cfg: cfg}
			type both struct {
				real  Ticket
				model modelTicket
			}
			var under []both // way
			bad := 0.0
			for step := range 800 {
				if step%100 == 0 {
					bad = rnd.Float64() * rnd.Float64()
				}
				now := w.now()
				switch rnd.IntN(5) {
				case 0, 1:
					draw := guard.DrawOf(rnd.Uint64())
					ticket, ok := w.b.Allow(now, draw)
					mt, want := m.allow(now, draw)
					if ok != want {
						t.Fatalf("seed %d step %d %v: Allow %v, model %v (%v)", seed, step, now, ok, want, m.state)
					}
					if ok {
						under = append(under, both{ticket, mt})
					}
				case 2, 3:
					if len(under) == 0 {
						continue
					}
					i := rnd.IntN(len(under))
					res := Success
					if x := rnd.Float64(); x < bad {
						res = Failure
					} else if x > 0.9 {
						res = Ignored
					}
					w.b.Done(under[i].real, now, res)
					m.done(under[i].model, now, res)
					under = append(under[:i], under[i+1:]...)
				default:
					w.clock += time.Duration(rnd.ExpFloat64() * float64(200*time.Millisecond))
					if m.state != Closed && rnd.IntN(40) == 0 { // back; a closed breaker's window is not modelled for that
						w.clock -= time.Duration(rnd.ExpFloat64() * float64(time.Second))
					}
					continue
				}
				m.look(now)
				s := w.b.Snapshot(now)
				total, failed := m.window(now)
				if m.state != Closed {
					total, failed = 0, 0
				}
				if s.State != m.state || s.Opened != m.opened || s.Rejected+s.WouldHaveRejected != m.refused ||
					s.Counts.Failures != uint64(failed) || s.Counts.Successes != uint64(total-failed) || s.Trials != len(m.trials) {
					t.Fatalf("seed %d step %d %v: %+v\nmodel %v opened %d refused %d, %d of %d failed, %d trials",
						seed, step, now, s, m.state, m.opened, m.refused, failed, total, len(m.trials))
				}
			}
			opened += m.opened
			refused += m.refused
		})
	}
	if opened < 500 || refused < 5000 {
		t.Errorf("the traffic opened the breaker %d times and was refused %d times: too tame a test", opened, refused)
	}
}
