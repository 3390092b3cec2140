package scenario

import (
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMistakes: every mistake at once, at its place, with a remedy.
func TestMistakes(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(filepath.Base(path), text)
		var problems config.Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s: %v", path, err)
			continue
		}
		golden := strings.TrimSuffix(path, ".yaml") + ".txt"
		got := problems.Error() + "\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", path, err, got, want)
		}
	}
}

const least = `
services: {api: {service_time: constant 10ms}}
arrivals: [{to: api, rate: 100}]
`

func TestDefaults(t *testing.T) {
	s, err := Parse("x.yaml", []byte(least))
	if err != nil {
		t.Fatal(err)
	}
	api, a := s.Services["api"], s.Arrivals[0]
	if s.Seed != 1 || s.Duration != time.Minute || api.Endpoints != 1 || api.Queue != 1000 || api.Network != 500*time.Microsecond || a.Proxies != 1 || a.Process != Poisson {
		t.Errorf("%+v", s)
	}
	if r := s.Runs(); len(r) != 1 || r[0].Name != "" || s.Entry() != "api" {
		t.Errorf("%+v", r)
	}
	p := config.PolicyOf(s.Policies, "api")
	m := Machines(&p)
	if m.Retry == nil || m.Outlier == nil || m.Breaker != nil || m.ConnectTimeout != time.Second {
		t.Errorf("%+v", m)
	}
}

