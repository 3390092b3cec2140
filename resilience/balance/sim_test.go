package balance

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"
	"time"
)

// simulation is a discrete-event simulation of one proxy in front of a
// cluster: requests arrive as a Poisson process and are picked by a Picker.
type simulation struct {
	rnd     *rand.Rand
	picker  *Picker
	now     time.Duration
	pending ends
}

type end struct {
	at     time.Duration
	member int
	begun  time.Duration
}

type ends []end

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].at < e[j].at }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(x any)        { *e = append(*e, x.(end)) }
func (e *ends) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

// run sends n requests with the mean time gap between them. takes says when a
// request to a member that begins now will be through. It returns how long
// each took and where it went.
func (s *simulation) run(n int, gap time.Duration, takes func(member int) (through time.Duration)) (took []time.Duration, went []int) {
	for range n {
		s.now += time.Duration(s.rnd.ExpFloat64() * float64(gap))
		for len(s.pending) > 0 && s.pending[0].at <= s.now {
			e := heap.Pop(&s.pending).(end)
			s.picker.Member(e.member).Load.End(e.at, e.at-e.begun, false)
		}
		i := s.picker.Pick(s.now, s.rnd.Uint64(), nil)
		s.picker.Member(i).Load.Begin(s.now)
		at := takes(i)
		heap.Push(&s.pending, end{at: at, member: i, begun: s.now})
		took = append(took, at-s.now)
		went = append(went, i)
	}
	return took, went
}

// queues are first-come first-served servers with exponential service times.
func (s *simulation) queues(n int, mean time.Duration) func(int) time.Duration {
	free := make([]time.Duration, n)
	return func(i int) time.Duration {
		free[i] = max(free[i], s.now) + time.Duration(s.rnd.ExpFloat64()*float64(mean))
		return free[i]
	}
}

// TestSupermarketModel reproduces the known mean time in system at load 0.9,
// in units of the service time: 1/(1-0.9) = 10 at random, and with the shorter
// of d queues the sum over i >= 1 of 0.9^((d^i-d)/(d-1)), which is 2.61 for two
// and 2.03 for three (Mitzenmacher 1996).
func TestSupermarketModel(t *testing.T) {
	oneGoroutine(t)
	const servers, load, service = 400, 0.9, time.Second
	theory := func(d float64) (sum float64) {
		for i := 1; i < 12; i++ {
			sum += math.Pow(load, (math.Pow(d, float64(i))-d)/(d-1))
		}
		return sum
	}
	for _, c := range []struct {
		algorithm       Algorithm
		choices         int
		want, tolerance float64
	}{
		{Random, 1, 1 / (1 - load), 0.8},
		{LeastRequest, 2, theory(2), 0.1},
		{LeastRequest, 3, theory(3), 0.1},
	} {
		t.Run(fmt.Sprintf("%v/%d", c.algorithm, c.choices), func(t *testing.T) {
			cfg := Default()
			cfg.Algorithm, cfg.Choices, cfg.SlowStart = c.algorithm, c.choices, 0
			s := &simulation{rnd: rand.New(rand.NewPCG(1, 2)), picker: NewPicker(cfg, fresh(servers))}
			gap := time.Duration(math.Round(float64(service) / (servers * load)))
			queues := s.queues(servers, service)
			s.run(150_000, gap, queues) // until queues have their length
			took, _ := s.run(400_000, gap, queues)
			sum := time.Duration(0)
			for _, d := range took {
				sum += d
			}
			mean := (sum / time.Duration(len(took))).Seconds()
			t.Logf("mean %.3f service times, theory %.3f", mean, c.want)
			if math.Abs(mean-c.want) > c.tolerance {
				t.Errorf("mean %.3f service times, want %.3f within %.2f", mean, c.want, c.tolerance)
			}
		})
	}
}

