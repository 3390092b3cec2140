package outlier

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Caution gives endpoints that are worse than their peers, but not so bad that
// they are ejected, a smaller share of the attempts.
type Caution struct {
	// Mode is enforce (default) or observe.
	Mode guard.Mode `yaml:"mode" enum:"enforce,observe"`
	// FailurePercent is how many percentage points more of an endpoint's attempts
	// may fail than of the others' before its share shrinks. It shrinks in a
	// straight line down to FloorPercent at four times as many. 0: failures do not
	// count. Default 5.
	FailurePercent float64 `yaml:"failure_percent"`
	// LatencyPercent is how long an endpoint may take, in percent of the median of
	// all, before its share shrinks: at twice as much it is half. Differences
	// below 1ms never count. 0: latency does not count. Default 300.
	LatencyPercent float64 `yaml:"latency_percent"`
	// FloorPercent is the least share, of its own, that an endpoint keeps, so that
	// there is evidence of its recovery. Default 10.
	FloorPercent float64 `yaml:"floor_percent"`
	// MaxSharePercent is how much of the pool's weight may be taken away from
	// endpoints in all; beyond that each loses less. Default 30.
	MaxSharePercent float64 `yaml:"max_share_percent"`
	// MinimumRequests is how many attempts the recent past, of which Window is the
	// time constant, must hold before an endpoint is judged. Default 10.
	MinimumRequests uint32 `yaml:"minimum_requests"`
	// Window is the time in which what was seen loses its weight to 1/e. Default 10s.
	Window time.Duration `yaml:"window"`
	// Recovery is how long a share takes from nothing back to all. Default 20s.
	Recovery time.Duration `yaml:"recovery"`
}

// DefaultCaution returns the values of an empty section.
func DefaultCaution() Caution {
	return Caution{
		FailurePercent: 5, LatencyPercent: 300, FloorPercent: 10, MaxSharePercent: 30, MinimumRequests: 10,
		Window: 10 * time.Second, Recovery: 20 * time.Second,
	}
}

// String says in a line what c is.
func (c *Caution) String() string {
	if c == nil {
		return "off"
	}
	return fmt.Sprintf("%s beyond %g%% failures or %g%% latency", c.Mode, c.FailurePercent, c.LatencyPercent)
}

// Validate calls add once for each mistake, with the YAML name of the field.
func (c Caution) Validate(add func(field, problem string)) {
	if c.Mode != guard.Enforce && c.Mode != guard.Observe {
		add("mode", guard.NotPartial)
	}
	if !within(c.FailurePercent, 0, 25) {
		add("failure_percent", "must be between 0 (off) and 25; at four times as much the share is at its floor")
	}
	if c.LatencyPercent != 0 && !within(c.LatencyPercent, 110, 10_000) {
		add("latency_percent", "must be 0 (off) or between 110 and 10000")
	}
	if c.FailurePercent == 0 && c.LatencyPercent == 0 {
		add("latency_percent", "is 0 as is failure_percent, so nothing would ever be noticed; set one, or write caution: off")
	}
	if !within(c.FloorPercent, 1, 100) {
		add("floor_percent", "must be between 1 and 100; without any attempts an endpoint could not show that it is well")
	}
	if !within(c.MaxSharePercent, 0, 90) || c.MaxSharePercent == 0 {
		add("max_share_percent", "must be above 0 and at most 90")
	}
	if c.MinimumRequests == 0 {
		add("minimum_requests", "must be at least 1")
	}
	if c.Window < minWindow || c.Window > maxWindow {
		add("window", "must be between 100ms and 1h")
	}
	if c.Recovery < 0 || c.Recovery > maxWindow {
		add("recovery", "must be between 0 and 1h")
	}
}

// latencySlack is the least difference of latency that counts.
const latencySlack = float64(time.Millisecond)

// Suspect is what is remembered of an endpoint under a Caution. It is used by one
// goroutine at a time; the zero value is one of which nothing is known.
type Suspect struct {
	ended, failed, took float64 // decaying sums; took is of those that did not fail
	taken               float64 // the part of its share that is taken away
	since               time.Duration
}

