package faults

import (
	"context"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
)

const (
	// lookEvery is how often the guards of faults look.
	lookEvery = 250 * time.Millisecond
	// afterwards is how long it is looked at what follows a fault, and
	// beforehand what went before it.
	afterwards, beforehand = time.Minute, time.Minute
	// markEvery is how far the marks of what went before are apart.
	markEvery = 5 * time.Second
)

// Run looks after the faults until ctx ends: it stops those whose time is over
// or whose guard says so, and follows what comes after them.
func (b *Board) Run(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			b.Drain()
			return nil
		case <-b.wake:
		case <-t.C:
		}
		if next := b.Look(); next > 0 {
			t.Reset(next)
		} else {
			t.Stop()
		}
	}
}

// Look does once what Run does all the time, and returns when it is to be done
// again; 0: when something has changed.
func (b *Board) Look() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	following := slices.ContainsFunc(b.ended, func(r *Rule) bool { return !r.report.done })
	if len(b.rules) == 0 && !following && !b.allowed {
		return 0
	}
	all := b.vitals()
	b.baseline.take(now, all)
	for _, r := range b.ended {
		r.report.follow(now, r.end, all)
	}
	changed := false
	for _, r := range slices.Clone(b.rules) {
		c := r.guard.Look(now, sampleOf(r, all))
		if w := r.guard.Would(); w != r.would {
			r.would = w
			b.log.Warn("fault would have been stopped: "+w.Words(), "event", "fault_would_stop", "fault", r.Name, "cluster", r.Cluster, "cause", w.String())
		}
		if c == fault.Runs && now >= r.until {
			c = fault.TimeOver
		}
		if c != fault.Runs {
			b.stop(r, now, c)
			changed = true
		}
	}
	if changed {
		b.publish()
	}
	if len(b.rules) > 0 || following || changed {
		return lookEvery
	}
	return markEvery
}

// sampleOf is what the guard of r looks at.
func sampleOf(r *Rule, all []upstream.Vitals) fault.Sample {
	v := find(all, r.Cluster, r.Direction)
	if v == nil {
		return fault.Sample{}
	}
	s := fault.Sample{
		Exchanges: v.Exchanges, Good: v.Exchanges - min(v.Failures, v.Exchanges), Failures: v.Failed, Met: v.Met, MetFailed: v.MetFailed,
		Ejections: v.Ejections, Openings: v.Openings, Panicking: v.Panicking,
	}
	if r.Stop.P99 > 0 {
		s.Slow = v.Durations.Above(r.Stop.P99)
	}
	return s
}
