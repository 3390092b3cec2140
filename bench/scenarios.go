package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/procstat"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// references are the peers that ratios are made to.
func references() []string {
	return []string{"haproxy", "nginx", "envoy", "haproxy-h2", "nghttpx", report.Bare}
}

// scenarios runs what was asked for, one after the other. One that fails is
// left out with a note.
func (r *runner) scenarios(ctx context.Context) error {
	for _, name := range scenarioNames {
		if !slices.Contains(r.o.scenarios, name) {
			continue
		}
		r.say("\n%s", name)
		began := time.Now()
		var err error
		switch name {
		case report.Latency:
			err = r.latency(ctx)
		case report.Idle, report.IdleH2:
			err = r.idle(ctx, name)
		case report.Handshake:
			err = r.handshake(ctx)
		default:
			for _, c := range r.o.courses(name) {
				if err = r.closedLoop(ctx, c); err != nil {
					break
				}
			}
		}
		r.report.Times = append(r.report.Times, report.Time{Scenario: name, Seconds: math.Round(time.Since(began).Seconds())})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.failed = true
			r.note("%s is left out: %v", name, err)
		}
	}
	return nil
}

// lineUp sets an origin and all subjects that take part up for a course. A
// subject that cannot be is left out of it with a note. The first bed is the
// origin itself. With many endpoints every subject has an origin of its own,
// since each may keep a connection to all of them.
func (r *runner) lineUp(ctx context.Context, c *course) ([]*bed, func(), error) {
	var origins, beds []*bed
	end := func() {
		for _, b := range beds {
			b.tearDown()
		}
		for _, b := range origins {
			b.tearDown()
		}
	}
	for _, s := range r.subjects {
		if err := s.takes(c); err != nil {
			r.leaveOut(c.name, s.name(), err)
			continue
		}
		if len(origins) == 0 || c.endpoints > 1 {
			b, err := r.startOrigin(ctx, c)
			if err != nil {
				end()
				return nil, nil, err
			}
			origins = append(origins, b)
		}
		b, err := r.setUp(ctx, s, c, origins[len(origins)-1].entry)
		if ctx.Err() != nil {
			if b != nil {
				b.tearDown()
			}
			end()
			return nil, nil, ctx.Err()
		}
		if err != nil {
			r.leaveOut(c.name, s.name(), err)
			continue
		}
		beds = append(beds, b)
	}
	if len(beds) == 0 {
		r.say("  no subject for %s", c.name)
		end()
		return nil, func() {}, nil
	}
	return append([]*bed{{name: direct, entry: origins[0].entry}}, beds...), end, nil
}

// leaveOut tells of a subject without a row, now and below the table. One that
// does not know the protocol has not failed, and one that is measured under
// another name is not missing.
func (r *runner) leaveOut(scenario, subject string, err error) {
	if errors.Is(err, errElsewhere) {
		return
	}
	r.failed = r.failed || !errors.Is(err, errNotOffered)
	r.say("!! %s is left out of %s: %v", subject, scenario, err)
	reason, _, _ := strings.Cut(err.Error(), "\n") // logs of processes stay out of the report
	r.report.Leave(scenario, subject, strings.TrimSuffix(reason, ": "+errNotOffered.Error()))
}

// closedLoop measures a course at all its levels.
func (r *runner) closedLoop(ctx context.Context, c *course) error {
	beds, end, err := r.lineUp(ctx, c)
	if err != nil || beds == nil {
		return err
	}
	defer end()
	beds = beds[1:] // the direct connection is of no interest here
	for _, l := range c.levels {
		samples, err := r.rounds(ctx, beds, r.o.sliceTime(), func(*bed) load.Config { return c.config(l) })
		rows := r.rows(c.name, l, beds, samples)
		r.report.Add(rows, references()...)
		if err != nil {
			return err
		}
	}
	l := c.profileLevel()
	r.profile(ctx, c.name, l, beds, c.config(l))
	return nil
}

// latency measures at a fixed rate, through each subject and directly.
func (r *runner) latency(ctx context.Context) error {
	beds, end, err := r.lineUp(ctx, r.o.plainCourse(report.Latency))
	if err != nil || beds == nil {
		return err
	}
	defer end()
	samples, err := r.rounds(ctx, beds, r.o.latencyTime(), func(*bed) load.Config {
		return load.Config{Connections: latencyConnections, Rate: r.o.rate}
	})
	rows := r.rows(report.Latency, level{latencyConnections, 1}, beds, samples)
	for i := range rows {
		rows[i].Rate = r.o.rate
	}
	report.SubtractDirect(rows, direct)
	r.report.Add(rows, references()...)
	return err
}

// handshakeCourse is an inbound sidecar.
func (o *options) handshakeCourse() *course {
	c := o.plainCourse(report.Handshake)
	c.chain = oneSecure
	return c
}

// handshake measures full handshakes at an inbound sidecar.
func (r *runner) handshake(ctx context.Context) error {
	beds, end, err := r.lineUp(ctx, r.o.handshakeCourse())
	if err != nil || beds == nil {
		return err
	}
	defer end()
	beds = beds[1:]
	cfg, err := tlsConfig(r.certs.web)
	if err != nil {
		return err
	}
	cfg.ClientSessionCache = nil // without one no session is ever resumed
	l, each := level{handshakeConnections, 1}, load.Config{Connections: handshakeConnections, TLS: cfg, Reconnect: true}
	samples, err := r.rounds(ctx, beds, r.o.sliceTime(), func(*bed) load.Config { return each })
	r.report.Add(r.rows(report.Handshake, l, beds, samples), references()...)
	r.profile(ctx, report.Handshake, l, beds, each)
	return err
}

