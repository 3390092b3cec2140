package scenario

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Metric is what an Expectation is about.
type Metric string

// The metrics. They are of the exchanges that began within the expectation's
// time.
const (
	Goodput       Metric = "goodput"       // per cent that ended well
	Failed        Metric = "failed"        // per cent that failed
	Refused       Metric = "refused"       // per cent that a guard refused
	Under         Metric = "under"         // per cent that ended well in less than a time: "under 1s >= 99%"
	Mean          Metric = "mean"          // latency of those that ended well
	P50           Metric = "p50"           // and its quantiles
	P90           Metric = "p90"           //
	P95           Metric = "p95"           //
	P99           Metric = "p99"           //
	P999          Metric = "p99.9"         //
	Max           Metric = "max"           //
	Attempts      Metric = "attempts"      // for each of them
	Amplification Metric = "amplification" // attempts for each exchange that arrived from outside
	Throughput    Metric = "throughput"    // that ended well, a second
	Limit         Metric = "limit"         // on active requests, in the mean: limits.max_requests or adaptive, of all proxies
	Ejections     Metric = "ejections"     // of endpoints, over the whole run
	Openings      Metric = "openings"      // of breakers, over the whole run
)

// unit is how a metric's value is written.
type unit uint8

const (
	inPercent unit = iota
	inTime
	asNumber
)

func (m Metric) unit() (unit, bool) {
	switch m {
	case Goodput, Failed, Refused, Under:
		return inPercent, true
	case Mean, P50, P90, P95, P99, P999, Max:
		return inTime, true
	case Attempts, Amplification, Throughput, Limit, Ejections, Openings:
		return asNumber, true
	}
	return 0, false
}

// Quantile returns which one a metric of latency is.
func (m Metric) Quantile() (float64, bool) {
	switch m {
	case P50:
		return .5, true
	case P90:
		return .9, true
	case P95:
		return .95, true
	case P99:
		return .99, true
	case P999:
		return .999, true
	case Max:
		return 1, true
	}
	return 0, false
}

// Expectation is one that a run must meet, such as "goodput >= 99%", "p99 of
// api < 200ms from 30s to 40s", "attempts <= 1.1 in with_budget".
type Expectation struct {
	Metric Metric
	Bound  time.Duration // of Under
	Of     string        // the service that is called; empty: the one of the first arrivals
	Op     string        // <, <=, >, >=
	// Value is in per cent, seconds or as it is.
	Value float64
	// From and To bound when the exchanges began; To 0 means the end. From is
	// the end of the warmup unless it is Given.
	From, To time.Duration
	Given    bool
	// In is the variant it is for; empty: all.
	In string
}

const expectationRule = `write it as METRIC [of SERVICE] OPERATOR VALUE [from TIME] [to TIME] [in VARIANT], such as "goodput >= 99% from 30s"`

const metricRule = "use goodput, failed, refused, under TIME, mean, p50, p90, p95, p99, p99.9, max, attempts, amplification, throughput, limit, ejections or openings"

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Expectation) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	next := func() string {
		if len(words) == 0 {
			return ""
		}
		w := words[0]
		words = words[1:]
		return w
	}
	n := Expectation{Metric: Metric(next())}
	u, ok := n.Metric.unit()
	if !ok {
		return fmt.Errorf("%q is no metric; %s", string(n.Metric), metricRule)
	}
	var err error
	if n.Metric == Under {
		if n.Bound, err = duration(next()); err != nil {
			return fmt.Errorf("%w; %s", err, expectationRule)
		}
	}
	op := next()
	if op == "of" {
		n.Of = next()
		op = next()
	}
	switch op {
	case "<", "<=", ">", ">=":
		n.Op = op
	default:
		return fmt.Errorf("has %q where <, <=, > or >= belongs; %s", op, expectationRule)
	}
	if n.Value, err = value(next(), u); err != nil {
		return fmt.Errorf("%w; %s", err, expectationRule)
	}
	for len(words) > 0 && err == nil {
		switch w := next(); w {
		case "from":
			n.From, err = duration(next())
			n.Given = true
		case "to":
			if n.To, err = duration(next()); err == nil && n.To == 0 {
				err = fmt.Errorf("ends at 0s")
			}
		case "in":
			// The name of a variant may have spaces; it comes last.
			n.In, words = strings.Join(words, " "), nil
			if n.In == "" {
				err = fmt.Errorf("does not name the variant behind in")
			}
		default:
			err = fmt.Errorf("has %q where from, to or in belongs", w)
		}
	}
	if err == nil && n.To > 0 && n.To <= n.From {
		err = fmt.Errorf("ends at %v, before it begins", n.To)
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, expectationRule)
	}
	*e = n
	return nil
}

// value reads a figure in the unit of its metric.
func value(word string, u unit) (float64, error) {
	switch u {
	case inPercent:
		f, err := percent(word)
		return f * 100, err
	case inTime:
		d, err := duration(word)
		return d.Seconds(), err
	}
	f, err := strconv.ParseFloat(word, 64)
	if err != nil || !(f >= 0 && f <= 1e12) {
		return 0, fmt.Errorf("has %q where a number belongs", word)
	}
	return f, nil
}

// Holds reports whether a value meets the expectation.
func (e *Expectation) Holds(v float64) bool {
	switch e.Op {
	case "<":
		return v < e.Value
	case "<=":
		return v <= e.Value
	case ">":
		return v > e.Value
	}
	return v >= e.Value // false for NaN, as the others are
}

// Format writes a value in the metric's unit.
func (e *Expectation) Format(v float64) string {
	switch u, _ := e.Metric.unit(); u {
	case inPercent:
		return strconv.FormatFloat(v, 'f', 2, 64) + "%"
	case inTime:
		return time.Duration(v * float64(time.Second)).Round(time.Microsecond).String()
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// String returns e as it is written.
func (e Expectation) String() string {
	var b strings.Builder
	b.WriteString(string(e.Metric))
	if e.Metric == Under {
		fmt.Fprintf(&b, " %v", e.Bound)
	}
	if e.Of != "" {
		b.WriteString(" of " + e.Of)
	}
	b.WriteString(" " + e.Op + " ")
	switch u, _ := e.Metric.unit(); u {
	case inPercent:
		b.WriteString(percentOf(e.Value/100) + "%")
	case inTime:
		b.WriteString(time.Duration(e.Value*float64(time.Second) + .5).String())
	default:
		b.WriteString(strconv.FormatFloat(e.Value, 'f', -1, 64))
	}
	if e.Given {
		fmt.Fprintf(&b, " from %v", e.From)
	}
	if e.To > 0 {
		fmt.Fprintf(&b, " to %v", e.To)
	}
	if e.In != "" {
		b.WriteString(" in " + e.In)
	}
	return b.String()
}

// MarshalText implements encoding.TextMarshaler.
func (e Expectation) MarshalText() ([]byte, error) { return []byte(e.String()), nil }
