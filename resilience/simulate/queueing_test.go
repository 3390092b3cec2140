package simulate

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/scenario"
)

// parse reads a scenario that is given in a test.
func parse(t *testing.T, text string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// only is the result of the only run and service.
func only(t *testing.T, text string) *ServiceResult {
	t.Helper()
	r := Simulate(parse(t, text))
	for _, c := range r.Runs[0].Checks {
		if !c.Held {
			t.Errorf("%s: %s", c.Expected, c.Found)
		}
	}
	return r.Runs[0].Service("api")
}

func within(t *testing.T, what string, got, want, percent float64) {
	t.Helper()
	if off := 100 * math.Abs(got-want) / want; !(off <= percent) {
		t.Errorf("%s is %.4f, want %.4f: off by %.1f %%, more than %.1f %%", what, got, want, off, percent)
	}
}

// erlangC is the share of arrivals that wait in M/M/c (Erlang 1917).
func erlangC(c int, load float64) float64 {
	sum, term := 0.0, 1.0
	for k := range c {
		sum += term
		term *= load / float64(k+1)
	}
	last := term / (1 - load/float64(c))
	return last / (sum + last)
}

// TestAgainstQueueingTheory: one endpoint is M/M/1 or M/M/c, whose times are
// known in closed form.
func TestAgainstQueueingTheory(t *testing.T) {
	for _, c := range []struct {
		slots int
		load  float64 // of each slot
	}{{1, .3}, {1, .7}, {1, .85}, {4, .8}, {16, .9}} {
		t.Run(fmt.Sprintf("M/M/%d at %v", c.slots, c.load), func(t *testing.T) {
			// Service time 10 ms, and so many seconds that the error of the mean is small.
			rate := c.load * float64(c.slots) * 100
			s := only(t, fmt.Sprintf(`
duration: %v
warmup: 20s
services: {api: {slots: %d, queue: 1000000, service_time: exponential 10ms, network: 0s}}
arrivals: [{to: api, rate: %v}]
policies: {"*": {retry: "off", outlier: "off"}}
`, time.Duration(160_000/rate*float64(time.Second)).Round(time.Second), c.slots, rate))
			a := c.load * float64(c.slots)
			wait := erlangC(c.slots, a) * 0.010 / (float64(c.slots) - a)
			within(t, "mean time in the system", s.Summary.Mean.Seconds(), wait+0.010, 6)
			if c.slots == 1 {
				// The time in M/M/1 is exponential.
				within(t, "p99", s.Summary.P99.Seconds(), (wait+0.010)*math.Log(100), 8)
			}
			if s.Summary.Good != s.Summary.Began {
				t.Errorf("%d of %d were good", s.Summary.Good, s.Summary.Began)
			}
		})
	}
}

// TestPollaczekKhinchine: with a service time that does not vary, half of the
// waiting of M/M/1 is left.
func TestPollaczekKhinchine(t *testing.T) {
	s := only(t, `
duration: 1500s
warmup: 20s
services: {api: {slots: 1, queue: 1000000, service_time: constant 10ms, network: 0s}}
arrivals: [{to: api, rate: 80}]
policies: {"*": {retry: "off", outlier: "off"}}
`)
	within(t, "mean", s.Summary.Mean.Seconds(), 0.010+0.8*0.010/(2*(1-0.8)), 4)
}

// TestErlangB: without a queue, a share of the arrivals is lost that is known too.
func TestErlangB(t *testing.T) {
	s := only(t, `
duration: 300s
services: {api: {slots: 5, queue: 0, service_time: lognormal p50 6ms p99 90ms, network: 0s}}
arrivals: [{to: api, rate: 300}]
policies: {"*": {retry: "off", outlier: "off"}}
`)
	d := scenario.Distribution{}
	if err := d.UnmarshalText([]byte("lognormal p50 6ms p99 90ms")); err != nil {
		t.Fatal(err)
	}
	load, b := 300*d.Mean().Seconds(), 1.0
	for k := 1; k <= 5; k++ {
		b = load * b / (float64(k) + load*b)
	}
	within(t, "share lost", float64(s.Summary.Failed)/float64(s.Summary.Began), b, 3)
}

// TestClosedLoop: users who think and a single slot keep Little's law, and with
// many users the slot is never idle.
func TestClosedLoop(t *testing.T) {
	s := only(t, `
duration: 300s
warmup: 10s
services: {api: {slots: 1, service_time: exponential 10ms, network: 0s}}
arrivals: [{to: api, users: 40, think: exponential 100ms}]
policies: {"*": {retry: "off", outlier: "off"}}
`)
	throughput := float64(s.Summary.Good) / 290
	within(t, "throughput", throughput, 100, 2)
	within(t, "users by Little's law", throughput*(s.Summary.Mean.Seconds()+0.100), 40, 2)
}
