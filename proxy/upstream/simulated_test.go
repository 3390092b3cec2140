package upstream

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// situation is what both a live cluster and a simulated client meet: endpoints
// that answer in a time of their own, and fail in a share and in a time.
type situation struct {
	algorithm balance.Algorithm
	latency   []time.Duration
	bad       int // the endpoint that fails
	share     float64
	from, to  time.Duration
}

func (s *situation) fate(now time.Duration, endpoint int, r *replay.Random) replay.Fate {
	f := replay.Fate{Latency: time.Duration((.5 + r.Fraction()) * float64(s.latency[endpoint])), Status: 200}
	if endpoint == s.bad && now >= s.from && now < s.to && r.Fraction() < s.share {
		f.Reason, f.Status = outcome.UpstreamError, 503
	}
	return f
}

// seen is what came of it.
type seen struct {
	sent                  []float64 // share of each endpoint
	failed                float64   // share of all
	ejections, readmitted int
}

const (
	simulatedFor  = 120 * time.Second
	simulatedStep = 2 * time.Millisecond
)

// TestAgreesWithReplay: a live cluster and the client of a replay, on the same
// virtual clock in the same situation, send as much to each endpoint, fail and
// eject as much, within the bounds of chance.
func TestAgreesWithReplay(t *testing.T) {
	ms := time.Millisecond
	even := []time.Duration{10 * ms, 10 * ms, 10 * ms, 10 * ms}
	for name, s := range map[string]situation{
		"one slow, peak EWMA":     {balance.P2CEWMA, []time.Duration{10 * ms, 10 * ms, 10 * ms, 60 * ms}, -1, 0, 0, 0},
		"one slow, least request": {balance.LeastRequest, []time.Duration{10 * ms, 10 * ms, 10 * ms, 60 * ms}, -1, 0, 0, 0},
		"one fails, round robin":  {balance.WeightedRoundRobin, even, 1, .5, 30 * time.Second, 60 * time.Second},
		"one fails, peak EWMA":    {balance.P2CEWMA, even, 1, 1, 30 * time.Second, 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			live, simulated := s.live(t), s.simulated()
			for i := range live.sent {
				if d := math.Abs(live.sent[i] - simulated.sent[i]); d > .03 {
					t.Errorf("endpoint %d gets %.3f live and %.3f simulated", i, live.sent[i], simulated.sent[i])
				}
			}
			if d := math.Abs(live.failed - simulated.failed); d > .01 {
				t.Errorf("%.4f fail live and %.4f simulated", live.failed, simulated.failed)
			}
			if d := live.ejections - simulated.ejections; max(d, -d) > 3 || (live.ejections == 0) != (simulated.ejections == 0) {
				t.Errorf("%d ejections live and %d simulated", live.ejections, simulated.ejections)
			}
			if live.readmitted == 0 != (simulated.readmitted == 0) {
				t.Errorf("%d readmissions live and %d simulated", live.readmitted, simulated.readmitted)
			}
		})
	}
}

func (s *situation) outlier() *outlier.Config {
	cfg := outlier.Default()
	return &cfg
}

// attemptEnd is an attempt of the live cluster under way.
type attemptEnd struct {
	at    time.Duration
	ep    *Endpoint
	began time.Duration
	fate  replay.Fate
}

// live runs a cluster of a proxy on times that are passed to it.
func (s *situation) live(t *testing.T) seen {
	b := newBed(t)
	c := b.r.Acquire(spec(func(sp *Spec) {
		sp.Policy.Balance.Algorithm, sp.Policy.Outlier = s.algorithm, s.outlier()
	}), telemetry.Outbound)
	list := numbered(len(s.latency))
	b.r.SetEndpoints("api", list)
	defer b.r.Release(c)
	number := map[*Endpoint]int{}
	for i := range list {
		for _, e := range c.list() {
			if e.AddrPort() == list[i].Address {
				number[e] = i
			}
		}
	}
	random := replay.NewRandom(1)
	var under []attemptEnd
	var out seen
	sent, failed, total := make([]int, len(list)), 0, 0
	finish := func(now time.Duration) {
		for len(under) > 0 && under[0].at <= now {
			a := under[0]
			under = under[1:]
			c.Finish(a.ep, a.at, a.at-a.began, a.fate.Reason, int(a.fate.Status))
			if a.fate.Reason != outcome.OK {
				failed++
			}
		}
	}
	for now := time.Duration(0); now < simulatedFor; now += simulatedStep {
		finish(now)
		if now%TickInterval == 0 {
			c.sweep(now)
		}
		ep := c.Pick(now, &Wish{}, &Tried{})
		if ep == nil {
			t.Fatal("no endpoint")
		}
		c.Begin(ep, now)
		n := number[ep]
		sent[n]++
		total++
		f := s.fate(now, n, &random)
		a := attemptEnd{at: now + f.Latency, ep: ep, began: now, fate: f}
		i, _ := slices.BinarySearchFunc(under, a, func(x, y attemptEnd) int { return cmp.Compare(x.at, y.at) })
		under = slices.Insert(under, i, a)
	}
	finish(simulatedFor + time.Hour)
	for _, cause := range outlier.EjectionCauses() {
		out.ejections += int(c.detector.Load().Ejections(cause))
	}
	for _, e := range c.list() {
		if e.Outlier.State() == outlier.Healthy && out.ejections > 0 && number[e] == s.bad {
			out.readmitted++
		}
	}
	out.failed = float64(failed) / float64(total)
	for _, k := range sent {
		out.sent = append(out.sent, float64(k)/float64(total))
	}
	return out
}

// meets is the simulated client's world.
type meets struct {
	*situation
	random replay.Random
	sent   []int
}

func (m *meets) Begin(now time.Duration, a replay.Attempt) (replay.Fate, bool) {
	m.sent[a.Endpoint]++
	return m.fate(now, a.Endpoint, &m.random), true
}

func (m *meets) Abandon(time.Duration, replay.Attempt) {}

// arrivals offers a request at every step.
type arrivals struct {
	e  *replay.Engine
	id replay.ActorID
	c  *replay.Client
}

func (a *arrivals) Fire(now time.Duration, _ uint64) {
	if now < simulatedFor {
		a.c.Offer(replay.Request{})
		a.e.At(now+simulatedStep, a.id, 0)
	}
}

func (s *situation) simulated() seen {
	e := replay.New(2)
	m := &meets{situation: s, random: replay.NewRandom(3), sent: make([]int, len(s.latency))}
	p := replay.Policy{Outlier: s.outlier(), Balance: balance.Default()}
	p.Balance.Algorithm = s.algorithm
	c := replay.NewClient(e, p, m, nil)
	list := make([]replay.Endpoint, len(s.latency))
	for i, sp := range numbered(len(list)) {
		list[i] = replay.Endpoint{Name: sp.Address.String(), Weight: 1, Healthy: true}
	}
	c.SetEndpoints(list)
	a := &arrivals{e: e, c: c}
	a.id = e.Add(a)
	e.At(0, a.id, 0)
	e.Run(simulatedFor + time.Hour)
	n := c.Stats.Total()
	out := seen{failed: float64(n.Failed) / float64(n.Offered), ejections: int(n.Ejections), readmitted: int(n.Readmissions)}
	for _, k := range m.sent {
		out.sent = append(out.sent, float64(k)/float64(n.Sent))
	}
	return out
}
