package fault

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Shape is how the delays of a fault are spread.
type Shape uint8

// The shapes.
const (
	Fixed Shape = iota
	Uniform
	Exponential
)

// Delay is a distribution of delays. The zero value is none.
type Delay struct {
	Shape Shape
	A     time.Duration // the delay, the least one, or the mean
	B     time.Duration // of Uniform: the longest
}

// ParseDelay reads "200ms", "100ms..500ms" or "exp 200ms"; nothing is none.
func ParseDelay(s string) (Delay, error) {
	if s == "" {
		return Delay{}, nil
	}
	wrong := func() (Delay, error) {
		return Delay{}, fmt.Errorf("is %.40q; write a time such as 200ms, a span such as 100ms..500ms, or a mean such as exp 200ms, at most 1m", s)
	}
	one := func(s string) (time.Duration, bool) {
		d, err := time.ParseDuration(strings.TrimSpace(s))
		return d, err == nil && d > 0 && d <= MaxDelay
	}
	if mean, ok := strings.CutPrefix(s, "exp "); ok {
		d, ok := one(mean)
		if !ok {
			return wrong()
		}
		return Delay{Shape: Exponential, A: d}, nil
	}
	if low, high, ok := strings.Cut(s, ".."); ok {
		b, ok := one(high)
		a, low := one(low)
		if !ok || !low || a > b {
			return wrong()
		}
		return Delay{Shape: Uniform, A: a, B: b}, nil
	}
	d, ok := one(s)
	if !ok {
		return wrong()
	}
	return Delay{A: d}, nil
}

// String writes what ParseDelay reads.
func (d Delay) String() string {
	switch {
	case d.A == 0:
		return ""
	case d.Shape == Uniform:
		return d.A.String() + ".." + d.B.String()
	case d.Shape == Exponential:
		return "exp " + d.A.String()
	}
	return d.A.String()
}

// Of returns the delay that a uniformly random word stands for, at most
// MaxDelay.
func (d Delay) Of(word uint64) time.Duration {
	switch d.Shape {
	case Uniform:
		return d.A + time.Duration(unit(word)*float64(d.B-d.A))
	case Exponential:
		return min(time.Duration(-math.Log(1-unit(word))*float64(d.A)), MaxDelay)
	}
	return d.A
}

// Abort is the answer in the endpoint's place. The zero value is none.
type Abort struct {
	Status int   // of HTTP; 0 for a gRPC code
	Code   uint8 // of gRPC
}

// codes are the names of gRPC's status codes by number (gRPC, Status codes and
// their use).
var codes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

const minStatus, maxStatus = 400, 599

// ParseCode reads a gRPC code such as "UNAVAILABLE" or "grpc 14"; nothing is 0,
// none.
func ParseCode(s string) (uint8, error) {
	if s == "" {
		return 0, nil
	}
	if number, ok := strings.CutPrefix(s, "grpc "); ok {
		n, err := strconv.ParseUint(number, 10, 8)
		if err == nil && n > 0 && int(n) < len(codes) {
			return uint8(n), nil
		}
	}
	for i, name := range codes {
		if i > 0 && name == s {
			return uint8(i), nil
		}
	}
	return 0, fmt.Errorf("is %.40q; write a gRPC code such as UNAVAILABLE or grpc 14", s)
}

// ParseAbort reads a status such as "503", or what ParseCode reads.
func ParseAbort(s string) (Abort, error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil && n >= minStatus && n <= maxStatus {
		return Abort{Status: int(n)}, nil
	}
	if code, err := ParseCode(s); err == nil {
		return Abort{Code: code}, nil
	}
	return Abort{}, fmt.Errorf("is %.40q; write a status from 400 to 599, or a gRPC code such as UNAVAILABLE or grpc 14", s)
}

// String writes what ParseAbort reads.
func (a Abort) String() string {
	switch {
	case a.Status != 0:
		return strconv.Itoa(a.Status)
	case a.Code != 0:
		return codes[a.Code]
	}
	return ""
}

var units = [...]struct {
	name  string
	bytes int64
}{{"KiB/s", 1 << 10}, {"MiB/s", 1 << 20}, {"GiB/s", 1 << 30}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"B/s", 1}}

// ParseRate reads a whole number of bytes a second with its unit, such as
// "64KiB/s"; nothing is 0, none.
func ParseRate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil || n > uint64(MaxRate/u.bytes) || int64(n)*u.bytes < MinRate {
			break
		}
		return int64(n) * u.bytes, nil
	}
	return 0, fmt.Errorf("is %.40q; write a whole number with a unit (B/s, kB/s, KiB/s, MB/s, MiB/s, GB/s, GiB/s), such as 64KiB/s, from 16B/s", s)
}
