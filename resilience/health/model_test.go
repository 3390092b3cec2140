package health

import (
	"math/rand/v2"
	"testing"
	"time"
)

// model remembers every result and works out the answer from the first each
// time it is asked.
type model struct {
	cfg     *Config
	results []Cause
}

// state replays the results. down are those since the endpoint became
// unhealthy, against those at the end that speak against the state.
func (m *model) state() (s State, against, down []Cause) {
	for i, r := range m.results {
		if r == Local {
			continue
		}
		var row []Cause // the last results that agree with r, as far as the last change
		for _, q := range m.results[:i+1] {
			switch {
			case q == Local:
			case (q == Passed) != (r == Passed):
				row = nil
			default:
				row = append(row, q)
			}
		}
		if len(row) > len(against)+1 {
			row = row[len(row)-len(against)-1:]
		}
		to, need := Unhealthy, int(m.cfg.UnhealthyThreshold)
		if r == Passed {
			to, need = Healthy, int(m.cfg.HealthyThreshold)
		}
		if s == Unhealthy {
			if r == Passed {
				down = nil
			} else {
				down = append(down, r)
			}
		}
		switch {
		case s == to:
			against = nil
		case s == Unknown || r == NotServing || len(row) >= need:
			s, against, down = to, nil, nil
		default:
			against = append(against, r)
		}
	}
	return s, against, down
}

func (m *model) pause() time.Duration {
	s, against, down := m.state()
	if s == Unknown || len(against) > 0 {
		return m.cfg.FastInterval
	}
	if s == Healthy {
		return m.cfg.Interval
	}
	d := m.cfg.FastInterval
	for range down {
		d = min(2*d, m.cfg.Interval)
	}
	return d
}

// TestModel: on random results the machine and the model agree on the state,
// on the rows and on the next check.
func TestModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var changes uint64
	for round := range 150 {
		cfg := Default()
		cfg.HealthyThreshold, cfg.UnhealthyThreshold = 1+rnd.Uint32N(4), 1+rnd.Uint32N(4)
		cfg.FastInterval = time.Duration(100+rnd.IntN(900)) * time.Millisecond
		cfg.Interval = cfg.FastInterval + time.Duration(rnd.IntN(10_000))*time.Millisecond
		cfg.Jitter = float64(rnd.IntN(3)) / 2
		bad := rnd.IntN(100)
		var e Endpoint
		e.Start(&cfg, 0, rnd.Uint64())
		m := model{cfg: &cfg}
		now := e.Due()
		for i := range 80 {
			if rnd.IntN(20) == 0 {
				bad = rnd.IntN(101)
			}
			res := Result{}
			switch {
			case rnd.IntN(15) == 0:
				res.Cause = Local
			case rnd.IntN(100) < bad:
				res.Cause = Cause(1 + rnd.IntN(int(Local)-1))
			}
			now += time.Duration(rnd.IntN(1000)) * time.Millisecond
			before := e.State()
			changed := e.Observe(&cfg, now, rnd.Uint64(), res)
			m.results = append(m.results, res.Cause)
			want, against, _ := m.state()
			if e.State() != want || changed != (before != want) || int(e.Snapshot().Against) != len(against) {
				t.Fatalf("round %d, result %d (%s): %s, changed %t, %d against; want %s, %d against\n%v", round, i, res.Cause, e.State(), changed, e.Snapshot().Against, want, len(against), m.results)
			}
			pause := m.pause()
			if d := e.Due() - now; d < pause || d > pause+time.Duration(cfg.Jitter*float64(pause)) {
				t.Fatalf("round %d, result %d: next check after %s, want %s and at most %g of it more", round, i, d, pause, cfg.Jitter)
			}
			now = e.Due()
		}
		changes += e.Snapshot().Changes
	}
	if changes < 500 {
		t.Errorf("only %d changes: the results are too tame to prove much", changes)
	}
}
