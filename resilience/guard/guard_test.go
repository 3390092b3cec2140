package guard

import (
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestModeText(t *testing.T) {
	pattern := regexp.MustCompile(Mode(0).Pattern())
	for _, c := range []struct {
		text string
		mode Mode
		back string
	}{
		{"", Enforce, "enforce"},
		{"enforce", Enforce, "enforce"},
		{"observe", Observe, "observe"},
		{"25%", 7500, "25%"},
		{"0.01%", 9999, "0.01%"},
		{"99.99%", 1, "99.99%"},
		{"0.5%", 9950, "0.5%"},
		{"12.50%", 8750, "12.5%"},
	} {
		var m Mode = 77
		if err := m.UnmarshalText([]byte(c.text)); err != nil || m != c.mode {
			t.Errorf("%q is %d, %v; want %d", c.text, m, err, c.mode)
		}
		if got := m.String(); got != c.back {
			t.Errorf("%q comes back as %q, not %q", c.text, got, c.back)
		}
		if strings.HasSuffix(c.text, "%") != m.Partial() || m.Partial() && !pattern.MatchString(c.text) {
			t.Errorf("%q: partial is %v, pattern %v", c.text, m.Partial(), pattern.MatchString(c.text))
		}
	}
	for text, want := range map[string]string{
		"25":      "25%",
		"0%":      "use observe",
		"0.00%":   "use observe",
		"100%":    "use enforce",
		"250%":    "use enforce",
		"1.234%":  "two decimals",
		"-5%":     "unknown mode",
		"+5%":     "unknown mode",
		"1e1%":    "unknown mode",
		"NaN%":    "unknown mode",
		"%":       "unknown mode",
		".%":      "unknown mode",
		"Observe": "unknown mode",
		"25 %":    "unknown mode",
	} {
		m := Mode(77)
		if err := m.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || m != 77 {
			t.Errorf("%q: %v, %d; want an error with %q", text, err, m, want)
		}
		if pattern.MatchString(text) {
			t.Errorf("the pattern takes %q", text)
		}
	}
}

func TestEveryModeComesBack(t *testing.T) {
	for m := Enforce; m <= Observe; m++ {
		var back Mode
		if err := back.UnmarshalText([]byte(m.String())); err != nil || back != m || Percent(m.Share()) != m {
			t.Fatalf("%d is written %q and comes back as %d, %v; its share of %v%% as %d", m, m, back, err, m.Share(), Percent(m.Share()))
		}
	}
	if (Observe + 1).Known() || !Observe.Known() {
		t.Error("Known does not end with Observe")
	}
	for p, want := range map[float64]Mode{-1: Observe, 0: Observe, math.Inf(-1): Observe, 100: Enforce, 1000: Enforce, math.Inf(1): Enforce} {
		if got := Percent(p); got != want {
			t.Errorf("Percent(%v) is %v", p, got)
		}
	}
	if Percent(math.NaN()) != Observe {
		t.Error("no number at all is more than nobody")
	}
}

// A mode acts for exactly as many of the draws as it says, and who is acted upon
// by one is by all that act for as many or more.
func TestActs(t *testing.T) {
	for _, m := range []Mode{Enforce, Percent(0.01), Percent(25), Percent(99.99), Observe} {
		n := 0
		for d := range Draw(parts) {
			if m.Acts(d) {
				n++
			} else if d > 0 && m.Acts(d-1) {
				t.Fatalf("%v acts for %d and not for %d", m, d-1, d)
			}
		}
		if float64(n) != m.Share()*100 {
			t.Errorf("%v acts for %d of 10,000", m, n)
		}
		if m.Acts(0) != (m == Enforce) || m.Acts(Strictest) != (m != Observe) {
			t.Errorf("%v does not hold at the ends", m)
		}
	}
}

func TestDrawOf(t *testing.T) {
	if DrawOf(0) != 0 || DrawOf(math.MaxUint64) != Strictest {
		t.Fatal("the draws do not begin with 0 and end with Strictest")
	}
	r := rand.New(rand.NewPCG(1, 2))
	m, acted := Percent(25), 0
	const n = 100000
	for range n {
		if m.Acts(DrawOf(r.Uint64())) {
			acted++
		}
	}
	if acted < n*24/100 || acted > n*26/100 {
		t.Errorf("25%% acted for %d of %d", acted, n)
	}
}

func FuzzMode(f *testing.F) {
	for _, s := range []string{"enforce", "observe", "", "25%", "0.01%", "100%", "1e3%", "025%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var m, back Mode
		if m.UnmarshalText([]byte(s)) != nil {
			return
		}
		if err := back.UnmarshalText([]byte(m.String())); err != nil || back != m || !m.Known() {
			t.Fatalf("%q is %d, written %q, and comes back as %d, %v", s, m, m, back, err)
		}
	})
}
