package telemetry

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestReferenceIsCurrent(t *testing.T) {
	var b bytes.Buffer
	if err := WriteReference(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "../docs/reference/metrics.md", b.Bytes())
}

// The table is written by hand; these are the rules of Prometheus and our own.
func TestTableFollowsTheRules(t *testing.T) {
	seen := map[string]bool{}
	for id := range table {
		m := &table[id]
		if m.name == "" || seen[m.name] {
			t.Errorf("metric %d: name %q is empty or taken", id, m.name)
		}
		seen[m.name] = true
		if !strings.HasPrefix(m.name, "outrigger_") || strings.Trim(m.name, "abcdefghijklmnopqrstuvwxyz_0123456789") != "" {
			t.Errorf("%s: not outrigger_ and lower-case words and digits", m.name)
		}
		if strings.HasSuffix(m.name, "_total") != (m.typ == counter) {
			t.Errorf("%s: _total belongs to counters and to nothing else, and this is a %s", m.name, m.typ)
		}
		if strings.HasSuffix(m.name, "_seconds") != (m.unit == "s") {
			t.Errorf("%s: _seconds and the unit %q do not agree", m.name, m.unit)
		}
		if strings.HasSuffix(strings.TrimSuffix(m.name, "_total"), "_bytes") != (m.unit == "By") {
			t.Errorf("%s: _bytes and the unit %q do not agree", m.name, m.unit)
		}
		if !strings.HasSuffix(m.help, ".") || strings.ContainsAny(m.help, "|\n") {
			t.Errorf("%s: help %q is not a sentence that fits a table", m.name, m.help)
		}
		for _, name := range m.labelNames() {
			if name == "le" || name == "quantile" || strings.HasPrefix(name, "__") {
				t.Errorf("%s: label %s is Prometheus' own", m.name, name)
			}
		}
	}
}

// failingWriter fails after n bytes.
type failingWriter struct{ n int }

var errFull = errors.New("disk full")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteReferenceSaysWhenItFails(t *testing.T) {
	for _, n := range []int{0, 1200} {
		if err := WriteReference(&failingWriter{n}); !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}