// TestOneSlowOfEleven is the comparison that Finagle's peak-EWMA is known for:
// eleven endpoints, one of which takes two seconds instead of some twenty
// milliseconds, at a thousand requests a second.
func TestOneSlowOfEleven(t *testing.T) {
	oneGoroutine(t)
	const n, slow, total = 11, 4, 60_000
	share := map[Algorithm]float64{}
	p99 := map[Algorithm]time.Duration{}
	for a := P2CEWMA; a <= LeastTime; a++ {
		cfg := Default()
		cfg.Algorithm, cfg.SlowStart = a, 0
		s := &simulation{rnd: rand.New(rand.NewPCG(3, 4)), picker: NewPicker(cfg, fresh(n))}
		took, went := s.run(total, time.Millisecond, func(i int) time.Duration {
			if i == slow {
				return s.now + 2*time.Second
			}
			return s.now + 10*time.Millisecond + time.Duration(s.rnd.ExpFloat64()*float64(10*time.Millisecond))
		})
		for _, i := range went {
			if i == slow {
				share[a] += 1.0 / total
			}
		}
		sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
		p99[a] = took[total*99/100]
		t.Logf("%-21s slow endpoint %.3f%%, p99 %v", a, 100*share[a], p99[a].Round(time.Millisecond))
	}
	if x := share[WeightedRoundRobin]; math.Abs(x-1.0/n) > 1e-4 {
		t.Errorf("round robin sent %.4f to the slow one, want 1/11", x)
	}
	if x := share[LeastRequest]; x > 0.02 || x < 0.002 {
		t.Errorf("least request sent %.4f to the slow one, want between 0.002 and 0.02", x)
	}
	if x := share[P2CEWMA]; x > 0.0005 || x == 0 {
		t.Errorf("peak-EWMA sent %.5f to the slow one, want some but below 0.0005", x)
	}
	if x := share[LeastTime]; x > 0.005 || x == 0 {
		t.Errorf("least time sent %.5f to the slow one, want some but below 0.005", x)
	}
	if p99[P2CEWMA] > 100*time.Millisecond || p99[WeightedRoundRobin] < time.Second {
		t.Errorf("p99 of peak-EWMA %v and round robin %v, want below 100ms and above 1s", p99[P2CEWMA], p99[WeightedRoundRobin])
	}
}

// TestRecoveredEndpointComesBack: a slow endpoint that is fast again has its
// fair share after some decay times, though hardly anything was sent to it.
func TestRecoveredEndpointComesBack(t *testing.T) {
	oneGoroutine(t)
	const n, gap = 3, 5 * time.Millisecond
	cfg := Default()
	cfg.SlowStart = 0
	s := &simulation{rnd: rand.New(rand.NewPCG(5, 6)), picker: NewPicker(cfg, fresh(n))}
	bad := true
	takes := func(i int) time.Duration {
		if i == 0 && bad {
			return s.now + time.Second
		}
		return s.now + 15*time.Millisecond + time.Duration(s.rnd.ExpFloat64()*float64(5*time.Millisecond))
	}
	count := func(seconds int) (share float64) {
		_, went := s.run(seconds*200, gap, takes)
		for _, i := range went {
			if i == 0 {
				share += 1 / float64(len(went))
			}
		}
		return share
	}
	if x := count(60); x > 0.01 {
		t.Errorf("%.4f of the traffic to an endpoint that takes a second", x)
	}
	bad = false
	count(60)
	if x := count(60); x < 0.2 || x > 0.45 {
		t.Errorf("%.4f of the traffic to one of three equal endpoints", x)
	}
}

// TestFailingEndpointKeepsGivingEvidence: an endpoint that fails at once gets
// little traffic, but enough for outlier detection to see what it does.
func TestFailingEndpointKeepsGivingEvidence(t *testing.T) {
	cfg := Default()
	p := NewPicker(cfg, fresh(3))
	rnd := rand.New(rand.NewPCG(7, 8))
	failures, total := 0, 0
	for now := time.Duration(0); now < 20*time.Second; now += 5 * time.Millisecond {
		i := p.Pick(now, rnd.Uint64(), nil)
		l := p.Member(i).Load
		l.Begin(now)
		if i == 1 {
			l.End(now, 100*time.Microsecond, true)
			failures++
		} else {
			l.End(now, time.Millisecond, false)
		}
		total++
	}
	t.Logf("%d of %d requests failed", failures, total)
	if failures < 15 || failures > 40 {
		t.Errorf("%d of %d requests failed; want about one a second over 20s", failures, total)
	}
}

// fresh returns n members of weight 1 with loads of their own.
func fresh(n int) []Member { return weighted(make([]uint32, n)...) }

// weighted returns members of these weights, long in service.
func weighted(weights ...uint32) []Member {
	members := make([]Member, len(weights))
	for i := range members {
		members[i] = Member{Load: new(Load), Weight: weights[i], Since: -1, Key: mix(uint64(i + 1)), Index: i}
	}
	return members
}
