package telemetry

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// decoded returns the text that encoding/json reads from what appendJSON wrote.
func decoded(t *testing.T, b []byte) string {
	t.Helper()
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("%v: %q", err, b)
	}
	return s
}

func TestAppendJSONEscapes(t *testing.T) {
	for in, want := range map[string]string{
		"":              `""`,
		"plain é 漢 😀":   `"plain é 漢 😀"`,
		`"\`:            `"\"\\"`,
		"\n\r\t":        `"\n\r\t"`,
		"\x00\x1f\x7f":  `"\u0000\u001f\u007f"`,
		"a\xffb":        `"a\ufffdb"`,
		"\xc3":          `"\ufffd"`,
		"\xe6\xbc":      `"\ufffd\ufffd"`,
		"\xed\xa0\x80x": `"\ufffd\ufffd\ufffdx"`, // a surrogate
		"\xc0\x80":      `"\ufffd\ufffd"`,        // overlong
		"\ufffd":        "\"\ufffd\"",            // one that was there is not touched
		"</script>&":    `"</script>&"`,
	} {
		if got := string(appendJSON(nil, in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
		if got := string(appendJSON(nil, []byte(in))); got != want {
			t.Errorf("%q as bytes: %s, want %s", in, got, want)
		}
	}
}

func TestAppendJSONCuts(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"as long as may be":        {strings.Repeat("a", fieldBytes), strings.Repeat("a", fieldBytes)},
		"one byte more":            {strings.Repeat("a", fieldBytes+1), strings.Repeat("a", fieldBytes) + "…"},
		"through two bytes":        {strings.Repeat("a", fieldBytes-1) + "é", strings.Repeat("a", fieldBytes-1) + "…"},
		"through three bytes":      {strings.Repeat("a", fieldBytes-2) + "漢", strings.Repeat("a", fieldBytes-2) + "…"},
		"through four bytes":       {strings.Repeat("a", fieldBytes-3) + "😀", strings.Repeat("a", fieldBytes-3) + "…"},
		"after a whole one":        {strings.Repeat("a", fieldBytes-2) + "é" + "b", strings.Repeat("a", fieldBytes-2) + "é…"},
		"far from a bad byte":      {"\xff" + strings.Repeat("a", fieldBytes), "\ufffd" + strings.Repeat("a", fieldBytes-1) + "…"},
		"escapes count as a byte":  {strings.Repeat("\n", fieldBytes+9), strings.Repeat("\n", fieldBytes) + "…"},
		"bad bytes count as bytes": {strings.Repeat("\xff", 2*fieldBytes), strings.Repeat("\ufffd", fieldBytes-utf8.UTFMax+1) + "…"},
	} {
		if got := decoded(t, appendJSON(nil, c.in)); got != c.want {
			t.Errorf("%s: %d bytes, want %d; ends in %q, want %q", name, len(got), len(c.want), got[max(len(got)-9, 0):], c.want[max(len(c.want)-9, 0):])
		}
	}
}

func TestRecordIsBounded(t *testing.T) {
	long := strings.Repeat("\x00", 1<<20)
	r := &Record{
		RequestID: []byte(long), Listener: long, Route: long, Cluster: long, Endpoint: long, Method: []byte(long), Authority: []byte(long),
		Path: []byte(long), Protocol: long, Detail: long, Rule: long, DownstreamID: long, UpstreamID: long, LocalID: long,
	}
	for range 100 {
		r.AddAttempt(Attempt{Endpoint: long})
	}
	line := appendRecord(nil, r, true)
	if limit := (14 + MaxAttempts) * (6*fieldBytes + 100); len(line) > limit || !json.Valid(line) {
		t.Errorf("%d bytes, want at most %d of JSON", len(line), limit)
	}
	r.AttemptCount = -1
	if line := appendRecord(nil, r, true); !json.Valid(line) || bytes.Contains(line, []byte("attempts")) {
		t.Error("a negative count of attempts")
	}
}

// FuzzLine checks that a record of any bytes is one line of JSON, which says
// what was in the record.
func FuzzLine(f *testing.F) {
	f.Add([]byte("/items?a=b"), []byte("GET"), "a detail", byte(0), uint16(200))
	f.Add([]byte("/\"\\\n\x00\xff\xc3\x28"), []byte("\u2028\u2029"), "\xed\xa0\x80", byte(200), uint16(0))
	f.Add([]byte(strings.Repeat("é", fieldBytes)), []byte("?"), strings.Repeat("\xf0\x9f\x98", 2000), byte(3), uint16(65535))
	f.Fuzz(func(t *testing.T, path, method []byte, detail string, reason byte, status uint16) {
		r := fullRecord()
		r.Path, r.Method, r.Authority, r.Detail, r.Rule, r.Reason, r.Status = path, method, path, detail, detail, outcome.Reason(reason), status
		r.AddAttempt(Attempt{Endpoint: detail, Reason: outcome.Reason(reason), Status: status})
		line := appendRecord([]byte("before"), r, true)
		if !bytes.HasPrefix(line, []byte("before{")) {
			t.Fatalf("what was there is gone: %q", line)
		}
		line = line[len("before"):]
		if bytes.IndexByte(line, '\n') != len(line)-1 || !utf8.Valid(line) {
			t.Fatalf("not one line of UTF-8: %q", line)
		}
		var o struct {
			Path, Method, Authority, Detail, Rule, Reason string
			Status                                        uint16
			Attempts                                      []struct{ Endpoint string }
		}
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		for _, c := range []struct{ name, in, got string }{
			{"path", string(path), o.Path},
			{"authority", string(path), o.Authority},
			{"method", string(method), o.Method},
			{"detail", detail, o.Detail},
			{"rule", detail, o.Rule},
			{"endpoint", detail, o.Attempts[2].Endpoint},
		} {
			if len(c.in) <= fieldBytes {
				// Ranging over a string replaces each bad byte by U+FFFD.
				if want := string([]rune(c.in)); c.got != want {
					t.Errorf("%s: %q, want %q", c.name, c.got, want)
				}
				continue
			}
			// Cut: what is there is the beginning, at most one rune short of the bound.
			body, ok := strings.CutSuffix(c.got, "…")
			whole := string([]rune(c.in[:fieldBytes]))
			if !ok || !strings.HasPrefix(whole, body) || len([]rune(whole))-len([]rune(body)) >= utf8.UTFMax {
				t.Errorf("%s: cut to %d of %d runes", c.name, len([]rune(body)), len([]rune(whole)))
			}
		}
		if o.Status != status || o.Reason == "" {
			t.Errorf("status %d, reason %q", o.Status, o.Reason)
		}
	})
}
