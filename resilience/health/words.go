package health

import (
	"fmt"
	"strconv"
	"strings"
)

// Initial is what an endpoint is taken for before its first check.
type Initial uint8

// The values of Initial.
const (
	InitialHealthy Initial = iota
	InitialUnhealthy
)

// MarshalText implements encoding.TextMarshaler.
func (i Initial) MarshalText() ([]byte, error) {
	return []byte(word(i, "healthy", "unhealthy")), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *Initial) UnmarshalText(b []byte) error {
	switch string(b) {
	case "healthy":
		*i = InitialHealthy
	case "unhealthy":
		*i = InitialUnhealthy
	default:
		return fmt.Errorf("unknown word %q; use healthy or unhealthy", b)
	}
	return nil
}

// Statuses is a range of HTTP status codes, both ends included.
type Statuses struct{ From, To uint16 }

// String returns the range as it is written in a file.
func (s Statuses) String() string {
	if s.From == s.To {
		return strconv.Itoa(int(s.From))
	}
	if s.From%100 == 0 && s.To == s.From+99 {
		return strconv.Itoa(int(s.From/100)) + "xx"
	}
	return fmt.Sprintf("%d-%d", s.From, s.To)
}

// MarshalText implements encoding.TextMarshaler.
func (s Statuses) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: 204, 200-299 or 2xx.
func (s *Statuses) UnmarshalText(b []byte) error {
	text := string(b)
	if class, ok := strings.CutSuffix(text, "xx"); ok && len(class) == 1 && class[0] >= '1' && class[0] <= '5' {
		from := uint16(class[0]-'0') * 100
		*s = Statuses{from, from + 99}
		return nil
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	from, err1 := statusCode(first)
	to, err2 := statusCode(last)
	if err1 != nil || err2 != nil || from > to {
		return fmt.Errorf("no status code from 100 to 599; write one such as 204, 200-299 or 2xx")
	}
	*s = Statuses{from, to}
	return nil
}

func statusCode(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < 100 || n > 599 || len(text) != 3 {
		return 0, strconv.ErrRange
	}
	return uint16(n), nil
}

// State is where an endpoint stands by its checks.
type State uint8

// The states.
const (
	// Unknown: no check has ended yet.
	Unknown State = iota
	// Healthy: it passes.
	Healthy
	// Unhealthy: it fails.
	Unhealthy
)

// String returns the word used in logs, metrics and the admin API.
func (s State) String() string { return word(s, "unknown", "healthy", "unhealthy") }

// Cause is how one check ended.
type Cause uint8

// The causes. All but Passed and Local are failures.
const (
	// Passed: the endpoint answered as it should.
	Passed Cause = iota
	// Connect: no connection could be made.
	Connect
	// Identity: the TLS handshake failed, or the peer had another identity.
	Identity
	// Timeout: there was no answer in time.
	Timeout
	// Closed: the connection ended or was reset before the answer was whole.
	Closed
	// Status: the answer was whole, but its status does not pass.
	Status
	// NotServing: the endpoint says by gRPC that it is not serving.
	NotServing
	// NoService: there is no gRPC health service, or it does not know the name.
	NoService
	// Protocol: the answer is not what the protocol allows.
	Protocol
	// Unexpected: the bytes that came are not those that were expected.
	Unexpected
	// Local: this proxy could not make the check, for want of a descriptor, a
	// certificate or a free connection. It says nothing about the endpoint.
	Local

	// CauseCount is the number of causes.
	CauseCount
)

// String returns the word used in logs, metrics and the admin API.
func (c Cause) String() string {
	return word(c, "passed", "connect", "identity", "timeout", "closed", "status", "not_serving", "no_service", "protocol", "unexpected", "local")
}

// Result is how one check ended.
type Result struct {
	Cause  Cause
	Detail string // for people: the status or the error; may be empty
}

func word[T ~uint8](v T, words ...string) string {
	if int(v) < len(words) {
		return words[v]
	}
	return "invalid"
}
