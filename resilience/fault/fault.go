package fault

import (
	"math"
	"strings"
	"time"
)

// Fault is a Config that has been read. It is immutable.
type Fault struct {
	threshold         uint64 // words below it meet the fault; MaxUint64: all do
	seed              uint64
	delay             Delay
	abort             Abort
	reset             bool
	response, request int64 // bytes a second; 0: as they come
	Count             bool
}

// New reads c, which is valid. seed is used where c has none.
func New(c Config, seed uint64) *Fault {
	f := &Fault{reset: c.Reset, Count: c.Count, seed: c.Seed}
	if f.seed == 0 {
		f.seed = seed
	}
	f.delay, _ = ParseDelay(c.Delay)
	f.abort.Status = c.Abort
	f.abort.Code, _ = ParseCode(c.AbortGRPC)
	f.response, _ = ParseRate(c.ResponseRate)
	f.request, _ = ParseRate(c.RequestRate)
	f.threshold = math.MaxUint64
	if c.Percent < 100 {
		f.threshold = uint64(c.Percent / 100 * (1 << 63) * 2)
	}
	return f
}

// Hit is what one attempt meets.
type Hit struct {
	Delay    time.Duration
	Abort    Abort
	Reset    bool
	Response int64 // bytes a second
	Request  int64
}

// Ends reports whether the attempt goes no further.
func (h *Hit) Ends() bool { return h.Reset || h.Abort != Abort{} }

// Draw says whether the attempt with that number, of those that the fault
// concerns, meets it, and how. The answer depends on nothing but the seed and n.
func (f *Fault) Draw(n uint64) (Hit, bool) {
	if w := mix(f.seed ^ mix(n)); f.threshold != math.MaxUint64 && w >= f.threshold {
		return Hit{}, false
	}
	h := Hit{Abort: f.abort, Reset: f.reset, Response: f.response, Request: f.request}
	if f.delay.A > 0 {
		h.Delay = f.delay.Of(mix(f.seed + mix(^n)))
	}
	return h, true
}

// mix is the finalizer of SplitMix64: every bit of the result depends on every
// bit of x.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit is a number from 0 to less than 1.
func unit(word uint64) float64 { return float64(word>>11) / (1 << 53) }

// Kind is one of the things that faults do.
type Kind uint8

// The kinds.
const (
	Delayed Kind = iota
	Aborted
	WasReset
	Slowed

	Kinds int = iota
)

// String returns the label value.
func (k Kind) String() string { return [...]string{"delay", "abort", "reset", "bandwidth"}[k] }

// answer is that of an abort.
func (c *Config) answer() Abort {
	code, _ := ParseCode(c.AbortGRPC)
	return Abort{Status: c.Abort, Code: code}
}

// Words says what c does, for people.
func (c *Config) Words() string {
	var list []string
	for _, p := range [...]struct{ name, value string }{
		{"delay", c.Delay}, {"abort", c.answer().String()}, {"response at", c.ResponseRate}, {"request at", c.RequestRate},
	} {
		if p.value != "" {
			list = append(list, p.name+" "+p.value)
		}
	}
	if c.Reset {
		list = append(list, "reset")
	}
	return strings.Join(list, ", ")
}

// For returns how long a fault lasts for which d was asked.
func For(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultFor
	}
	return min(d, MaxFor)
}

// Code reports whether the fault answers with a gRPC code, so that it concerns
// gRPC calls alone.
func (f *Fault) Code() bool { return f.abort.Code != 0 }
