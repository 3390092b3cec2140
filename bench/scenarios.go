package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/procstat"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// Connections of the scenarios that have a fixed number of them.
const (
	latencyConnections   = 16
	handshakeConnections = 4
)

// references are the peers that ratios are made to.
func references() []string { return []string{"haproxy", "nginx"} }

// scenarios runs what was asked for, one after the other.
func (r *runner) scenarios(ctx context.Context) error {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{report.H1Plain, func(ctx context.Context) error { return r.closedLoop(ctx, report.H1Plain, onePlain) }},
		{report.MeshHop, func(ctx context.Context) error { return r.closedLoop(ctx, report.MeshHop, meshPair) }},
		{report.Latency, r.latency},
		{report.Idle, r.idle},
		{report.Handshake, r.handshake},
	}
	for _, s := range steps {
		if !slices.Contains(r.o.scenarios, s.name) {
			continue
		}
		r.say("\n%s", s.name)
		if err := s.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// lineUp sets all subjects up for a scenario. One that cannot be is left out
// of it with a note.
func (r *runner) lineUp(ctx context.Context, scenario string, chain topology) ([]*bed, func(), error) {
	var beds []*bed
	end := func() {
		for _, b := range beds {
			b.tearDown()
		}
	}
	for _, s := range r.subjects {
		b, err := r.setUp(ctx, s, chain)
		if ctx.Err() != nil {
			if b != nil {
				b.tearDown()
			}
			end()
			return nil, nil, ctx.Err()
		}
		if err != nil {
			r.leaveOut(scenario, s.name(), err)
			continue
		}
		beds = append(beds, b)
	}
	return beds, end, nil
}

func (r *runner) leaveOut(scenario, subject string, err error) {
	r.failed = true
	r.note("%s is left out of %s: %v", subject, scenario, err)
}

// closedLoop measures h1-plain and mesh-hop.
func (r *runner) closedLoop(ctx context.Context, scenario string, chain topology) error {
	beds, end, err := r.lineUp(ctx, scenario, chain)
	if err != nil {
		return err
	}
	defer end()
	for _, n := range r.o.connections {
		samples, err := r.rounds(ctx, beds, func(b *bed) load.Config {
			return load.Config{Connections: n}
		})
		rows := r.rows(scenario, n, beds, samples)
		r.report.Add(rows, references()...)
		if err != nil {
			return err
		}
	}
	return nil
}

// latency measures at a fixed rate, through each subject and directly.
func (r *runner) latency(ctx context.Context) error {
	beds, end, err := r.lineUp(ctx, report.Latency, onePlain)
	if err != nil {
		return err
	}
	defer end()
	beds = append([]*bed{{name: direct, entry: r.origin}}, beds...)
	samples, err := r.rounds(ctx, beds, func(b *bed) load.Config {
		return load.Config{Connections: latencyConnections, Rate: r.o.rate}
	})
	rows := r.rows(report.Latency, latencyConnections, beds, samples)
	for i := range rows {
		rows[i].Rate = r.o.rate
	}
	report.SubtractDirect(rows, direct)
	r.report.Add(rows, references()...)
	return err
}

// handshake measures full handshakes at an inbound sidecar.
func (r *runner) handshake(ctx context.Context) error {
	beds, end, err := r.lineUp(ctx, report.Handshake, oneSecure)
	if err != nil {
		return err
	}
	defer end()
	cfg, err := tlsConfig(r.certs.web)
	if err != nil {
		return err
	}
	cfg.ClientSessionCache = nil // without one no session is ever resumed
	samples, err := r.rounds(ctx, beds, func(b *bed) load.Config {
		return load.Config{Connections: handshakeConnections, TLS: cfg, Reconnect: true}
	})
	r.report.Add(r.rows(report.Handshake, handshakeConnections, beds, samples), references()...)
	return err
}

// rounds measures a slice of every bed in each round. A round begins with
// another bed each time, so that none always follows the same one. When the
// context ends the whole rounds so far are returned with the error.
//
// Half a slice of each comes first and is not measured: the connections
// between the proxies are made there, 256 handshakes in a mesh hop. Errors in
// it count all the same.
func (r *runner) rounds(ctx context.Context, beds []*bed, cfg func(*bed) load.Config) ([][]report.Sample, error) {
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
			s, err := r.slice(ctx, beds[k], cfg(beds[k]), r.o.sliceTime())
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
	var from, to time.Duration
	var err1, err2 error
	cfg.AtStart = func() { from, err1 = procstat.TreeCPU(pids) }
	cfg.AtEnd = func() { to, err2 = procstat.TreeCPU(pids) }
	res, err := load.Run(ctx, cfg)
	for _, e := range []error{err, err1, err2} {
		if e != nil {
			return report.Sample{}, e
		}
	}
	s := report.Sample{
		Busy:       100 * float64(to-from) / float64(res.Elapsed),
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
	if res.Requests > 0 {
		s.CPU = micros(to-from) / float64(res.Requests)
	}
	return s, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// rows summarises the samples of all beds and tells of them.
func (r *runner) rows(scenario string, connections int, beds []*bed, samples [][]report.Sample) []report.Row {
	rows := make([]report.Row, 0, len(beds))
	for i, b := range beds {
		if len(samples[i]) == 0 {
			continue
		}
		row := report.Summarise(scenario, connections, b.name, samples[i])
		row.RSSStartKB = b.startRSS
		rows = append(rows, row)
		r.tell(&row)
	}
	return rows
}

// tell prints one row while the run goes on.
func (r *runner) tell(row *report.Row) {
	line := fmt.Sprintf("  c=%-5d%-14s", row.Connections, row.Subject)
	switch {
	case row.KBPerConnection != nil:
		line += fmt.Sprintf("%8.2f kB a connection, %d kB at start", *row.KBPerConnection, row.RSSStartKB)
	case row.HandshakeCPU > 0:
		line += fmt.Sprintf("%8.1f µs CPU a handshake, best %.1f", row.HandshakeCPU, row.CPUMin)
	default:
		line += fmt.Sprintf("%8.1f µs CPU, best %.1f, ±%.0f %%, core %.0f %% busy, p50 %.0f, p99 %.0f µs", row.CPU, row.CPUMin, row.CPUSpread, row.Busy, row.P50, row.P99)
	}
	if row.Errors > 0 {
		line += fmt.Sprintf("  !! %d errors, the first: %s", row.Errors, row.FirstError)
	}
	r.say("%s", line)
}

// once sends one request and reads its answer.
func (r *runner) once(ctx context.Context, addr netip.AddrPort) error {
	h, err := load.Hold(ctx, addr, 1, nil)
	if err != nil {
		return err
	}
	h.Close()
	return nil
}
