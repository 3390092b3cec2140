// Package verdict says what the outcome of an attempt means to each machine: to outlier detection, the breaker and the retries.
package verdict

import (
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Outlier is what r says about the endpoint. An end for which the endpoint is
// not to blame, such as the caller's going away, says nothing.
func Outlier(r outcome.Reason) outlier.Result {
	switch {
	case r == outcome.OK:
		return outlier.Success
	case r == outcome.UpstreamError:
		return outlier.Failure
	case r.Row().Blame:
		return outlier.LocalFailure
	default:
		return outlier.Ignored
	}
}

// Breaker is what r says about the cluster.
func Breaker(r outcome.Reason) breaker.Result {
	switch {
	case r == outcome.OK:
		return breaker.Success
	case r.Row().Blame:
		return breaker.Failure
	default:
		return breaker.Ignored
	}
}

// Class is how safe another attempt is after r.
func Class(r outcome.Reason) retry.Class {
	switch r.Row().Retryable {
	case outcome.RetryUnsent:
		return retry.IfUnsent
	case outcome.RetryIdempotent:
		return retry.IfIdempotent
	default:
		return retry.Never
	}
}

// Condition is which of the failures that a policy can list r is; NoCondition
// where its class and the status tell.
func Condition(r outcome.Reason) retry.Condition {
	switch r {
	case outcome.ConnectFailed, outcome.ConnectTimeout, outcome.PeerIdentity, outcome.HandshakeFailed:
		return retry.ConnectFailure
	case outcome.UpstreamReset, outcome.TryTimeout:
		return retry.Reset
	case outcome.StaleConnection:
		return retry.StaleConnection
	}
	return retry.NoCondition
}
