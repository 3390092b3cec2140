package fault

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

const ms = time.Millisecond

func TestTexts(t *testing.T) {
	for _, c := range []struct {
		read func(string) (string, error)
		good string // "as written" or "as written=as said", with spaces as underscores
		bad  string
	}{
		{
			func(s string) (string, error) { d, err := ParseDelay(s); return d.String(), err },
			"200ms 1.5s 1m=1m0s 100ms..1s 5ms..5ms exp_200ms", "0 0s -1s 61s 5 x exp exp_ exp_0s exp_2m .. 1s.. ..1s 2s..1s 1s..2m 1ms..2ms..3ms",
		},
		{
			func(s string) (string, error) { a, err := ParseAbort(s); return a.String(), err },
			"400 503 599 UNAVAILABLE grpc_14=UNAVAILABLE grpc_1=CANCELLED", "200 399 600 OK grpc_0 grpc_17 grpc_ grpc_-1 unavailable 5e2 +503 503.0",
		},
		{
			func(s string) (string, error) {
				n, err := ParseRate(s)
				return strings.TrimSuffix((time.Duration(n) * time.Second).String(), "s"), err
			},
			"16B/s=16 20_B/s=20 1kB/s=16m40 1KiB/s=17m4", "16 15B/s 0B/s -1kB/s 1.5kB/s 1kb/s 1KiB 1048577MiB/s 99999999999999999999B/s",
		},
	} {
		for f := range strings.FieldsSeq(c.good) {
			in, want, ok := strings.Cut(strings.ReplaceAll(f, "_", " "), "=")
			if !ok {
				want = in
			}
			if got, err := c.read(in); err != nil || got != want {
				t.Errorf("%q: %q, %v; want %q", in, got, err, want)
			}
		}
		for f := range strings.FieldsSeq(c.bad) {
			in := strings.ReplaceAll(f, "_", " ")
			if got, err := c.read(in); err == nil {
				t.Errorf("%q is read as %q", in, got)
			}
		}
		if got, err := c.read(""); err != nil || strings.Trim(got, "0") != "" {
			t.Errorf("nothing: %q, %v", got, err)
		}
	}
}

func FuzzTexts(f *testing.F) {
	for _, s := range []string{"", "200ms", "1ms..2ms", "exp 1s", "503", "UNAVAILABLE", "grpc 14", "64KiB/s", "1e3s", "9223372036854775807B/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDelay(s); err == nil {
			if again, err := ParseDelay(d.String()); err != nil || again != d {
				t.Errorf("delay %q: %v comes back as %v, %v", s, d, again, err)
			}
			for _, w := range []uint64{0, 1, math.MaxUint64} {
				if h := d.Of(w); h < 0 || h > MaxDelay {
					t.Errorf("delay %q holds for %v", s, h)
				}
			}
		}
		if a, err := ParseAbort(s); err == nil {
			if again, err := ParseAbort(a.String()); err != nil || again != a {
				t.Errorf("abort %q: %v comes back as %v, %v", s, a, again, err)
			}
		}
		if n, err := ParseRate(s); err == nil && n != 0 && (n < MinRate || n > MaxRate) {
			t.Errorf("rate %q is %d", s, n)
		}
	})
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Delay = "1s" }, ""},
		{func(c *Config) { c.Delay, c.Abort = "1s", 503 }, ""},
		{func(c *Config) { c.Delay, c.Reset = "1s", true }, ""},
		{func(c *Config) { c.ResponseRate, c.RequestRate = "1kB/s", "2kB/s" }, ""},
		{func(*Config) {}, "does nothing"},
		{func(c *Config) { c.Delay, c.Percent = "1s", 0 }, "percent"},
		{func(c *Config) { c.Delay, c.Percent = "1s", 100.1 }, "percent"},
		{func(c *Config) { c.Delay, c.Percent = "1s", math.NaN() }, "percent"},
		{func(c *Config) { c.Delay = "1" }, "delay"},
		{func(c *Config) { c.Abort = 200 }, "abort"},
		{func(c *Config) { c.ResponseRate = "1" }, "response_rate"},
		{func(c *Config) { c.RequestRate = "1" }, "request_rate"},
		{func(c *Config) { c.AbortGRPC = "grpc 17" }, "abort_grpc"},
		{func(c *Config) { c.Abort, c.Reset = 503, true }, "in one way"},
		{func(c *Config) { c.Abort, c.AbortGRPC = 503, "INTERNAL" }, "in one way"},
		{func(c *Config) { c.Abort, c.ResponseRate = 503, "1kB/s" }, "rate"},
		{func(c *Config) { c.Reset, c.RequestRate = true, "1kB/s" }, "rate"},
	} {
		cfg := Default()
		c.change(&cfg)
		var got []string
		cfg.Validate(func(field, problem string) { got = append(got, field+" "+problem) })
		if len(got) > 1 || (c.want == "") != (len(got) == 0) || c.want != "" && !strings.Contains(got[0], c.want) {
			t.Errorf("%+v: %q, want %q", cfg, got, c.want)
		}
	}
	for _, c := range []struct {
		change func(*Stop)
		want   string
	}{
		{func(*Stop) {}, ""},
		{func(s *Stop) { s.ErrorsPercent, s.SuccessPercent, s.Breaker, s.Panic = 0, 0, false, false }, ""},
		{func(s *Stop) { s.Mode = guard.Percent(25) }, "mode"},
		{func(s *Stop) { s.ErrorsPercent = -1 }, "errors_percent"},
		{func(s *Stop) { s.ErrorsPercent = math.NaN() }, "errors_percent"},
		{func(s *Stop) { s.SuccessPercent = 101 }, "success_percent"},
		{func(s *Stop) { s.P99 = -1 }, "p99"},
		{func(s *Stop) { s.Ejections = -1 }, "ejections"},
		{func(s *Stop) { s.Window = ms }, "window"},
		{func(s *Stop) { s.Window = time.Hour }, "window"},
		{func(s *Stop) { s.MinRequests = 0 }, "min_requests"},
	} {
		stop := DefaultStop()
		c.change(&stop)
		var got []string
		stop.Validate(func(field, _ string) { got = append(got, field) })
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %q, want %q", stop, got, c.want)
		}
	}
}

