// Package check makes the active health checks of endpoints, by gRPC, HTTP and TCP, and tells their clusters what came of them.
package check

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

const (
	// maxChecks bounds the checks under way at a time. Where more are due, those
	// that have waited longest go first.
	maxChecks = 128
	// step is how often it is looked what is due, and so how late a check may
	// begin while fewer than maxChecks are under way.
	step = 50 * time.Millisecond
)

// Runner makes the checks that the clusters of a registry want.
type Runner struct {
	registry *upstream.Registry
	clock    *wire.Sweeper
	check    func(context.Context, upstream.DueCheck) upstream.CheckResult
}

// New returns a runner for the clusters of r, whose clock is that of sw.
func New(r *upstream.Registry, sw *wire.Sweeper) *Runner {
	return &Runner{registry: r, clock: sw, check: func(ctx context.Context, d upstream.DueCheck) upstream.CheckResult {
		return run(ctx, d, sw.Now)
	}}
}

// Run makes checks until ctx ends; then it gives up those under way, waits for
// them and closes the connections that were kept.
func (r *Runner) Run(ctx context.Context) error {
	var (
		running sync.WaitGroup
		active  int
		due     []upstream.DueCheck
		results []upstream.CheckResult
		done    = make(chan upstream.CheckResult, maxChecks)
		next    time.Duration // when to look again
	)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			running.Wait()
			close(done)
			for res := range done {
				if res.Keep != nil {
					_ = res.Keep.Close()
				}
			}
			r.registry.EndChecks()
			return nil
		case res := <-done:
			results = append(results[:0], res)
			for more := true; more; {
				select {
				case res = <-done:
					results = append(results, res)
				default:
					more = false
				}
			}
			active -= len(results)
			next = min(next, r.registry.Checked(r.clock.Now(), results))
			clear(results) // keep no endpoint alive
		case <-r.registry.ChecksChanged():
			next = r.clock.Now()
		case <-timer.C:
			now := r.clock.Now()
			due, next = r.registry.DueChecks(due[:0], now, maxChecks-active)
			next = max(next, now+step)
			active += len(due)
			for _, d := range due {
				running.Go(func() { done <- r.check(ctx, d) })
			}
			clear(due)
		}
		if next == math.MaxInt64 {
			timer.Stop()
		} else {
			timer.Reset(max(next-r.clock.Now(), 0))
		}
	}
}
