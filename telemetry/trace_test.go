package telemetry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

const (
	specTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	specSpan  = "00f067aa0ba902b7"
)

func TestParseTraceparentValid(t *testing.T) {
	for _, c := range []struct {
		in      string
		trace   string
		span    string
		flags   byte
		sampled bool
	}{
		// W3C Trace Context section 3.2.4.
		{"00-" + specTrace + "-" + specSpan + "-01", specTrace, specSpan, FlagSampled, true},
		{"00-" + specTrace + "-" + specSpan + "-00", specTrace, specSpan, 0, false},
		// Level 2: random.
		{"00-" + specTrace + "-" + specSpan + "-02", specTrace, specSpan, FlagRandom, false},
		{"00-" + specTrace + "-" + specSpan + "-03", specTrace, specSpan, FlagSampled | FlagRandom, true},
		// Unknown flags are ignored.
		{"00-" + specTrace + "-" + specSpan + "-ff", specTrace, specSpan, FlagSampled | FlagRandom, true},
		{"00-" + specTrace + "-" + specSpan + "-fc", specTrace, specSpan, 0, false},
		// Later versions: as far as they are known, longer if a dash follows.
		{"01-" + specTrace + "-" + specSpan + "-01", specTrace, specSpan, FlagSampled, true},
		{"cc-" + specTrace + "-" + specSpan + "-01-what-the-future-will-be-like", specTrace, specSpan, FlagSampled, true},
		{"fe-" + specTrace + "-" + specSpan + "-03-", specTrace, specSpan, FlagSampled, true},
		{"00-00000000000000000000000000000001-0000000000000001-00", "00000000000000000000000000000001", "0000000000000001", 0, false},
	} {
		got, ok := ParseTraceparent([]byte(c.in))
		if !ok {
			t.Errorf("%s: refused", c.in)
			continue
		}
		tr, sp := string(appendHex(nil, got.Trace[:])), string(appendHex(nil, got.Span[:]))
		if tr != c.trace || sp != c.span || got.Flags != c.flags || got.Sampled() != c.sampled || got.IsZero() {
			t.Errorf("%s: %s %s %02x sampled %v", c.in, tr, sp, got.Flags, got.Sampled())
		}
	}
}

func TestParseTraceparentInvalid(t *testing.T) {
	valid := "00-" + specTrace + "-" + specSpan + "-01"
	for name, in := range map[string]string{
		"empty":                         "",
		"only the version":              "00",
		"too short":                     valid[:54],
		"version 00 too long":           valid + "0",
		"version 00 with more":          valid + "-more",
		"later version without a dash":  "cc-" + valid[3:] + ".what",
		"version ff":                    "ff" + valid[2:],
		"version in upper case":         "CC" + valid[2:],
		"version not hexadecimal":       "0x" + valid[2:],
		"trace id zero":                 "00-" + strings.Repeat("0", 32) + "-" + specSpan + "-01",
		"parent id zero":                "00-" + specTrace + "-" + strings.Repeat("0", 16) + "-01",
		"trace id in upper case":        "00-" + strings.ToUpper(specTrace) + "-" + specSpan + "-01",
		"parent id in upper case":       "00-" + specTrace + "-" + strings.ToUpper(specSpan) + "-01",
		"trace id not hexadecimal":      "00-" + specTrace[:31] + "g-" + specSpan + "-01",
		"parent id not hexadecimal":     "00-" + specTrace + "-" + specSpan[:15] + "/-01",
		"flags not hexadecimal":         valid[:53] + ".0",
		"flags in upper case":           valid[:53] + "FF",
		"underscore after the version":  strings.Replace(valid, "-", "_", 1),
		"no dash after the trace id":    valid[:35] + "_" + valid[36:],
		"no dash after the parent id":   valid[:52] + "_" + valid[53:],
		"space before":                  " " + valid,
		"space after":                   valid + " ",
		"two values in one field":       valid + "," + valid,
		"trace id one digit short":      "00-" + specTrace[1:] + "-" + specSpan + "-01",
		"no digit where a NUL might do": valid[:3] + "\x00" + valid[4:],
	} {
		if got, ok := ParseTraceparent([]byte(in)); ok || got != (TraceContext{}) {
			t.Errorf("%s: %q taken as %+v", name, in, got)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add([]byte("00-" + specTrace + "-" + specSpan + "-01"))
	f.Add([]byte("cc-" + specTrace + "-" + specSpan + "-01-more"))
	f.Add([]byte("ff-" + specTrace + "-" + specSpan + "-00"))
	f.Add([]byte("00-" + strings.Repeat("0", 32) + "-" + specSpan + "-00"))
	form := regexp.MustCompile(`\A(?:00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|(?:0[1-9a-f]|[1-9a-e][0-9a-f]|f[0-9a-e])-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-(?s:.*))?)\z`)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := ParseTraceparent(b)
		// Bytes that are not UTF-8 would match nothing, so the tail is left out.
		want := form.Match(b[:min(len(b), TraceparentLen)]) &&
			(len(b) <= TraceparentLen || b[TraceparentLen] == '-' && string(b[:2]) != "00") &&
			string(b[3:35]) != strings.Repeat("0", 32) && string(b[36:52]) != strings.Repeat("0", 16)
		if ok != want {
			t.Fatalf("%q: %v, want %v", b, ok, want)
		}
		if !ok {
			return
		}
		out := AppendTraceparent(nil, c)
		if len(out) != TraceparentLen || !bytes.Equal(out[2:53], b[2:53]) {
			t.Fatalf("%q became %q", b, out)
		}
		if again, ok := ParseTraceparent(out); !ok || again != c {
			t.Fatalf("%q: %+v, then %+v", b, c, again)
		}
	})
}

func TestAppendTraceparentKeepsWhatIsThere(t *testing.T) {
	c, _ := ParseTraceparent([]byte("00-" + specTrace + "-" + specSpan + "-01"))
	c.Flags = 0xff // only the flags that version 00 knows are sent
	if got, want := string(AppendTraceparent([]byte("x: "), c)), "x: 00-"+specTrace+"-"+specSpan+"-03"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRandomWordsNeverMakeAZeroID(t *testing.T) {
	if NewSpanID(0) == (SpanID{}) || newTraceID(0, 0) == (TraceID{}) {
		t.Error("zero ids are not valid")
	}
	if got := NewSpanID(0x0102030405060708); got != (SpanID{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("%x", got)
	}
}

func TestHexOf(t *testing.T) {
	check := func(w uint32) {
		if got, want := string(binary.BigEndian.AppendUint64(nil, hexOf(w))), fmt.Sprintf("%08x", w); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for b := range uint32(256) {
		for shift := 0; shift < 32; shift += 8 {
			check(b << shift)
			check(^(b << shift))
		}
	}
	for range 10_000 {
		check(rand.Uint32())
	}
}

func TestRequestIDIsAVersion4UUID(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, c := range []struct {
		r1, r2 uint64
		want   string
	}{
		{0, 0, "00000000-0000-4000-8000-000000000000"},
		{^uint64(0), ^uint64(0), "ffffffff-ffff-4fff-bfff-ffffffffffff"},
		{0x0123456789abcdef, 0xfedcba9876543210, "01234567-89ab-4def-bedc-ba9876543210"},
	} {
		got := string(AppendRequestID([]byte("id="), c.r1, c.r2))
		if got != "id="+c.want {
			t.Errorf("%x %x: %s, want %s", c.r1, c.r2, got, c.want)
		}
		if !form.MatchString(got[3:]) || len(got[3:]) != RequestIDLen {
			t.Errorf("%s is not a UUID of version 4", got)
		}
	}
}
