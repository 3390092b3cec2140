package retry

import (
	"math"
	"strings"
	"time"
)

// maxRetryAfter bounds what ParseRetryAfter reads; the longest valid form,
// "Wednesday, 09-Nov-94 08:49:37 GMT", has 33 bytes.
const maxRetryAfter = 64

// ParseRetryAfter reads the value of a Retry-After field (RFC 9110 section
// 10.2.3): a number of seconds, or an HTTP-date, of which it returns the time
// left from wall, 0 if it has passed. Numbers too large for a Duration give
// the largest one. It reports false for anything else. The form in seconds
// does not allocate.
func ParseRetryAfter(b []byte, wall time.Time) (time.Duration, bool) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	if len(b) == 0 || len(b) > maxRetryAfter {
		return 0, false
	}
	if b[0] >= '0' && b[0] <= '9' {
		return seconds(b)
	}
	at, ok := date(string(b), wall)
	if !ok {
		return 0, false
	}
	return max(at.Sub(wall), 0), true
}

// ParsePushback reads the value of grpc-retry-pushback-ms: a 32-bit number of
// milliseconds. One that is negative or no number asks for no further attempt
// (gRFC A6, Pushback). It does not allocate.
func ParsePushback(b []byte) (time.Duration, Pushback) {
	if len(b) == 0 {
		return 0, PushbackStop
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, PushbackStop
		}
		if n = n*10 + int64(c-'0'); n > math.MaxInt32 {
			return 0, PushbackStop
		}
	}
	return time.Duration(n) * time.Millisecond, PushbackWait
}

func seconds(b []byte) (time.Duration, bool) {
	const most = math.MaxInt64 / int64(time.Second)
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n <= most {
			n = n*10 + int64(c-'0') // below 10*most+10, far from overflow
		}
	}
	if n > most {
		return math.MaxInt64, true
	}
	return time.Duration(n) * time.Second, true
}

// date reads the three forms of an HTTP-date (RFC 9110 section 5.6.7).
func date(s string, wall time.Time) (time.Time, bool) {
	for i := range len(s) {
		// time.Parse would take a fraction of a second, which the forms do not have.
		if s[i] == '.' || s[i] == ',' && i > len("Wednesday") {
			return time.Time{}, false
		}
	}
	const imf, asctime = "Mon, 02 Jan 2006 15:04:05 GMT", "Mon Jan _2 15:04:05 2006"
	if at, err := time.Parse(imf, s); err == nil && len(s) == len(imf) {
		return at, true
	}
	if at, err := time.Parse(asctime, s); err == nil && len(s) == len(asctime) {
		return at, true
	}
	const rfc850 = "Monday, 02-Jan-06 15:04:05 GMT"
	at, err := time.Parse(rfc850, s)
	if err != nil || len(s)-strings.IndexByte(s, ',') != len(rfc850)-len("Monday") {
		return time.Time{}, false
	}
	// A year that looks more than 50 years ahead is the latest past one with
	// the same digits; and the other way round, as time.Parse pivots at 1969.
	year := wall.UTC().Year()
	switch {
	case at.Year() > year+50:
		at = at.AddDate(-100, 0, 0)
	case at.Year() <= year-50:
		at = at.AddDate(100, 0, 0)
	}
	return at, true
}
