package orca

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

func TestWeight(t *testing.T) {
	tests := []struct {
		r       Report
		penalty float64
		want    float64
	}{
		{Report{CPU: 0.5, RPS: 100}, 1, 200},
		{Report{CPU: 0.5, Application: 0.25, RPS: 100}, 1, 400},
		{Report{CPU: 0.5, RPS: 100, EPS: 50}, 1, 100},
		{Report{CPU: 0.5, RPS: 100, EPS: 50}, 3, 50},
		{Report{CPU: 0.5, RPS: 100, EPS: 50}, 0, 200},
		{Report{CPU: 0.5}, 1, 0},
		{Report{RPS: 100}, 1, 0},
		{Report{RPS: 100, EPS: 100}, 1, 0},
		{Report{CPU: math.SmallestNonzeroFloat64, RPS: 1}, 1, 0},
		{Report{CPU: 1, RPS: math.MaxFloat64}, 1, 0},
		{Report{CPU: 1, RPS: math.SmallestNonzeroFloat64, EPS: math.MaxFloat64}, 1, 0},
	}
	for _, c := range tests {
		if got := c.r.Weight(c.penalty); math.Abs(got-c.want) > 1e-9*c.want {
			t.Errorf("%+v, penalty %v: %v, want %v", c.r, c.penalty, got, c.want)
		}
	}
}

// model is an endpoint as gRFC A58 describes it, with times as it has them.
type model struct {
	weight              float64
	updated, nonEmpty   time.Duration
	reported, beginning bool
}

func (m *model) report(now time.Duration, r Report, penalty float64) {
	u := r.Application
	if u == 0 {
		u = r.CPU
	}
	if u == 0 || r.RPS == 0 {
		return
	}
	m.weight = r.RPS / (u + r.EPS/r.RPS*penalty)
	if !m.beginning {
		m.beginning, m.nonEmpty = true, now
	}
	m.updated, m.reported = now, true
}

func (m *model) get(now time.Duration, c *Config) float64 {
	if !m.reported || !m.beginning {
		return 0
	}
	if now-m.updated >= c.WeightExpirationPeriod {
		m.beginning = false
		return 0
	}
	if c.BlackoutPeriod > 0 && now-m.nonEmpty < c.BlackoutPeriod {
		return 0
	}
	return m.weight
}

// TestWeighAgainstModel lets endpoints report, fall silent and come back at random.
func TestWeighAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := Default()
		c.ErrorUtilizationPenalty = float64(rnd.IntN(3))
		c.BlackoutPeriod = time.Duration(rnd.IntN(3)) * 5 * time.Second
		c.WeightExpirationPeriod = 8 * time.Second
		n := 1 + rnd.IntN(6)
		backends, models, all := make([]Backend, n), make([]model, n), make([]Weighed, n)
		quiet := make([]time.Duration, n)
		for i := range all {
			all[i] = Weighed{Backend: &backends[i], Weight: uint32(rnd.IntN(4))}
		}
		for now := time.Second; now < time.Minute; now += time.Second {
			for i := range backends {
				if rnd.IntN(20) == 0 {
					quiet[i] = now + time.Duration(rnd.IntN(15))*time.Second
				}
				if now < quiet[i] {
					continue
				}
				r := Report{CPU: rnd.Float64(), RPS: rnd.Float64() * 100, EPS: rnd.Float64() * 10}
				switch rnd.IntN(6) {
				case 0:
					r.Application = rnd.Float64() * 2
				case 1:
					r.RPS = 0
				}
				backends[i].Observe(&c, now, &r)
				models[i].report(now, r, c.ErrorUtilizationPenalty)
			}
			want := factors(&c, now, models, all)
			c.Weigh(now, all)
			for i := range all {
				if math.Abs(all[i].Factor-want[i]) > 1e-9*want[i] {
					t.Fatalf("seed %d at %v: endpoint %d has %v (%v), want %v", seed, now, i, all[i].Factor, all[i].State, want[i])
				}
			}
		}
	}
}

// factors is Weigh written down step by step.
func factors(c *Config, now time.Duration, models []model, all []Weighed) []float64 {
	out := make([]float64, len(models))
	var units []float64
	for i := range models {
		if w := models[i].get(now, c); w > 0 {
			out[i] = w / max(float64(all[i].Weight), 1)
			units = append(units, out[i])
		}
	}
	if len(units) < 2 {
		for i := range out {
			out[i] = 1
		}
		return out
	}
	slices.Sort(units)
	median := units[(len(units)-1)/2]
	sum := 0.0
	for i := range out {
		if out[i] > 0 {
			out[i] = max(min(out[i], median*c.MaxWeightPercent/100), median*c.MinWeightPercent/100)
			sum += out[i]
		}
	}
	mean := sum / float64(len(units))
	for i := range out {
		if out[i] == 0 {
			out[i] = mean
		}
		out[i] /= mean
	}
	return out
}

