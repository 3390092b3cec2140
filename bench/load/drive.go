package load

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/socket"
)

// lastAnswers is how long the requests under way at the end of the measured
// time are waited for before they count as never answered.
const lastAnswers = 5 * time.Second

// firstAnswer is how much longer the measured time lasts while nothing at all
// has come back: on a crowded machine a short slice may pass without the
// processes having run.
const firstAnswer = time.Second

// engine is a load on one thread and one epoll set. One thread, because the
// load shares its core with the origin and must leave the proxy the bottleneck.
type engine interface {
	open() error                // one more connection
	connections() int           // that are open
	startDue(now time.Duration) // starts what should have started by now
	// patience shortens a wait so that the next start is not late.
	// underWay is how much of the exchanges under way has come, in exchanges.
	underWay() float64
	patience(until time.Duration) time.Duration
	receive(events []unix.EpollEvent) // takes what arrived
	busy() int                        // exchanges under way
}

// clock is what engines share: the times of a load and its result.
type clock struct {
	cfg    *Config
	res    *Result
	set    *socket.Epoll
	base   time.Time
	ending bool // no new exchanges and no new connections
}

func (c *clock) now() time.Duration { return time.Since(c.base) }

// drive opens the connections, runs the load over its warm-up and its measured
// time, and waits for the last answers.
func (c *clock) drive(ctx context.Context, e engine) (*Result, error) {
	for range c.cfg.Connections {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
		if err := e.open(); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	c.base = time.Now()
	measuring := false
	var began time.Duration
	before := 0.0
	end := c.cfg.Warmup + c.cfg.Duration
	for {
		now := c.now()
		if !measuring && now >= c.cfg.Warmup {
			c.cfg.AtStart()
			*c.res = Result{}
			before = e.underWay()
			measuring = true
			began = c.now()
			end = began + c.cfg.Duration
		}
		if measuring && now >= end {
			if c.res.Requests+c.res.Errors > 0 || c.res.Bytes > 0 || now >= end+firstAnswer {
				break
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
		e.startDue(now)
		if e.connections() == 0 {
			return nil, fmt.Errorf("load: no connection to %s is left: %s", c.cfg.Addr, c.res.FirstError)
		}
		edge := max(end, now+time.Millisecond)
		if !measuring {
			edge = c.cfg.Warmup
		}
		// The context is looked at every 50 ms.
		events, err := c.set.Wait(e.patience(min(edge-c.now(), 50*time.Millisecond)))
		if err != nil {
			return nil, fmt.Errorf("load: wait: %w", err)
		}
		e.receive(events)
	}
	c.res.Elapsed = c.now() - began
	c.cfg.AtEnd()
	c.res.Exchanges = float64(c.res.Requests) + e.underWay() - before
	return c.res, c.awaitLast(ctx, e)
}

// awaitLast waits for the answers under way, so that one that never comes is
// told from one that is slow. What arrives now is not measured, but an error
// counts.
func (c *clock) awaitLast(ctx context.Context, e engine) error {
	measured := *c.res
	deadline := c.now() + lastAnswers
	c.ending = true
	for {
		busy := e.busy()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		if late := c.now() >= deadline; busy == 0 || late {
			measured.Errors, measured.FirstError = c.res.Errors, c.res.FirstError
			*c.res = measured
			if late {
				for range busy {
					c.res.fail(fmt.Errorf("no whole answer within %v after the last request", lastAnswers))
				}
			}
			return nil
		}
		events, err := c.set.Wait(50 * time.Millisecond)
		if err != nil {
			return fmt.Errorf("load: wait: %w", err)
		}
		e.receive(events)
	}
}
