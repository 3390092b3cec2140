package retry

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParseRetryAfter(t *testing.T) {
	wall := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"0", 0, true},
		{"120", 2 * time.Minute, true},
		{"007", 7 * time.Second, true},
		{" \t5\t ", 5 * time.Second, true},
		{"9223372036", 9223372036 * time.Second, true},
		{"9223372037", math.MaxInt64, true},
		{"18446744073709551617", math.MaxInt64, true},
		{strings.Repeat("9", 64), math.MaxInt64, true},
		{strings.Repeat("9", 65), 0, false},
		{"", 0, false},
		{"  ", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5", 0, false},
		{"1 2", 0, false},
		{"0x10", 0, false},
		{"1s", 0, false},
		{"soon", 0, false},
		{"\x00", 0, false},

		{"Sun, 01 Mar 2026 12:00:30 GMT", 30 * time.Second, true},
		{"Sun, 01 Mar 2026 11:59:59 GMT", 0, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", math.MaxInt64, true},
		{"Sunday, 01-Mar-26 12:01:00 GMT", time.Minute, true},
		{"Wednesday, 01-Mar-73 12:00:00 GMT", 47*365*24*time.Hour + 12*24*time.Hour, true}, // 2073, not 1973
		{"Sunday, 01-Mar-99 12:00:00 GMT", 0, true},                                        // 1999, not 2099
		{"Sun Mar  1 12:00:01 2026", time.Second, true},
		{"Sun Mar 11 12:00:00 2026", 10 * 24 * time.Hour, true},

		{"Sun, 01 Mar 2026 12:00:30 UTC", 0, false},
		{"Sun, 01 Mar 2026 12:00:30 +0000", 0, false},
		{"Sun, 01 Mar 2026 12:00:30.5 GMT", 0, false},
		{"Sun, 01 Mar 2026 12:00:30,5 GMT", 0, false},
		{"Sun, 1 Mar 2026 12:00:30 GMT", 0, false},
		{"Sun, 01 Mar 2026 2:00:30 GMT", 0, false},
		{"Sun, 30 Feb 2026 12:00:30 GMT", 0, false},
		{"Sun, 01 Mar 2026 24:00:30 GMT", 0, false},
		{"Sunday, 01-Mar-26 2:01:00 GMT", 0, false},
		{"Sunday, 01-Mar-26 12:01:00.1 GMT", 0, false},
		{"Sun, 01-Mar-26 12:01:00 GMT", 0, false},
		{"Sun Mar 1 12:00:01 2026", 0, false},
		{"2026-03-01T12:00:30Z", 0, false},
	}
	for _, tt := range tests {
		got, ok := ParseRetryAfter([]byte(tt.in), wall)
		if got != tt.want || ok != tt.ok {
			t.Errorf("%q: %s, %t; want %s, %t", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzParseRetryAfter checks that the result is never negative and that dates
// agree with net/http, which accepts the same forms less strictly.
func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{
		"120", " 3\t", "99999999999999999999", "-1", "Sun, 01 Mar 2026 12:00:30 GMT",
		"Sunday, 01-Mar-26 12:01:00 GMT", "Sun Mar  1 12:00:01 2026", "Sun, 01 Mar 2026 12:00:30.5 GMT",
	} {
		f.Add([]byte(s), int64(1772366400))
	}
	f.Fuzz(func(t *testing.T, b []byte, unix int64) {
		wall := time.Unix(unix%(1<<36), 0)
		d, ok := ParseRetryAfter(b, wall)
		if d < 0 || !ok && d != 0 {
			t.Fatalf("%q: %s, %t", b, d, ok)
		}
		s := strings.Trim(string(b), " \t")
		if !ok || s[0] >= '0' && s[0] <= '9' {
			return
		}
		at, err := http.ParseTime(s)
		if err != nil {
			t.Fatalf("%q is taken, but net/http says %v", s, err)
		}
		// Two-digit years are read by different rules.
		if !strings.Contains(s, "-") && d != max(at.Sub(wall), 0) {
			t.Fatalf("%q: %s, want %s", s, d, at.Sub(wall))
		}
	})
}
