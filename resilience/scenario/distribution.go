package scenario

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind is the shape of a Distribution.
type Kind uint8

// The shapes.
const (
	Constant    Kind = iota // A always
	Exponential             // mean A
	Uniform                 // from A to B
	Lognormal               // half of them up to A, 99 % up to B
	Pareto                  // none below A, 99 % up to B
	Bimodal                 // A, but B in Share of them
)

// Distribution is one of durations. It is written as its name and its figures:
// "constant 10ms", "exponential 10ms", "uniform 5ms 15ms", "lognormal p50 10ms
// p99 80ms", "pareto min 1ms p99 50ms", "bimodal 10ms 1% 1s".
type Distribution struct {
	Kind  Kind
	A, B  time.Duration
	Share float64 // of B in Bimodal, 0 to 1

	mu, sigma float64 // of Lognormal's logarithm; sigma alone is the exponent of Pareto
}

// longest bounds every duration of a scenario.
const longest = 24 * time.Hour

const distributionRule = "write one of: constant 10ms, exponential 10ms, uniform 5ms 15ms, lognormal p50 10ms p99 80ms, pareto min 1ms p99 50ms, bimodal 10ms 1% 1s"

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Distribution) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	n := Distribution{}
	var err error
	take := func(pattern ...any) {
		err = match(words[1:], pattern...)
	}
	switch {
	case len(words) == 0:
		return errors.New("is empty; " + distributionRule)
	case words[0] == "constant":
		take(&n.A)
	case words[0] == "exponential":
		n.Kind = Exponential
		take(&n.A)
	case words[0] == "uniform":
		n.Kind = Uniform
		take(&n.A, &n.B)
	case words[0] == "lognormal":
		n.Kind = Lognormal
		take("p50", &n.A, "p99", &n.B)
	case words[0] == "pareto":
		n.Kind = Pareto
		take("min", &n.A, "p99", &n.B)
	case words[0] == "bimodal":
		n.Kind = Bimodal
		take(&n.A, &n.Share, &n.B)
	default:
		return fmt.Errorf("%q is no distribution; %s", words[0], distributionRule)
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, distributionRule)
	}
	if n.Kind != Constant && n.Kind != Exponential && n.B < n.A {
		return fmt.Errorf("%v is above %v; the smaller one comes first", n.A, n.B)
	}
	if (n.Kind == Lognormal || n.Kind == Pareto) && n.A == 0 {
		return errors.New("the first figure must be above 0")
	}
	*d = n.prepared()
	return nil
}

// prepared works out what drawing needs.
func (d Distribution) prepared() Distribution {
	switch d.Kind {
	case Lognormal:
		d.mu = math.Log(float64(d.A))
		d.sigma = (math.Log(float64(d.B)) - d.mu) / z99
	case Pareto:
		// P(X > x) = (A/x)^alpha, of which 1 % are above B.
		d.sigma = math.Inf(1)
		if d.B > d.A {
			d.sigma = math.Log(100) / math.Log(float64(d.B)/float64(d.A))
		}
	}
	return d
}

// match reads words by a pattern of literal words and of pointers to durations
// and shares in percent.
func match(words []string, pattern ...any) error {
	if len(words) != len(pattern) {
		return fmt.Errorf("has %d figures and words behind its name instead of %d", len(words), len(pattern))
	}
	for i, p := range pattern {
		switch p := p.(type) {
		case string:
			if words[i] != p {
				return fmt.Errorf("has %q where %s belongs", words[i], p)
			}
		case *time.Duration:
			d, err := duration(words[i])
			if err != nil {
				return err
			}
			*p = d
		case *float64:
			f, err := percent(words[i])
			if err != nil {
				return err
			}
			*p = f
		}
	}
	return nil
}

func duration(word string) (time.Duration, error) {
	d, err := time.ParseDuration(word)
	if err != nil || d < 0 || d > longest {
		return 0, fmt.Errorf("has %q where a duration such as 10ms belongs, up to 24h", word)
	}
	return d, nil
}

// percent reads "1%" as 0.01.
func percent(word string) (float64, error) {
	digits, ok := strings.CutSuffix(word, "%")
	f, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(f >= 0 && f <= 100) {
		return 0, fmt.Errorf("has %q where a share such as 30%% belongs, from 0%% to 100%%", word)
	}
	return f / 100, nil
}

// String returns d as it is written.
func (d Distribution) String() string {
	switch d.Kind {
	case Exponential:
		return fmt.Sprintf("exponential %v", d.A)
	case Uniform:
		return fmt.Sprintf("uniform %v %v", d.A, d.B)
	case Lognormal:
		return fmt.Sprintf("lognormal p50 %v p99 %v", d.A, d.B)
	case Pareto:
		return fmt.Sprintf("pareto min %v p99 %v", d.A, d.B)
	case Bimodal:
		return fmt.Sprintf("bimodal %v %v%% %v", d.A, percentOf(d.Share), d.B)
	}
	return fmt.Sprintf("constant %v", d.A)
}

// percentOf undoes percent, without the rounding of a multiplication.
func percentOf(share float64) string {
	return strconv.FormatFloat(math.Round(share*100*1e9)/1e9, 'f', -1, 64)
}

// MarshalText implements encoding.TextMarshaler.
func (d Distribution) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Draw returns a duration for two random numbers in [0, 1): independent of each
// other and uniform.
func (d *Distribution) Draw(u, v float64) time.Duration {
	x := 0.0
	switch d.Kind {
	case Constant:
		return d.A
	case Exponential:
		x = -math.Log(1-u) * float64(d.A)
	case Uniform:
		x = float64(d.A) + u*float64(d.B-d.A)
	case Lognormal:
		// Box and Muller 1958.
		x = math.Exp(d.mu + d.sigma*math.Sqrt(-2*math.Log(1-u))*math.Cos(2*math.Pi*v))
	case Pareto:
		x = float64(d.A) * math.Pow(1-u, -1/d.sigma)
	case Bimodal:
		if u < d.Share {
			return d.B
		}
		return d.A
	}
	return time.Duration(min(x, float64(longest)))
}

// Mean is what Draw returns on average, as far as it is finite: of a Pareto
// distribution with a very long tail it is the longest duration there is.
func (d *Distribution) Mean() time.Duration {
	x := float64(d.A)
	switch d.Kind {
	case Uniform:
		x = (float64(d.A) + float64(d.B)) / 2
	case Lognormal:
		x = math.Exp(d.mu + d.sigma*d.sigma/2)
	case Pareto:
		if x = float64(longest); d.sigma > 1 {
			x = float64(d.A)
			if !math.IsInf(d.sigma, 1) {
				x *= d.sigma / (d.sigma - 1)
			}
		}
	case Bimodal:
		x = float64(d.A)*(1-d.Share) + float64(d.B)*d.Share
	}
	return time.Duration(min(x, float64(longest)))
}
