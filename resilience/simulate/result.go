package simulate

import (
	"math"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/hist"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/resilience/scenario"
)

// Result is what came of a scenario.
type Result struct {
	Title    string        `json:"title,omitempty"`
	Seed     uint64        `json:"seed"`
	Duration time.Duration `json:"duration_ns"`
	Warmup   time.Duration `json:"warmup_ns"`
	Runs     []*Run        `json:"runs"`

	scenario *scenario.Scenario
}

// Met reports whether all expectations held.
func (r *Result) Met() bool {
	for _, run := range r.Runs {
		for i := range run.Checks {
			if !run.Checks[i].Held {
				return false
			}
		}
	}
	return true
}

// Run is what came of one variant.
type Run struct {
	Name string `json:"name,omitempty"`
	// Arrived is how many requests came from outside.
	Arrived uint64 `json:"arrived"`
	// Events is how many events the run took.
	Events   uint64          `json:"events"`
	Services []ServiceResult `json:"services"`
	Checks   []Check         `json:"checks,omitempty"`
}

// Service returns what came of a service, nil for one that is not there.
func (r *Run) Service(name string) *ServiceResult {
	for i := range r.Services {
		if r.Services[i].Name == name {
			return &r.Services[i]
		}
	}
	return nil
}

// ServiceResult is what the callers of a service and its endpoints saw. Counts
// are of the whole run; Summary leaves the warmup out.
type ServiceResult struct {
	Name    string  `json:"name"`
	Summary Summary `json:"summary"`
	// Counts are those of all proxies that call it.
	Counts replay.Counts `json:"counts"`
	// Reasons is how many exchanges ended for which reason.
	Reasons map[string]uint64 `json:"reasons"`
	Work    Work              `json:"endpoints"`
	// Points is the time series, a second each.
	Points []replay.Point `json:"points"`
}

// Summary is of the exchanges that began in some time.
type Summary struct {
	Began    uint64 `json:"began"`
	Good     uint64 `json:"good"`
	Failed   uint64 `json:"failed"`
	Refused  uint64 `json:"refused"`
	Attempts uint64 `json:"attempts"`
	// Latencies of the good ones.
	Mean time.Duration `json:"mean_ns"`
	P50  time.Duration `json:"p50_ns"`
	P90  time.Duration `json:"p90_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
}

func summaryOf(w *replay.Window) Summary {
	l := &w.Latency
	return Summary{
		Began: w.Began, Good: w.Good, Failed: w.Failed, Refused: w.Refused, Attempts: w.Attempts,
		Mean: l.Mean(), P50: l.Quantile(.5), P90: l.Quantile(.9), P99: l.Quantile(.99), P999: l.Quantile(.999), Max: l.Max(),
	}
}

func serviceResult(sv *service) ServiceResult {
	s := ServiceResult{
		Name: sv.name, Summary: summaryOf(sv.judged), Counts: sv.stats.Total(), Reasons: map[string]uint64{},
		Work: sv.Work, Points: sv.stats.Points,
	}
	for r, n := range sv.stats.Reasons {
		if n > 0 {
			s.Reasons[outcome.Reason(r).String()] = n
		}
	}
	return s
}

// Check is an expectation with what came out.
type Check struct {
	Expected string `json:"expected"`
	// Found is the value, in the unit of the expectation.
	Found string  `json:"found"`
	Value float64 `json:"-"`
	Held  bool    `json:"held"`
}

// watched is an expectation with the windows that count for it.
type watched struct {
	expectation *scenario.Expectation
	service     string
	window      *replay.Window // of the service it is about
	arrived     *replay.Window // of the service that is called from outside
}

// watch prepares the counting of what the expectations of a variant ask.
func (r *run) watch(variant string) []watched {
	for _, sv := range r.order {
		sv.judged = sv.stats.Watch(r.spec.Warmup, r.spec.Duration)
	}
	type span struct {
		service  string
		from, to time.Duration
	}
	windows := map[span]*replay.Window{}
	window := func(s span) *replay.Window {
		if windows[s] == nil {
			windows[s] = r.services[s.service].stats.Watch(s.from, s.to)
		}
		return windows[s]
	}
	var list []watched
	for i := range r.spec.Expect {
		e := &r.spec.Expect[i]
		if e.In != "" && e.In != variant {
			continue
		}
		s := span{service: e.Of, from: e.From, to: e.To}
		if s.service == "" {
			s.service = r.spec.Entry()
		}
		if !e.Given {
			s.from = r.spec.Warmup
		}
		if s.to == 0 {
			s.to = r.spec.Duration
		}
		w := watched{expectation: e, service: s.service, window: window(s)}
		s.service = r.spec.Entry()
		w.arrived = window(s)
		list = append(list, w)
	}
	return list
}

// judge compares what came out with what was expected.
func (out *Run) judge(list []watched) {
	for i := range list {
		e := list[i].expectation
		v := out.value(&list[i])
		out.Checks = append(out.Checks, Check{Expected: e.String(), Found: e.Format(v), Value: v, Held: e.Holds(v)})
	}
}

// value is the metric's, NaN when there was nothing to judge.
func (out *Run) value(w *watched) float64 {
	e := w.expectation
	of := func(n uint64) float64 { return float64(n) * 100 / float64(w.window.Began) }
	service := e.Of
	switch e.Metric {
	case scenario.Goodput:
		return of(w.window.Good)
	case scenario.Failed:
		return of(w.window.Failed)
	case scenario.Refused:
		return of(w.window.Refused)
	case scenario.Under:
		return of(w.window.Latency.Below(e.Bound))
	case scenario.Mean:
		return latency(&w.window.Latency, w.window.Latency.Mean())
	case scenario.Attempts:
		return float64(w.window.Attempts) / float64(w.window.Began)
	case scenario.Amplification:
		return float64(w.window.Attempts) / float64(w.arrived.Began)
	case scenario.Throughput:
		return float64(w.window.Good) / (w.window.To - w.window.From).Seconds()
	case scenario.Limit:
		return meanLimit(out.Service(w.service).Points, w.window.From, w.window.To)
	case scenario.Ejections, scenario.Openings:
		n := replay.Counts{}
		for i := range out.Services {
			if s := &out.Services[i]; service == "" || s.Name == service {
				n.Add(&s.Counts)
			}
		}
		if e.Metric == scenario.Ejections {
			return float64(n.Ejections)
		}
		return float64(n.BreakerOpened)
	}
	q, _ := e.Metric.Quantile()
	return latency(&w.window.Latency, w.window.Latency.Quantile(q))
}

// meanLimit is that of the ends of the seconds within a time.
func meanLimit(points []replay.Point, from, to time.Duration) float64 {
	sum, n := 0.0, 0.0
	for i := range points {
		if at := points[i].At; at >= from && at < to {
			sum += float64(points[i].Limit)
			n++
		}
	}
	return sum / n
}

// latency is NaN where there was none to measure.
func latency(h *hist.Histogram, d time.Duration) float64 {
	if h.Count() == 0 {
		return math.NaN()
	}
	return d.Seconds()
}
