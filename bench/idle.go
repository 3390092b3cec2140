package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/origin"
	"github.com/outrigger-mesh/outrigger/bench/peers"
	"github.com/outrigger-mesh/outrigger/bench/procstat"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

const (
	// idleWarm connections carry a request and close before memory is read
	// for the first time, so that what is set up once is not counted.
	idleWarm = 64
	// mostIdleRounds: each starts every subject anew.
	mostIdleRounds = 2
)

// idle measures the resident memory that an idle keep-alive connection costs
// after one request. Each round starts the subjects anew, because memory once
// taken is seldom given back.
func (r *runner) idle(ctx context.Context, name string) error {
	rounds := r.o.idleRounds()
	c := r.o.idleCourse(name)
	var subjects []subject
	for _, s := range r.subjects {
		if err := s.takes(c); err != nil {
			r.leaveOut(c.name, s.name(), err)
			continue
		}
		subjects = append(subjects, s)
	}
	server, err := r.startOrigin(ctx, c)
	if err != nil {
		return err
	}
	defer server.tearDown()
	beds := make([]*bed, len(subjects))
	samples := make([][]report.Sample, len(subjects))
	for round := range rounds {
		for i := range subjects {
			k := (i + round) % len(subjects)
			b, err := r.setUp(ctx, subjects[k], c, server.entry)
			if ctx.Err() != nil {
				if b != nil {
					b.tearDown()
				}
				return ctx.Err()
			}
			if err != nil {
				r.leaveOut(name, subjects[k].name(), err)
				continue
			}
			kb, err := r.idleOnce(ctx, b, c)
			b.tearDown()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s := report.Sample{Round: round, CPU: kb, Requests: uint64(r.o.idle)}
			if err != nil {
				s = report.Sample{Round: round, Errors: 1, FirstError: err.Error()}
			}
			samples[k] = append(samples[k], s)
			beds[k] = b
		}
	}
	var measured []*bed
	var kept [][]report.Sample
	for k, b := range beds {
		if b != nil {
			measured, kept = append(measured, b), append(kept, samples[k])
		}
	}
	r.report.Add(r.rows(name, level{r.o.idle, 1}, measured, kept), references()...)
	return nil
}

// idleCourse is what idle connections are held through.
func (o *options) idleCourse(name string) *course {
	c := o.plainCourse(name)
	if name == report.IdleH2 {
		c.protocol, c.load, c.kind, c.size = peers.HTTP2, load.HTTP2, origin.HTTP2, smallBody
	}
	return c
}

func (o *options) idleRounds() int {
	if o.quick {
		return 1
	}
	return min(mostIdleRounds, o.slices)
}

// idleRest is how long connections have been idle when memory is read: longer
// than a proxy may take to see that they are, or to collect what it can do
// without.
func (o *options) idleRest() time.Duration { return 4 * o.sliceTime() }

// idleOnce returns kB of 1024 bytes for each connection.
func (r *runner) idleOnce(ctx context.Context, b *bed, c *course) (float64, error) {
	warm, err := load.Hold(ctx, load.Config{Addr: b.entry, Protocol: c.load, Connections: idleWarm})
	if err != nil {
		return 0, err
	}
	warm.Close()
	profiled := r.o.profile && b.profiled && !slices.ContainsFunc(r.report.Memory, func(m report.Memory) bool { return m.Scenario == c.name })
	var start report.Heap
	if profiled {
		start, _, err = r.memory(ctx, b, false)
		if profiled = err == nil; !profiled {
			r.say("!! no profile of %s: %v", c.name, err)
		}
	}
	if err := pause(ctx, r.o.idleRest()/2); err != nil {
		return 0, err
	}
	before, err := b.rss()
	if err != nil {
		return 0, err
	}
	held, err := load.Hold(ctx, load.Config{Addr: b.entry, Protocol: c.load, Connections: r.o.idle})
	if err != nil {
		return 0, err
	}
	defer held.Close()
	if err := pause(ctx, r.o.idleRest()); err != nil {
		return 0, err
	}
	after, err := b.rss()
	if err != nil {
		return 0, err
	}
	if alive := held.Alive(); alive < r.o.idle {
		return 0, fmt.Errorf("%d of %d idle connections were closed within %v", r.o.idle-alive, r.o.idle, r.o.idleRest())
	}
	if profiled {
		if end, live, err := r.memory(ctx, b, true); err != nil {
			r.say("!! no profile of %s: %v", c.name, err)
		} else {
			r.report.Memory = append(r.report.Memory, report.NewMemory(c.name, r.o.idle, start, end, live))
		}
	}
	return float64(after-before) / 1024 / float64(r.o.idle), nil
}

func (b *bed) rss() (int64, error) {
	pids, err := b.pids()
	if err != nil {
		return 0, err
	}
	return procstat.TreeRSS(pids)
}
