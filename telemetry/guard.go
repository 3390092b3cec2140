package telemetry

// Guard is a guard in observe mode that would have acted.
type Guard uint8

// The guards.
const (
	WouldEject     Guard = iota // outlier detection would have ejected an endpoint
	WouldBreak                  // the breaker would have rejected a request
	WouldLimit                  // a limit would have rejected a request
	WouldRetry                  // another attempt would have been made
	WouldDeny                   // an authorization rule would have refused the caller
	WouldAvoid                  // active checks would have taken an endpoint out
	WouldRateLimit              // a rate limit would have rejected a request
	WouldCaution                // caution would have given an endpoint less traffic
	WouldThrottle               // admission control would have held a request back
	WouldHedge                  // another attempt would have been started beside a slow one
	guardKindCount
)

var guardNames = [guardKindCount]string{"ejected", "broken", "limited", "retried", "denied", "unhealthy", "rate_limited", "cautious", "throttled", "hedged"}

// String returns the label value.
func (g Guard) String() string { return nameOf(guardNames[:], int(g)) }
