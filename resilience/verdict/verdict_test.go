package verdict

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// TestRows: what the machines are told follows from the row of a reason, for
// all of them.
func TestRows(t *testing.T) {
	for r := outcome.Reason(0); int(r) < outcome.Count; r++ {
		row := r.Row()
		failed := row.Blame
		if got := Outlier(r); (got == outlier.Failure || got == outlier.LocalFailure) != failed || (got == outlier.Success) != (r == outcome.OK) {
			t.Errorf("%v: the endpoint is told %v; blame %v", r, got, row.Blame)
		}
		if got := Breaker(r); (got == breaker.Failure) != failed || (got == breaker.Success) != (r == outcome.OK) {
			t.Errorf("%v: the breaker is told %v; blame %v", r, got, row.Blame)
		}
		if got := Class(r); (got == retry.Never) != (row.Retryable == outcome.RetryNever) || (got == retry.IfUnsent) != (row.Retryable == outcome.RetryUnsent) {
			t.Errorf("%v: retried %v; %v", r, got, row.Retryable)
		}
		if c := Condition(r); c != retry.NoCondition && row.Retryable == outcome.RetryNever {
			t.Errorf("%v is never retried and has the condition %v", r, c)
		}
	}
}

// TestOrigins: an answer is the endpoint's own failure, all else this proxy's view.
func TestOrigins(t *testing.T) {
	for r, want := range map[outcome.Reason]outlier.Result{
		outcome.OK: outlier.Success, outcome.UpstreamError: outlier.Failure, outcome.ConnectFailed: outlier.LocalFailure,
		outcome.TryTimeout: outlier.LocalFailure, outcome.DownstreamGone: outlier.Ignored, outcome.BreakerOpen: outlier.Ignored,
	} {
		if got := Outlier(r); got != want {
			t.Errorf("%v: %v, want %v", r, got, want)
		}
	}
	for r, want := range map[outcome.Reason]retry.Condition{
		outcome.ConnectTimeout: retry.ConnectFailure, outcome.UpstreamReset: retry.Reset, outcome.TryTimeout: retry.Reset,
		outcome.StaleConnection: retry.StaleConnection, outcome.UpstreamError: retry.NoCondition,
	} {
		if got := Condition(r); got != want {
			t.Errorf("%v: %v, want %v", r, got, want)
		}
	}
}