func hits(f *Fault, n uint64) (list []uint64) {
	for i := range n {
		if _, ok := f.Draw(i); ok {
			list = append(list, i)
		}
	}
	return list
}

// The share holds within five standard deviations, whatever the seed, and the
// same seed draws the same attempts.
func TestDrawShare(t *testing.T) {
	const n = 100_000
	for _, percent := range []float64{0.01, 1, 10, 50, 99, 99.99, 100} {
		for seed := range uint64(5) {
			c := Config{Percent: percent, Reset: true, Seed: seed + 1}
			got := hits(New(c, 99), n)
			p := percent / 100
			if d := math.Abs(float64(len(got)) - p*n); d > 5*math.Sqrt(n*p*(1-p))+1e-9 {
				t.Errorf("%v %% with seed %d: %d of %d", percent, seed, len(got), n)
			}
			again := hits(New(c, 12345), n)
			if len(again) != len(got) || len(got) > 0 && again[len(got)-1] != got[len(got)-1] {
				t.Errorf("%v %% with seed %d: drawn differently the second time", percent, seed)
			}
		}
	}
	if a, b := hits(New(Config{Percent: 50, Reset: true}, 1), 64), hits(New(Config{Percent: 50, Reset: true}, 2), 64); len(a) == len(b) && a[0] == b[0] && a[len(a)-1] == b[len(b)-1] {
		t.Error("without a seed two faults draw the same")
	}
}

func TestDrawDelay(t *testing.T) {
	const n = 50_000
	for _, c := range []struct {
		delay               string
		least, most, middle time.Duration // of single ones; of their mean, within 2 %
	}{
		{"200ms", 200 * ms, 200 * ms, 200 * ms},
		{"100ms..300ms", 100 * ms, 300 * ms, 200 * ms},
		{"exp 200ms", 0, MaxDelay, 200 * ms},
	} {
		f := New(Config{Percent: 100, Delay: c.delay, Seed: 7}, 0)
		sum := time.Duration(0)
		for i := range uint64(n) {
			h, ok := f.Draw(i)
			if !ok || h.Delay < c.least || h.Delay > c.most || h.Ends() {
				t.Fatalf("%s: %+v, %v", c.delay, h, ok)
			}
			sum += h.Delay
		}
		if mean := sum / n; (mean - c.middle).Abs() > c.middle/50 {
			t.Errorf("%s: %v in the mean", c.delay, mean)
		}
	}
	if d := (Delay{Shape: Exponential, A: MaxDelay}).Of(math.MaxUint64); d != MaxDelay {
		t.Errorf("the longest is %v", d)
	}
}

func TestHits(t *testing.T) {
	h, _ := New(Config{Percent: 100, Delay: "1s", Abort: 503}, 1).Draw(0)
	if h.Delay != time.Second || h.Abort.Status != 503 || !h.Ends() {
		t.Errorf("%+v", h)
	}
	h, _ = New(Config{Percent: 100, ResponseRate: "1kB/s", RequestRate: "2kB/s"}, 1).Draw(0)
	if h.Response != 1000 || h.Request != 2000 || h.Ends() {
		t.Errorf("%+v", h)
	}
	if !New(Config{Percent: 100, AbortGRPC: "INTERNAL"}, 1).Code() || New(Config{Percent: 100, Abort: 500}, 1).Code() {
		t.Error("only a gRPC code is one")
	}
}

// A fault is made of no allocation.
func TestDrawAllocatesNothing(t *testing.T) {
	f := New(Config{Percent: 50, Delay: "exp 1ms"}, 1)
	n := uint64(0)
	if a := testing.AllocsPerRun(1000, func() { f.Draw(n); n++ }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func TestWords(t *testing.T) {
	c := Config{Delay: "1s", Abort: 503, ResponseRate: "1kB/s", RequestRate: "2kB/s", Reset: true}
	if got, want := c.Words(), "delay 1s, abort 503, response at 1kB/s, request at 2kB/s, reset"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for c := range Causes {
		if Cause(c).String() == "" || Cause(c).Words() == "" {
			t.Errorf("nothing is said of cause %d", c)
		}
	}
	for k := range Kinds {
		if Kind(k).String() == "" {
			t.Errorf("nothing is said of kind %d", k)
		}
	}
	for d, want := range map[time.Duration]time.Duration{0: DefaultFor, -1: DefaultFor, ms: ms, 48 * time.Hour: MaxFor} {
		if For(d) != want {
			t.Errorf("for %v: %v", d, For(d))
		}
	}
}