// TestLiar: whatever an endpoint claims, it gets no more than the bound, and those
// that say the truth keep their proportions.
func TestLiar(t *testing.T) {
	c := Default()
	c.BlackoutPeriod = 0
	for _, n := range []int{2, 3, 10} {
		for _, claim := range []float64{1e99, 1e6, 1e-99} {
			backends, all := make([]Backend, n), make([]Weighed, n)
			for i := range all {
				r := Report{CPU: 0.5, RPS: 100 + float64(i)}
				if i == 0 {
					r = Report{CPU: 1, RPS: claim}
				}
				if !backends[i].Observe(&c, time.Second, &r) {
					t.Fatal("not taken")
				}
				all[i] = Weighed{Backend: &backends[i], Weight: 1}
			}
			c.Weigh(2*time.Second, all)
			sum := 0.0
			for i := range all {
				sum += all[i].Factor
			}
			if most := 4 / (4 + float64(n-1)) * 1.05; all[0].Factor/sum > most && n > 2 || all[0].Factor/sum > 0.81 {
				t.Errorf("%d endpoints, claim %g: it gets %v of all", n, claim, all[0].Factor/sum)
			}
			if n == 10 && math.Abs(all[9].Factor/all[1].Factor-109.0/101) > 1e-9 {
				t.Errorf("the others have %v and %v", all[1].Factor, all[9].Factor)
			}
			if math.Abs(sum-float64(n)) > 1e-9 {
				t.Errorf("the mean is %v", sum/float64(n))
			}
		}
	}
}

// TestLife goes through the states of one endpoint.
func TestLife(t *testing.T) {
	c := Default()
	var b, other Backend
	all := []Weighed{{Backend: &b, Weight: 1}, {Backend: &other, Weight: 1}}
	good, short := Report{CPU: 0.5, RPS: 100}, Report{CPU: 0.5}
	state := func(now time.Duration, want State) {
		t.Helper()
		c.Weigh(now, all)
		if all[0].State != want {
			t.Errorf("at %v it is %v, want %v", now, all[0].State, want)
		}
	}
	state(time.Second, Silent)
	if b.Observe(&c, 2*time.Second, &short) || b.Age(time.Minute) >= 0 {
		t.Error("a report without requests per second was taken")
	}
	state(3*time.Second, Silent)
	b.Observe(&c, 4*time.Second, &good)
	state(13*time.Second, Blackout)
	state(14*time.Second, Counted)
	if all[0].Factor != 1 {
		t.Errorf("the only one that reports has %v", all[0].Factor)
	}
	if age := b.Age(5 * time.Second); age != time.Second {
		t.Errorf("its age is %v", age)
	}
	state(4*time.Second+c.WeightExpirationPeriod, Expired)
	state(5*time.Second+c.WeightExpirationPeriod, Silent)
	b.Observe(&c, 10*time.Minute, &good)
	state(10*time.Minute+time.Second, Blackout)
	if s := State(9).String(); s != "expired" || Silent.String() != "silent" {
		t.Error(s)
	}
}

func TestConfig(t *testing.T) {
	good := Default()
	good.Validate(func(field, problem string) { t.Errorf("%s %s", field, problem) })
	bad := Config{
		Mode: guard.Mode(9), BlackoutPeriod: -1, WeightUpdatePeriod: 1, WeightExpirationPeriod: 25 * time.Hour,
		ErrorUtilizationPenalty: math.NaN(), MaxWeightPercent: 99, MinWeightPercent: 0,
	}
	var fields []string
	bad.Validate(func(field, _ string) { fields = append(fields, field) })
	want := "mode blackout_period weight_update_period weight_expiration_period error_utilization_penalty max_weight_percent min_weight_percent"
	if got := strings.Join(fields, " "); got != want {
		t.Errorf("problems with %s", got)
	}
	good.WeightUpdatePeriod, good.WeightExpirationPeriod = time.Minute, time.Second
	fields = nil
	good.Validate(func(field, _ string) { fields = append(fields, field) })
	if len(fields) != 1 || fields[0] != "weight_expiration_period" {
		t.Errorf("problems with %v", fields)
	}
	good = Default()
	good.Mode = guard.Observe
	if s := good.String(); s != "weighted by reported load every 1s (observe)" {
		t.Error(s)
	}
	if s := (*Config)(nil).String(); s != "off" {
		t.Error(s)
	}
}
