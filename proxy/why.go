package proxy

import (
	"fmt"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
)

// ledgerShare is which part of the memory budget the ledger takes at most.
const ledgerShare = 16

// maxHistory is for how many configurations it is known where their values
// came from; what an exchange decided under an older one is told without that.
const maxHistory = 8

// planned is the configuration of the plans from a version on.
type planned struct {
	from   uint64
	loaded *config.Loaded
}

// remember notes which configuration the plan was made from. p.mu is held.
func (p *Proxy) remember(version uint64, loaded *config.Loaded) {
	if n := len(p.history); n > 0 && p.history[n-1].loaded == loaded {
		return // only identities have changed
	}
	p.history = append(p.history, planned{version, loaded})
	if n := len(p.history) - maxHistory; n > 0 {
		p.history = slices.Delete(p.history, 0, n)
	}
}

// maxWhy is how many exchanges with one request id are told: that of the
// caller's sidecar and that of the callee's may be one process.
const maxWhy = 10

func (p *Proxy) viewWhy(id string) []admin.WhyView {
	return p.whyViews(p.ledger.Find([]byte(id), maxWhy))
}

func (p *Proxy) viewLedger(n int, failures bool) []admin.WhyView {
	return p.whyViews(p.ledger.Last(n, failures))
}

// whyViews makes views of entries, which come with the last one first.
func (p *Proxy) whyViews(entries []ledger.Entry) []admin.WhyView {
	if len(entries) == 0 {
		return nil
	}
	p.mu.Lock()
	history := slices.Clone(p.history)
	p.mu.Unlock()
	known := map[*config.Loaded]config.Settings{}
	views := make([]admin.WhyView, 0, len(entries))
	for i := range slices.Backward(entries) {
		e := &entries[i]
		w := whyView{e: e}
		for _, h := range slices.Backward(history) {
			if h.from > e.Plan {
				continue
			}
			if w.settings = known[h.loaded]; w.settings == nil {
				w.settings = h.loaded.Settings()
				known[h.loaded] = w.settings
			}
			w.cfg = h.loaded.Config
			break
		}
		views = append(views, w.view())
	}
	return views
}

// whyView makes the view of one entry.
type whyView struct {
	e        *ledger.Entry
	cfg      *config.Config // nil when it is no longer kept
	settings config.Settings
}

func (w *whyView) view() admin.WhyView {
	e := w.e
	row := e.Reason.Row()
	v := admin.WhyView{
		RequestID: string(e.ID), Time: e.Start, Direction: "outbound", Listener: e.Listener, Plan: e.Plan,
		Route: e.Route, RouteWhy: e.RouteWhy, Cluster: e.Cluster,
		Method: string(e.Method), Authority: string(e.Authority), Path: string(e.Path), Protocol: e.Protocol,
		CallerID: e.CallerID, Rule: e.Rule, WouldDeny: e.WouldDeny, UpstreamID: e.UpstreamID,
		Reason: row.Name, Meaning: row.Detail, Detail: e.Detail, Status: int(e.Status), ClosedBy: e.Reason.ClosedBy(),
		DurationMs: millis(e.Duration), FirstByteMs: millis(e.FirstByte), BytesIn: e.BytesIn, BytesOut: e.BytesOut,
		DeadlineMs: millis(e.Deadline), DeadlineBy: e.DeadlineBy.String(), Priority: e.Priority, QueuedMs: millis(e.Queued),
		Usable: e.Usable, Endpoints: e.Total, Panicking: e.Panicking,
		AttemptCount: e.AttemptCount, Attempts: []admin.AttemptView{}, Settings: w.remedies(), InForce: w.timers(),
		Unknown: w.cfg == nil,
	}
	if e.Inbound {
		v.Direction = "inbound"
	}
	if e.Caller.IsValid() {
		v.Caller = e.Caller.String()
	}
	if e.Original.IsValid() {
		v.Original = e.Original.String()
	}
	if e.IsGRPC {
		code := int(e.GRPC)
		v.GRPCStatus = &code
	}
	if e.HasBreaker {
		v.Breaker = e.Breaker.String()
	}
	if s, ok := w.settings.At(e.RoutePath, "name", "match.path", "match.path_prefix", "match.path_regex", "match.methods"); ok {
		v.RouteAt = s.Origin
	} else if s, ok := w.settings[e.RoutePath]; ok {
		v.RouteAt = s.Origin
	}
	if s, ok := w.rule(); ok {
		v.RuleAt = s.Origin
	}
	for i := range e.Attempts {
		v.Attempts = append(v.Attempts, attemptView(&e.Attempts[i]))
	}
	v.NoFurther = w.noFurther()
	return v
}

func attemptView(a *ledger.Attempt) admin.AttemptView {
	v := admin.AttemptView{
		Cluster: a.Cluster, Endpoint: a.Endpoint, Algorithm: a.Algorithm, Candidates: []admin.CandidateView{},
		OffsetMs: millis(a.Offset), DurationMs: millis(a.Duration), ConnectMs: millis(a.Connect),
		Reason: a.Reason.String(), Status: int(a.Status), Fault: a.Fault, Hedge: a.Hedge,
	}
	for i := range a.Candidates[:a.Compared] {
		c := &a.Candidates[i]
		v.Candidates = append(v.Candidates, admin.CandidateView{Address: c.Address, Score: c.Score, State: c.State})
	}
	if a.Asked {
		v.Retry, v.WaitMs = a.Why.String(), millis(a.Wait)
		if a.HasBudget {
			v.Budget = &a.Budget
		}
	}
	return v
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// refusals says for each answer why no further attempt was made.
var refusals = map[retry.Why]string{
	retry.AttemptsSpent:     "all attempts that the policy allows have been made",
	retry.NotRetryable:      "another attempt cannot help after this failure, or must not be made",
	retry.NotIdempotent:     "the endpoint may have processed the request, and its method must not be repeated",
	retry.BodyNotKept:       "the request's body was not kept whole, so that it cannot be sent again",
	retry.BudgetSpent:       "the retry budget of the cluster is spent",
	retry.DeadlineTooNear:   "another attempt could not end before the deadline",
	retry.NotConfigured:     "the policy does not retry after this failure",
	retry.RetryAfterTooLong: "the endpoint asks for a longer wait than the policy allows",
	retry.PushedBack:        "the endpoint asks for no further attempt",
	retry.CallerRetries:     "the caller's sidecar repeats requests itself, so that this one does not",
	retry.Observed:          "retries are only observed",
}

// last is the last attempt, nil without one.
func (w *whyView) last() *ledger.Attempt {
	if n := len(w.e.Attempts); n > 0 {
		return &w.e.Attempts[n-1]
	}
	return nil
}

func (w *whyView) noFurther() string {
	e, a := w.e, w.last()
	switch {
	case !e.Failed() || a == nil:
		return ""
	case a.Asked && a.Why == retry.Again:
		return fmt.Sprintf("one was to follow, but the exchange ended before it: %s", e.Reason)
	case a.Asked:
		return refusals[a.Why]
	case e.Reason == outcome.DownstreamGone:
		return "the caller had gone"
	case e.MaxAttempts <= 1:
		return "retries are off"
	case e.FirstByte > 0:
		return "the answer had begun"
	}
	return "nothing would have been gained by it"
}