// Seen is one endpoint with what its attempts since the last Judge have shown.
type Seen struct {
	Suspect *Suspect
	Weight  uint32
	Ended   uint64
	Failed  uint64        // of Ended
	Took    time.Duration // of the others together
}

// Share returns the part of its share that the endpoint keeps, 1 for all, and
// since when it has been less.
func (s *Suspect) Share() (part float64, since time.Duration) { return 1 - s.taken, s.since }

// Evidence returns the share of failed attempts and the mean latency of the
// others, of the recent past.
func (s *Suspect) Evidence() (failed float64, latency time.Duration) {
	if s.ended > 0 {
		failed = s.failed / s.ended
	}
	return failed, time.Duration(s.latency())
}

func (s *Suspect) latency() float64 {
	if n := s.ended - s.failed; n > 0.5 {
		return s.took / n
	}
	return 0
}

// Judge takes in what was seen since the last call, dt ago, and decides about
// shares. It returns how many endpoints have newly come under suspicion.
func (c *Caution) Judge(now, dt time.Duration, all []Seen) (suspected int) {
	keep := math.Exp(-float64(dt) / float64(max(c.Window, minWindow)))
	var failed, ended float64
	var latencies []float64
	for i := range all {
		s, a := all[i].Suspect, &all[i]
		s.ended = s.ended*keep + float64(a.Ended)
		s.failed = s.failed*keep + float64(min(a.Failed, a.Ended))
		s.took = s.took*keep + float64(max(a.Took, 0))
		failed, ended = failed+s.failed, ended+s.ended
		if s.ended-s.failed >= float64(c.MinimumRequests) {
			latencies = append(latencies, s.latency())
		}
	}
	slices.Sort(latencies)
	var total, taken float64
	wants := make([]float64, len(all))
	for i := range all {
		s, w := all[i].Suspect, float64(max(all[i].Weight, 1))
		want := 0.0
		if s.ended >= float64(c.MinimumRequests) {
			want = max(c.byFailures(s, failed, ended), c.byLatency(s, latencies))
			want = min(want, 1-c.FloorPercent/100)
		}
		wants[i] = want
		total, taken = total+w, taken+w*want
	}
	scale := 1.0
	if most := total * c.MaxSharePercent / 100; taken > most {
		scale = most / taken
	}
	back := 1.0
	if c.Recovery > 0 {
		back = min(1, float64(dt)/float64(c.Recovery))
	}
	left := 0.0 // of what is still being given back
	for i := range all {
		s, was := all[i].Suspect, all[i].Suspect.taken
		s.taken = max(wants[i]*scale, was-back)
		left += s.taken * float64(max(all[i].Weight, 1))
		switch {
		case s.taken > 0 && was == 0:
			s.since = now
			suspected++
		case s.taken == 0:
			s.since = 0
		}
	}
	// What is being given back counts, too.
	if most := total * c.MaxSharePercent / 100; left > most {
		for i := range all {
			all[i].Suspect.taken *= most / left
		}
	}
	return suspected
}

// byFailures is the part that is to be taken away for failures: by how much more
// of its attempts fail than of the others'.
func (c *Caution) byFailures(s *Suspect, failed, ended float64) float64 {
	limit := c.FailurePercent / 100
	if limit <= 0 {
		return 0
	}
	others := 0.0
	if n := ended - s.ended; n >= 1 {
		others = max(failed-s.failed, 0) / n
	}
	excess := s.failed/s.ended - others
	return (1 - c.FloorPercent/100) * min(max((excess-limit)/(3*limit), 0), 1)
}

// byLatency is the same for latency. With fewer than three endpoints there is no
// telling which of them is the odd one.
func (c *Caution) byLatency(s *Suspect, sorted []float64) float64 {
	if c.LatencyPercent <= 0 || len(sorted) < 3 || s.ended-s.failed < float64(c.MinimumRequests) {
		return 0
	}
	median := sorted[(len(sorted)-1)/2]
	limit := max(median*c.LatencyPercent/100, median+latencySlack)
	if l := s.latency(); l > limit {
		return 1 - limit/l
	}
	return 0
}
