package config

import (
	"testing"
	"time"
)

func TestNearest(t *testing.T) {
	keys := []string{"timeout", "connect_timeout", "retry", "outlier", "breaker", "consecutive_failures", "on"}
	for _, c := range []struct{ word, near, akin string }{
		{"timout", "timeout", ""},
		{"tiemout", "timeout", ""},
		{"TIMEOUT", "timeout", "timeout"},
		{"retry", "retry", "retry"},
		{"retries", "", "retry"},
		{"no", "", ""},
		{"consecutive_5xx", "", "consecutive_failures"},
		{"failures", "", ""},
		{"breakers", "breaker", "breaker"},
		{"xyz", "", ""},
		{"", "", ""},
		{"upstream_connect_timeout", "", "connect_timeout"},
	} {
		if got := nearest(c.word, keys); got != c.near && !(c.word == "no" && got == "on") {
			t.Errorf("nearest(%q) = %q, want %q", c.word, got, c.near)
		}
		if got := akin(c.word, keys); got != c.akin {
			t.Errorf("akin(%q) = %q, want %q", c.word, got, c.akin)
		}
	}
}

// slowDistance is the definition that editDistance computes.
func slowDistance(a, b string) int {
	if a == "" || b == "" {
		return len(a) + len(b)
	}
	cost := 1
	if a[len(a)-1] == b[len(b)-1] {
		cost = 0
	}
	la, lb := len(a), len(b)
	d := min(slowDistance(a[:la-1], b)+1, slowDistance(a, b[:lb-1])+1, slowDistance(a[:la-1], b[:lb-1])+cost)
	if la > 1 && lb > 1 && a[la-1] == b[lb-2] && a[la-2] == b[lb-1] {
		d = min(d, slowDistance(a[:la-2], b[:lb-2])+1)
	}
	return d
}

func TestEditDistance(t *testing.T) {
	words := []string{"", "a", "ab", "ba", "abc", "acb", "cab", "xyzzy", "xyyzz", "retry", "rtery", "on", "no"}
	for _, a := range words {
		for _, b := range words {
			if got, want := editDistance(a, b), slowDistance(a, b); got != want {
				t.Errorf("editDistance(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		time.Hour + time.Second: "1h0m1s", 20 * time.Minute: "20m", 10 * time.Second: "10s",
		1500 * time.Millisecond: "1.5s", 250 * time.Microsecond: "250µs", 100 * time.Hour: "100h",
	} {
		got := formatDuration(d)
		if got != want {
			t.Errorf("formatDuration(%v) = %s, want %s", d, got, want)
		}
		if back, err := time.ParseDuration(got); err != nil || back != d {
			t.Errorf("%s is read as %v, %v", got, back, err)
		}
	}
}

func TestFixDuration(t *testing.T) {
	for in, want := range map[string]string{
		"5 s": "5s", "5sec": "5s", "10 Seconds": "10s", "2 min": "2m", "3HRS": "3h", "2d": "48h", "1 day": "24h",
		"100 msec": "100ms", "7": "7s", "0.5d": "12h", "": "", "fast": "", "d": "", "1 week": "", "99999999d": "",
	} {
		if got := fixDuration(in); got != want {
			t.Errorf("fixDuration(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	if got := joinField("a", "[0].b"); got != "a[0].b" {
		t.Error(got)
	}
	if got := joinKey(joinKey("", "policies"), `we."ird[0]`); got != `policies."we.\"ird[0]"` {
		t.Error(got)
	}
	for path, want := range map[string]string{
		"a": "", "a.b": "a", "a.b[3]": "a.b", "a.b[3].c": "a.b[3]", "policies.*": "policies", `a."x.y"`: "a",
		`a."x.y".b`: `a."x.y"`, `a."x\".y"`: "a", `"x.y"`: "",
	} {
		if got, ok := parentPath(path); !ok || got != want {
			t.Errorf("parentPath(%s) = %q, %v; want %q", path, got, ok, want)
		}
	}
	if _, ok := parentPath(""); ok {
		t.Error("the root has a parent")
	}
	for _, c := range []struct {
		path, root string
		want       bool
	}{{"a.b", "a", true}, {"a", "a", true}, {"ab", "a", false}, {"a[0]", "a", true}, {"a", "a.b", false}, {"x", "", true}} {
		if got := within(c.path, c.root); got != c.want {
			t.Errorf("within(%s, %s) = %v", c.path, c.root, got)
		}
	}
}