// rounds measures a slice of the given length of every bed in each round. A round begins with
// another bed each time, so that none always follows the same one. When the
// context ends the whole rounds so far are returned with the error.
//
// Half a slice of each comes first and is not measured: the connections
// between the proxies are made there, 256 handshakes in a mesh hop. Errors in
// it count all the same.
func (r *runner) rounds(ctx context.Context, beds []*bed, length time.Duration, cfg func(*bed) load.Config) ([][]report.Sample, error) {
	samples := make([][]report.Sample, len(beds))
	for k, b := range beds {
		s, err := r.slice(ctx, b, cfg(b), r.o.sliceTime()/2)
		if ctx.Err() != nil {
			return samples, ctx.Err()
		}
		if err == nil && s.Errors > 0 {
			samples[k] = append(samples[k], report.Sample{Round: -1, Errors: s.Errors, FirstError: s.FirstError})
		}
	}
	for round := range r.o.slices {
		this := make([]report.Sample, len(beds))
		for i := range beds {
			k := (i + round) % len(beds)
			s, err := r.slice(ctx, beds[k], cfg(beds[k]), length)
			if ctx.Err() != nil {
				return samples, ctx.Err()
			}
			if err != nil { // the subject is gone or takes no connection: that is a result, too
				s = report.Sample{Errors: 1, FirstError: err.Error()}
			}
			s.Round = round
			this[k] = s
		}
		for k, s := range this {
			samples[k] = append(samples[k], s)
		}
	}
	return samples, nil
}

// slice makes load for the given time after a warm-up and accounts for it.
func (r *runner) slice(ctx context.Context, b *bed, cfg load.Config, length time.Duration) (report.Sample, error) {
	pids, err := b.pids()
	if err != nil {
		return report.Sample{}, err
	}
	cfg.Addr, cfg.Warmup, cfg.Duration = b.entry, r.o.warmup(), length
	count := procstat.CountInstructions
	if !r.instructions {
		count = func([]int) (*procstat.Counter, error) { return nil, nil }
	}
	counter, err := count(pids)
	if err != nil {
		return report.Sample{}, err
	}
	defer counter.Close()
	var from, to usage
	cfg.AtStart = func() { from = readUsage(pids, counter) }
	cfg.AtEnd = func() { to = readUsage(pids, counter) }
	res, err := load.Run(ctx, cfg)
	for _, e := range []error{err, from.err, to.err} {
		if e != nil {
			return report.Sample{}, e
		}
	}
	cpu := to.cpu - from.cpu
	s := report.Sample{
		Busy:       100 * float64(cpu) / float64(res.Elapsed),
		P50:        micros(res.Latency.Quantile(0.5)),
		P99:        micros(res.Latency.Quantile(0.99)),
		P999:       micros(res.Latency.Quantile(0.999)),
		Requests:   res.Requests,
		Reconnects: res.Reconnects,
		Errors:     res.Errors,
		FirstError: res.FirstError,
	}
	if cfg.Reconnect {
		s.Reconnects = 0 // each request was meant to have a connection of its own
	}
	units := res.Exchanges
	if cfg.Protocol == load.TCP {
		units = float64(res.Bytes) / 1e6
		s.Throughput = units / res.Elapsed.Seconds()
	}
	if res.Requests > 0 && units > 0 {
		s.CPU = micros(cpu) / units
		s.Instructions = float64(to.instructions-from.instructions) / units
	}
	return s, nil
}

// usage is what a subject had used at one moment.
type usage struct {
	cpu          time.Duration
	instructions uint64
	err          error
}

func readUsage(pids []int, counter *procstat.Counter) usage {
	cpu, err1 := procstat.TreeCPU(pids)
	n, err2 := counter.Read()
	return usage{cpu, n, errors.Join(err1, err2)}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// rows summarises the samples of all beds and tells of them.
func (r *runner) rows(scenario string, l level, beds []*bed, samples [][]report.Sample) []report.Row {
	rows := make([]report.Row, 0, len(beds))
	for i, b := range beds {
		if len(samples[i]) == 0 {
			continue
		}
		row := report.Summarise(scenario, l.connections*l.streams, b.name, samples[i])
		if l.streams > 1 {
			row.Streams = l.streams
		}
		row.RSSStartKB = b.startRSS
		rows = append(rows, row)
		r.tell(&row)
	}
	return rows
}

// tell prints one row while the run goes on.
func (r *runner) tell(row *report.Row) {
	line := fmt.Sprintf("  %-16s c=%-5d%-14s", row.Scenario, row.Connections, row.Subject)
	switch {
	case row.KBPerConnection != nil:
		line += fmt.Sprintf("%8.2f kB a connection, %d kB at start", *row.KBPerConnection, row.RSSStartKB)
	case row.HandshakeCPU > 0:
		line += fmt.Sprintf("%8.1f µs CPU a handshake, best %.1f", row.HandshakeCPU, row.CPUMin)
	case row.CPUPerMB > 0:
		line += fmt.Sprintf("%8.1f µs CPU a MB, best %.1f, ±%.0f %%, %.0f MB a CPU second, core %.0f %% busy", row.CPUPerMB, row.CPUMin, row.CPUSpread, row.MBPerCPU, row.Busy)
	default:
		line += fmt.Sprintf("%8.1f µs CPU, best %.1f, ±%.0f %%, core %.0f %% busy, p50 %.0f, p99 %.0f µs", row.CPU, row.CPUMin, row.CPUSpread, row.Busy, row.P50, row.P99)
	}
	if row.Errors > 0 {
		line += fmt.Sprintf("  !! %d errors, the first: %s", row.Errors, row.FirstError)
	}
	r.say("%s", line)
}
