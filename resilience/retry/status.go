package retry

import (
	"fmt"
	"slices"
	"strings"
)

// GRPCStatus is how a gRPC call ended, by its number. 0 is OK and, in a
// Question, that the request is no gRPC call or has no status.
type GRPCStatus uint8

// The statuses of which the machine knows something.
const (
	GRPCResourceExhausted GRPCStatus = 8
	GRPCUnavailable       GRPCStatus = 14
)

// grpcNames are gRPC's own, by number ("Status codes and their use in gRPC").
var grpcNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED",
}

const statusAdvice = "use gRPC's own, such as UNAVAILABLE, RESOURCE_EXHAUSTED or ABORTED"

// String returns gRPC's name.
func (s GRPCStatus) String() string {
	if int(s) < len(grpcNames) {
		return grpcNames[s]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (s GRPCStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler for all that is a failure.
// Case does not matter.
func (s *GRPCStatus) UnmarshalText(b []byte) error {
	for k, name := range grpcNames {
		if k > 0 && strings.EqualFold(name, string(b)) {
			*s = GRPCStatus(k)
			return nil
		}
	}
	return fmt.Errorf("unknown gRPC status %q; %s", b, statusAdvice)
}

func validateStatuses(list []int, add func(field, problem string)) {
	for i, s := range list {
		field := fmt.Sprintf("statuses[%d]", i)
		switch {
		case s < 400 || s > 599:
			add(field, fmt.Sprintf("is %d, which is no failure; use 400 to 599", s))
		case slices.Contains(list[:i], s):
			add(field, fmt.Sprintf("%d is listed twice; remove one", s))
		}
	}
}

// Asks reports whether an answer that is no failure of the endpoint's may be
// followed by another attempt all the same: its status is listed, or it says that
// a rate limit has refused the request and the policy listens.
func (c *Config) Asks(status int, limited bool) bool {
	return slices.Contains(c.Statuses, status) || limited && c.Listens()
}

// Listens reports whether x-envoy-ratelimited matters.
func (c *Config) Listens() bool { return slices.Contains(c.On, RateLimited) }

// Pushback is what an endpoint says about another attempt of a gRPC call in
// grpc-retry-pushback-ms (gRFC A6).
type Pushback uint8

// The kinds of pushback.
const (
	// NoPushback: the endpoint says nothing.
	NoPushback Pushback = iota
	// PushbackWait: another attempt is welcome after Question.RetryAfter.
	PushbackWait
	// PushbackStop: there shall be no other attempt.
	PushbackStop
)
