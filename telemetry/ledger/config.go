package ledger

import (
	"fmt"
	"math"
	"time"
)

// Config says how much of what was decided is kept.
type Config struct {
	// The most memory that it takes, in bytes; the oldest goes first. About 300 bytes an exchange. It is taken as it is
	// needed, and at most a sixteenth of the memory budget where there is one. 0: nothing is kept.
	SizeBytes int `yaml:"size_bytes"`
	// The share of exchanges that is kept of those that ended well, at once, and by one attempt. The others are kept always.
	SamplePercent float64 `yaml:"sample_percent"`
	// From what time to the first byte of its answer on an exchange counts as slow, and is kept. 0: none does.
	Slow time.Duration `yaml:"slow"`
}

// Bounds of Config.SizeBytes.
const (
	LeastBytes = 2 * segmentBytes
	MostBytes  = 1 << 30
)

// Default keeps 4 MiB and a sample of 1 %.
func Default() Config { return Config{SizeBytes: 4 << 20, SamplePercent: 1, Slow: time.Second} }

// Validate calls add for each value that cannot be.
func (c Config) Validate(add func(field, problem string)) {
	if c.SizeBytes != 0 && (c.SizeBytes < LeastBytes || c.SizeBytes > MostBytes) {
		add("size_bytes", fmt.Sprintf("is %d; must be 0 for none, or from %d to %d", c.SizeBytes, LeastBytes, MostBytes))
	}
	if math.IsNaN(c.SamplePercent) || c.SamplePercent < 0 || c.SamplePercent > 100 {
		add("sample_percent", fmt.Sprintf("is %v; a percentage is from 0 to 100", c.SamplePercent))
	}
	if c.Slow < 0 {
		add("slow", "is negative; a duration is 0 or more")
	}
}
