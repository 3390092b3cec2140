package retry

import "fmt"

// Condition is a kind of failed attempt, as named in Config.On.
type Condition uint8

// The conditions.
const (
	// NoCondition is the zero value; as Question.Condition it lets Decide
	// derive the condition from Class and Status.
	NoCondition Condition = iota
	// ConnectFailure: no connection could be made, its handshake included.
	ConnectFailure
	// Reset: the endpoint closed or reset before its response, or did not
	// answer within the per-try timeout (as Envoy's reset).
	Reset
	// Unavailable: the endpoint answered 502, 503 or 504; or a gRPC call with
	// UNAVAILABLE or RESOURCE_EXHAUSTED and the time of the next attempt.
	Unavailable
	// StaleConnection: a kept-alive connection was closed as the request was sent.
	StaleConnection
	// ServerError: the endpoint answered with any 5xx.
	ServerError
	// RefusedStream: the endpoint says that it has not processed the request
	// (HTTP/2 REFUSED_STREAM, or GOAWAY before its stream).
	RefusedStream
	// RateLimited: the answer has the field x-envoy-ratelimited, by which Envoy
	// says that a rate limit has refused the request (Envoy's envoy-ratelimited).
	RateLimited

	conditionCount
)

const conditionList = "connect_failure, reset, unavailable, stale_connection, server_error, refused_stream or rate_limited"

// String returns the name used in configuration.
func (c Condition) String() string {
	switch c {
	case NoCondition:
		return "none"
	case ConnectFailure:
		return "connect_failure"
	case Reset:
		return "reset"
	case Unavailable:
		return "unavailable"
	case StaleConnection:
		return "stale_connection"
	case ServerError:
		return "server_error"
	case RefusedStream:
		return "refused_stream"
	case RateLimited:
		return "rate_limited"
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (c Condition) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Condition) UnmarshalText(b []byte) error {
	for k := ConnectFailure; k < conditionCount; k++ {
		if k.String() == string(b) {
			*c = k
			return nil
		}
	}
	return fmt.Errorf("unknown retry condition %q; use %s", b, conditionList)
}

// Class says how safe another attempt is.
type Class uint8

// The classes.
const (
	// Never: another attempt cannot help or must not be made.
	Never Class = iota
	// IfUnsent: the endpoint cannot have processed any of the request, so
	// that any method may be tried again.
	IfUnsent
	// IfIdempotent: the endpoint may have processed the request.
	IfIdempotent
)

// String returns the word used in tests and logs.
func (c Class) String() string {
	switch c {
	case Never:
		return "never"
	case IfUnsent:
		return "if_unsent"
	case IfIdempotent:
		return "if_idempotent"
	}
	return "unknown"
}

// Why is the reason of a Decision.
type Why uint8

// The reasons. Each but Again and Observed means that there is no retry.
const (
	// Again: another attempt is to be made.
	Again Why = iota
	// AttemptsSpent: the request has had all its attempts.
	AttemptsSpent
	// NotRetryable: the failure's class is Never.
	NotRetryable
	// NotIdempotent: the endpoint may have processed the request, and its method is not idempotent.
	NotIdempotent
	// BodyNotKept: the request's body cannot be sent again.
	BodyNotKept
	// BudgetSpent: the destination's retry budget is empty.
	BudgetSpent
	// DeadlineTooNear: another attempt could not finish before the request's deadline.
	DeadlineTooNear
	// NotConfigured: retries are off, or the failure's condition is not listed.
	NotConfigured
	// RetryAfterTooLong: the endpoint asks for a longer wait than the policy allows.
	RetryAfterTooLong
	// PushedBack: the endpoint asks for no further attempt of the gRPC call.
	PushedBack
	// CallerRetries: the caller's sidecar repeats requests itself.
	CallerRetries
	// Observed: another attempt would be made, but the mode is observe.
	Observed

	whyCount
)

// String returns the word used in metrics, logs and the admin API.
func (w Why) String() string {
	switch w {
	case Again:
		return "again"
	case AttemptsSpent:
		return "attempts_spent"
	case NotRetryable:
		return "not_retryable"
	case NotIdempotent:
		return "not_idempotent"
	case BodyNotKept:
		return "body_not_kept"
	case BudgetSpent:
		return "budget_spent"
	case DeadlineTooNear:
		return "deadline_too_near"
	case NotConfigured:
		return "not_configured"
	case RetryAfterTooLong:
		return "retry_after_too_long"
	case PushedBack:
		return "pushed_back"
	case CallerRetries:
		return "caller_retries"
	case Observed:
		return "observed"
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (w Why) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// Whys returns every reason in the order of its value, for metrics.
func Whys() []Why {
	all := make([]Why, whyCount)
	for i := range all {
		all[i] = Why(i)
	}
	return all
}
