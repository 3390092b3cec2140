package advise

import (
	"fmt"
	"math"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/rerun"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// rounded is d with two digits, rounded up.
func rounded(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	scale := time.Duration(math.Pow(10, math.Floor(math.Log10(float64(d)))-1))
	scale = max(scale, time.Millisecond)
	return (d + scale - 1) / scale * scale
}

// short is d with three digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func none(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return short(d)
}

// unknown says that too few values are there for a setting.
func unknown(setting, now string, have, need int, what string) []proposal {
	return []proposal{{Advice: Advice{
		Setting: setting, Now: now, Verdict: Unknown, Evidence: fmt.Sprintf("%d %s are in the log; it takes %d", have, what, need),
	}}}
}

// latencies tells a distribution.
func latencies(list []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s, p99.9 %s, longest %s of %d", short(rerun.Quantile(list, .5)), short(rerun.Quantile(list, .99)),
		short(rerun.Quantile(list, .999)), short(list[len(list)-1]), len(list))
}

// leastTail is how many answers it takes to say something of their slowest.
const leastTail = 1000

// proposeTimeout proposes a timeout far above what takes long, and cuts at most one
// in 2000 of those that were answered.
func proposeTimeout(m *rerun.Measure, p *config.Policy) []proposal {
	now := none(p.Timeout)
	if len(m.Whole) < leastTail {
		return unknown("timeout", now, len(m.Whole), leastTail, "requests that were answered well")
	}
	far := 2 * rerun.Quantile(m.Whole, .999)
	if len(m.Whole) < 10_000 { // p99.9 is but a few requests
		far = max(far, 4*rerun.Quantile(m.Whole, .99))
	}
	far = max(far, rerun.Quantile(m.Whole, .9995), 100*time.Millisecond)
	t := rounded(far)
	evidence := fmt.Sprintf("answered in %s; %s would have cut %.3f %%", latencies(m.Whole), short(t), rerun.Above(m.Whole, t))
	if m.GivenUp > 0 {
		evidence += fmt.Sprintf("; %d attempts were given up", m.GivenUp)
	}
	a := Advice{Setting: "timeout", Now: now, Proposed: t.String(), Evidence: evidence}
	if p.Timeout > 0 && p.Timeout >= t/2 && p.Timeout <= 3*t {
		a.Verdict, a.Proposed = Kept, ""
		a.Evidence = fmt.Sprintf("answered in %s; what is in force cuts %.3f %%", latencies(m.Whole), rerun.Above(m.Whole, p.Timeout))
		return []proposal{{Advice: a}}
	}
	return []proposal{{Advice: a, set: map[string]string{"timeout": t.String()}, do: func(p *config.Policy) {
		p.Timeout = t
		if p.Retry != nil && p.Retry.PerTryTimeout > t {
			p.Retry.PerTryTimeout = 0
		}
	}}}
}

// proposeTryTimeout proposes a time after which an attempt is made again elsewhere:
// seldom reached by those that are answered, and with room for another attempt.
func proposeTryTimeout(m *rerun.Measure, p *config.Policy) []proposal {
	if p.Retry == nil || p.Retry.Attempts < 2 || p.Retry.Mode == guard.Observe {
		return nil
	}
	now := none(p.Retry.PerTryTimeout)
	if len(m.Heads) < leastTail {
		return unknown("retry.per_try_timeout", now, len(m.Heads), leastTail, "attempts that were answered well")
	}
	var list []proposal
	for _, q := range []float64{.999, .995} {
		t := max(rounded(rerun.Quantile(m.Heads, q)*3/2), 10*time.Millisecond)
		if p.Timeout > 0 && t > p.Timeout/2 {
			continue // no time would be left for another attempt
		}
		cut := rerun.Above(m.Heads, t)
		list = append(list, proposal{
			Advice: Advice{
				Setting: "retry.per_try_timeout", Now: now, Proposed: t.String(),
				Evidence: fmt.Sprintf("first byte of attempts: %s; %s would have ended %.3f %% of them, %.0f %% of the requests may be repeated",
					latencies(m.Heads), short(t), cut, 100*float64(m.Idempotent)/float64(m.Requests)),
			},
			set: map[string]string{"retry.per_try_timeout": t.String()},
			do:  func(p *config.Policy) { p.Retry.PerTryTimeout = t },
		})
	}
	if len(list) == 0 {
		return []proposal{{Advice: Advice{Setting: "retry.per_try_timeout", Now: now, Verdict: Kept, Evidence: "the slowest attempts take more than half of the timeout: no time would be left for another"}}}
	}
	return list
}

