// Package ratelimit says whether one more request keeps to a rate: token buckets, one a key, in a bounded table.
package ratelimit

import "time"

// Limits of what a rate may say. With them no number in a bucket can overflow.
const (
	// MaxCount is the most that Requests and Burst may be.
	MaxCount = 1_000_000
	// MinPer and MaxPer bound Per.
	MinPer = time.Millisecond
	MaxPer = time.Hour
)

// Config is a rate: how many requests in which time, and how many of them at
// once.
type Config struct {
	// Requests is how many requests may come in each time of Per, 1 to
	// 1000000. Required.
	Requests int64 `yaml:"requests"`
	// Per is that time, 1ms to 1h. Default 1s.
	Per time.Duration `yaml:"per"`
	// Burst is how many requests may come at once after a pause, 1 to
	// 1000000: the size of the bucket. 0 (default) means as many as Requests.
	Burst int64 `yaml:"burst"`
}

// Default returns the defaults given at each field of Config.
func Default() Config { return Config{Per: time.Second} }

// Validate calls add once for every mistake, with the field's YAML name.
func (c Config) Validate(add func(field, problem string)) {
	if c.Requests < 1 || c.Requests > MaxCount {
		add("requests", "must be from 1 to 1000000")
	}
	if c.Per < MinPer || c.Per > MaxPer {
		add("per", "must be from 1ms to 1h; buckets do not outlive the process")
	}
	if c.Burst < 0 || c.Burst > MaxCount {
		add("burst", "must be from 1 to 1000000, or 0 for as many as requests")
	}
}

// Size is how many requests may come at once after a pause.
func (c Config) Size() int64 {
	if c.Burst > 0 {
		return c.Burst
	}
	return c.Requests
}