func TestPoliciesAreThoseOfAConfiguration(t *testing.T) {
	s, err := Parse("x.yaml", []byte(least+`
policies:
  "*": {timeout: 3s, retry: {attempts: 3}}
  api: {breaker: {}, outlier: off}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := config.PolicyOf(s.Policies, "api")
	if p.Timeout != 3*time.Second || p.Retry.Attempts != 3 || p.Breaker == nil || p.Outlier != nil {
		t.Errorf("%+v", p)
	}
}

// Each text comes back as it was written, and the draws have the shape it says.
func TestDistributions(t *testing.T) {
	for _, c := range []struct {
		text           string
		mean, p50, p99 time.Duration // 0: not looked at
	}{
		{"constant 10ms", 10 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond},
		{"exponential 10ms", 10 * time.Millisecond, 6931 * time.Microsecond, 46052 * time.Microsecond},
		{"uniform 5ms 15ms", 10 * time.Millisecond, 10 * time.Millisecond, 14900 * time.Microsecond},
		{"lognormal p50 10ms p99 80ms", 14910 * time.Microsecond, 10 * time.Millisecond, 80 * time.Millisecond},
		{"lognormal p50 10ms p99 10ms", 10 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond},
		{"pareto min 1ms p99 50ms", 0, 1802 * time.Microsecond, 50 * time.Millisecond},
		{"pareto min 1ms p99 1ms", time.Millisecond, time.Millisecond, time.Millisecond},
		{"bimodal 10ms 25% 1s", 257500 * time.Microsecond, 10 * time.Millisecond, time.Second},
	} {
		var d Distribution
		if err := d.UnmarshalText([]byte(c.text)); err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if d.String() != c.text {
			t.Errorf("%s comes back as %s", c.text, d)
		}
		r := replay.NewRandom(1)
		const n = 200_000
		sum, below50, below99 := 0.0, 0, 0
		for range n {
			x := d.Draw(r.Fraction(), r.Fraction())
			sum += float64(x)
			if x <= c.p50 {
				below50++
			}
			if x <= c.p99 {
				below99++
			}
		}
		if c.mean > 0 {
			for what, got := range map[string]float64{"mean drawn": sum / n, "Mean": float64(d.Mean())} {
				if math.Abs(got/float64(c.mean)-1) > .02 {
					t.Errorf("%s: %s is %v, want %v", c.text, what, time.Duration(got), c.mean)
				}
			}
		}
		if d.Kind != Constant && d.A != d.B && d.Kind != Bimodal && math.Abs(float64(below50)/n-.5) > .01 {
			t.Errorf("%s: %d of %d are up to %v", c.text, below50, n, c.p50)
		}
		if d.Kind != Constant && d.A != d.B && d.Kind != Bimodal && math.Abs(float64(below99)/n-.99) > .01 {
			t.Errorf("%s: %d of %d are up to %v", c.text, below99, n, c.p99)
		}
	}
}

func TestTextsThatAreWrong(t *testing.T) {
	for text, into := range map[string]interface{ UnmarshalText([]byte) error }{
		"":                            &Distribution{},
		"normal 10ms":                 &Distribution{},
		"constant":                    &Distribution{},
		"constant 10":                 &Distribution{},
		"constant -1s":                &Distribution{},
		"constant 25h":                &Distribution{},
		"uniform 3s 1s":               &Distribution{},
		"lognormal 10ms 20ms":         &Distribution{},
		"lognormal p50 0s p99 1s":     &Distribution{},
		"bimodal 1ms 101% 1s":         &Distribution{},
		"bimodal 1ms 5 1s":            &Distribution{},
		"slow":                        &Fault{},
		"slow 20":                     &Fault{},
		"slow xNaN":                   &Fault{},
		"slow x0":                     &Fault{},
		"down 30%":                    &Fault{},
		"error":                       &Fault{},
		"explode":                     &Fault{},
		"goodput":                     &Expectation{},
		"goodput = 3%":                &Expectation{},
		"goodput >= 3":                &Expectation{},
		"speed >= 3":                  &Expectation{},
		"p99 < 3%":                    &Expectation{},
		"under >= 3%":                 &Expectation{},
		"mean < 1s from":              &Expectation{},
		"mean < 1s from 3s to 2s":     &Expectation{},
		"mean < 1s from 3s to 3s":     &Expectation{},
		"mean < 1s in":                &Expectation{},
		"mean < 1s by 3s":             &Expectation{},
		"attempts < NaN":              &Expectation{},
		"goodput of api":              &Expectation{},
		"mean < 1s to 0s in variants": &Expectation{},
	} {
		if err := into.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %v", text, into)
		}
	}
}

func TestExpectations(t *testing.T) {
	for text, holds := range map[string][2]float64{ // a value that meets it, and one that does not
		"goodput >= 99%": {99, 98.99},
		"p99.9 of api < 200ms from 30s to 40s in a budget of 3": {.1999, .2},
		"under 1s > 0.5%":       {.51, .5},
		"attempts <= 1.1 to 3s": {1.1, 1.11},
		"max <= 1m30s from 0s":  {90, 91},
	} {
		var e Expectation
		if err := e.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if e.String() != text {
			t.Errorf("%q comes back as %q", text, e)
		}
		if !e.Holds(holds[0]) || e.Holds(holds[1]) || e.Holds(math.NaN()) {
			t.Errorf("%s: %v %v", text, e.Holds(holds[0]), e.Holds(holds[1]))
		}
	}
}

func TestFaultsComeBack(t *testing.T) {
	for _, text := range []string{"slow x20", "slow x1.5", "delay 2s", "stall", "down", "unreachable", "error 30%", "gray 12.5%", "lossy 0.1%"} {
		var f Fault
		if err := f.UnmarshalText([]byte(text)); err != nil || f.String() != text {
			t.Errorf("%q comes back as %q, %v", text, f, err)
		}
	}
}

// FuzzParse: no text makes the parser fail in another way than by problems, and
// what it takes is within bounds and can be written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(least))
	f.Add([]byte(least + "failures: [{at: 1s, service: api, fault: slow x20}]\nexpect: [goodput >= 1%]\n"))
	f.Add([]byte(least + "variants: [{name: a, policies: {\"*\": {retry: off}}}]\n"))
	f.Add([]byte("services: {a: {calls: [{service: a}]}}\narrivals: [{to: a, users: 3, think: exponential 1s}]"))
	paths, _ := filepath.Glob("testdata/*.yaml")
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("f.yaml", text)
		if err != nil {
			var problems config.Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("%v", err)
			}
			return
		}
		for i := range s.Expect {
			again(t, s.Expect[i].String(), &Expectation{})
		}
		for i := range s.Failures {
			again(t, s.Failures[i].Fault.String(), &Fault{})
		}
		for _, sv := range s.Services {
			again(t, sv.ServiceTime.String(), &Distribution{})
			if x := sv.ServiceTime.Draw(.999999, .5); x < 0 || x > longest {
				t.Fatalf("%v draws %v", sv.ServiceTime, x)
			}
		}
	})
}

// again reads a text that was written.
func again(t *testing.T, text string, into interface {
	UnmarshalText([]byte) error
	String() string
},
) {
	t.Helper()
	if err := into.UnmarshalText([]byte(text)); err != nil {
		t.Fatalf("%q was written, and is refused: %v", text, err)
	}
	if into.String() != text {
		t.Fatalf("%q comes back as %q", text, into.String())
	}
}