// proposeHedge proposes after what time another attempt is started beside one that is
// slow, where replay gains by it.
func proposeHedge(m *rerun.Measure, p *config.Policy) []proposal {
	if p.Hedge != nil || len(m.Endpoints) < 2 || 2*m.Idempotent < m.Requests || len(m.Heads) < leastTail {
		return nil
	}
	var list []proposal
	for _, q := range []float64{.95, .99} {
		t := max(rounded(rerun.Quantile(m.Heads, q)), 2*time.Millisecond)
		list = append(list, proposal{
			Advice: Advice{
				Setting: "hedge.delay", Now: "off", Proposed: t.String(),
				Evidence: fmt.Sprintf("first byte of attempts: %s; %.1f %% took longer than %s", latencies(m.Heads), rerun.Above(m.Heads, t), short(t)),
			},
			set: map[string]string{"hedge.delay": t.String()},
			do: func(p *config.Policy) {
				h := hedge.Default()
				h.Delay = t
				p.Hedge = &h
			},
		})
	}
	return list
}

// proposeRetry proposes how many attempts there are.
func proposeRetry(m *rerun.Measure, p *config.Policy) []proposal {
	now := "off"
	if p.Retry != nil {
		now = fmt.Sprint(p.Retry.Attempts)
	}
	evidence := fmt.Sprintf("%d of %d first attempts failed so that another may be made; %d were made again, %d of these answered well", m.First, m.Requests, m.Again, m.AgainGood)
	if m.Third > 0 {
		evidence += fmt.Sprintf("; %d a third time, %d well", m.Third, m.ThirdGood)
	}
	a := Advice{Setting: "retry.attempts", Now: now, Evidence: evidence}
	switch {
	case p.Retry != nil && p.Retry.Mode == guard.Observe:
		return nil
	case m.First == 0:
		a.Verdict, a.Evidence = Kept, fmt.Sprintf("none of %d first attempts failed so that another may be made: the log says nothing about it", m.Requests)
		return []proposal{{Advice: a}}
	case p.Retry == nil || p.Retry.Attempts < 2:
		return []proposal{attempts(a, 2)}
	case p.Retry.Attempts > 2 && m.Third >= 20 && m.ThirdGood*10 < m.Third:
		return []proposal{attempts(a, 2)}
	}
	a.Verdict = Kept
	return []proposal{{Advice: a}}
}

func attempts(a Advice, n int) proposal {
	a.Proposed = fmt.Sprint(n)
	return proposal{Advice: a, set: map[string]string{"retry.attempts": a.Proposed}, do: func(p *config.Policy) {
		if p.Retry == nil {
			r := retry.Default()
			p.Retry = &r
		}
		p.Retry.Attempts = n
	}}
}

// proposeBudget bounds retries above what they ever were, so that a failure of all
// endpoints cannot multiply the load.
func proposeBudget(m *rerun.Measure, p *config.Policy) []proposal {
	if p.Retry == nil || p.Retry.Attempts < 2 || m.First == 0 {
		return nil
	}
	now := fmt.Sprintf("%g %%", p.Retry.BudgetPercent)
	want := math.Min(math.Max(math.Ceil(2*m.MostAgain/5)*5, 10), 20)
	a := Advice{Setting: "retry.budget_percent", Now: now, Evidence: fmt.Sprintf("in the worst 10 s %.1f %% of the first attempts were made again", m.MostAgain)}
	if p.Retry.BudgetPercent >= want && p.Retry.BudgetPercent <= 25 {
		a.Verdict = Kept
		return []proposal{{Advice: a}}
	}
	a.Proposed = fmt.Sprintf("%g %%", want)
	return []proposal{{Advice: a, set: map[string]string{"retry.budget_percent": fmt.Sprintf("%g", want)}, do: func(p *config.Policy) { p.Retry.BudgetPercent = want }}}
}

// proposeLimit proposes a limit on active requests that has never been neared, so that
// it acts only when something is wrong.
func proposeLimit(m *rerun.Measure, p *config.Policy) []proposal {
	now := "none"
	if p.Limits.MaxRequests > 0 {
		now = fmt.Sprint(p.Limits.MaxRequests)
	}
	if len(m.Active) < leastTail {
		return unknown("limits.max_requests", now, len(m.Active), leastTail, "requests")
	}
	most := m.Active[len(m.Active)-1]
	want := max(twoDigits(2*int64(most)), 16)
	a := Advice{
		Setting: "limits.max_requests", Now: now, Proposed: fmt.Sprint(want),
		Evidence: fmt.Sprintf("in flight at a time: p50 %d, p99 %d, at most %d; twice that", rerun.Quantile(m.Active, .5), rerun.Quantile(m.Active, .99), most),
	}
	if n := p.Limits.MaxRequests; n > 0 && n >= int64(most) && n <= 4*want {
		a.Verdict, a.Proposed = Kept, ""
		return []proposal{{Advice: a}}
	}
	return []proposal{{Advice: a, set: map[string]string{"limits.max_requests": a.Proposed}, do: func(p *config.Policy) { p.Limits.MaxRequests = want }}}
}

// twoDigits is n rounded up to two digits.
func twoDigits(n int64) int64 {
	scale := int64(1)
	for n/scale >= 100 {
		scale *= 10
	}
	return (n + scale - 1) / scale * scale
}

// proposeOutlier tries several ways of ejection where endpoints have failed.
func proposeOutlier(m *rerun.Measure, p *config.Policy) []proposal {
	now := "off"
	if o := p.Outlier; o != nil {
		now = fmt.Sprintf("%g %% or %d in a row", o.FailurePercent, o.ConsecutiveFailures)
		if o.Mode == guard.Observe {
			return nil
		}
	}
	a := Advice{Setting: "outlier", Now: now}
	var worst rerun.EndpointMeasure
	failed, attempts := 0, 0
	for _, e := range m.Endpoints {
		failed, attempts = failed+e.Failed, attempts+e.Attempts
		if e.Worst > worst.Worst || e.Worst == worst.Worst && e.InARow > worst.InARow {
			worst = e
		}
	}
	switch {
	case len(m.Endpoints) < 2:
		a.Verdict, a.Evidence = Kept, "the log knows one endpoint: there is no other to go to"
		return []proposal{{Advice: a}}
	case failed == 0:
		a.Verdict, a.Evidence = Kept, fmt.Sprintf("none of %d attempts failed by its endpoint: the log says nothing about it", attempts)
		return []proposal{{Advice: a}}
	}
	a.Evidence = fmt.Sprintf("%s was worst: %d of %d attempts failed, up to %.0f %% in 10 s and %d in a row; half of the endpoints failed in at most %.2f %%",
		worst.Address, worst.Failed, worst.Attempts, worst.Worst, worst.InARow, m.Background)
	var list []proposal
	least := math.Max(5*m.Background, 5)
	for _, share := range []float64{20, 10, 50} {
		if share < least || worst.Worst < share {
			continue
		}
		if o := p.Outlier; o != nil && o.FailurePercent == share {
			continue
		}
		b := a
		b.Setting, b.Proposed = "outlier.failure_percent", fmt.Sprintf("%g %%", share)
		list = append(list, proposal{Advice: b, set: map[string]string{"outlier.failure_percent": fmt.Sprintf("%g", share)}, do: func(p *config.Policy) {
			if p.Outlier == nil {
				o := outlier.Default()
				p.Outlier = &o
			}
			p.Outlier.FailurePercent = share
		}})
	}
	if len(list) == 0 {
		a.Verdict = Kept
		if p.Outlier == nil {
			a.Evidence += "; too little to tell an endpoint from its peers"
		}
		return []proposal{{Advice: a}}
	}
	return list
}
