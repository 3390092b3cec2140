package rerun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// loader collects a trace.
type loader struct {
	t        *Trace
	clusters map[clusterKey]uint16
	routeOf  map[string]uint16
	epoch    uint64
	begun    bool
	offset   time.Duration // of the present epoch
	end      time.Duration // of what was read so far
}

type clusterKey struct {
	name    string
	inbound bool
}

// Load reads the log at path, the older files beside it first. With last, only what
// happened within that time before the end is taken, but for the state before it.
func Load(path string, last time.Duration) (*Trace, error) {
	names, err := outcomes.Files(path)
	if err != nil {
		return nil, err
	}
	l := newLoader()
	rd := outcomes.NewReader(nil)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // rotated away since
		}
		if err != nil {
			return nil, err
		}
		rd.Open(b)
		if err := l.read(rd); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	t := l.finish(last)
	t.Damage = rd.Damage()
	return t, nil
}

func newLoader() *loader {
	return &loader{t: &Trace{nameOf: map[string]uint32{}}, clusters: map[clusterKey]uint16{}, routeOf: map[string]uint16{}}
}

func (l *loader) read(rd *outcomes.Reader) error {
	for {
		r, err := rd.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l.add(&r)
	}
}

func (l *loader) add(r *outcomes.Record) {
	var at time.Duration
	switch {
	case r.Event != nil:
		at = r.Event.At
	default:
		at = r.Exchange.At
	}
	if !l.begun || r.Epoch != l.epoch {
		l.process(r, at)
	}
	if r.Event != nil {
		l.event(r.Event, at+l.offset)
	} else {
		l.exchange(r.Exchange, r.Attempts)
	}
}

// process begins with a record of another process: its clock is laid behind that of
// the one before, as far as the time of day tells and at least a second.
func (l *loader) process(r *outcomes.Record, at time.Duration) {
	if !l.begun {
		l.t.From, l.t.start = r.Wall, at
	} else {
		start := max(r.Wall.Sub(l.t.From)+l.t.start, l.end+time.Second)
		// By whole minutes, so that windows begin anew when they did.
		l.offset = (start - at + time.Minute - 1).Truncate(time.Minute)
		start = at + l.offset
		l.t.changes = append(l.t.changes, change{at: start - 1, kind: outcomes.Began})
	}
	l.epoch, l.begun = r.Epoch, true
}

func (l *loader) cluster(name string, inbound bool) (uint16, *cluster) {
	k := clusterKey{name, inbound}
	i, ok := l.clusters[k]
	if !ok {
		i = uint16(len(l.t.clusters))
		l.clusters[k] = i
		l.t.clusters = append(l.t.clusters, &cluster{name: name, inbound: inbound, byName: map[uint32]*series{}})
	}
	return i, l.t.clusters[i]
}

func (t *Trace) name(s string) uint32 {
	i, ok := t.nameOf[s]
	if !ok {
		i = uint32(len(t.names))
		t.nameOf[s] = i
		t.names = append(t.names, s)
	}
	return i
}

func (l *loader) event(e *outcomes.Event, at time.Duration) {
	l.end = max(l.end, at)
	c := change{at: at, kind: e.Kind}
	switch e.Kind {
	case outcomes.Configured:
		if e.Text == "" {
			return
		}
		if n := len(l.t.configs); n == 0 || l.t.configs[n-1] != e.Text {
			l.t.configs = append(l.t.configs, e.Text)
		}
		c.config = len(l.t.configs) - 1
	case outcomes.Endpoints:
		c.cluster, _ = l.cluster(e.Cluster, e.Inbound)
		c.list = e.List
	case outcomes.Judged:
		i, k := l.cluster(e.Cluster, e.Inbound)
		c.cluster, c.word = i, e.Random
		switch e.Verdict {
		case outlier.KindEjected:
			k.facts.Ejections++
		case outlier.KindWouldEject:
			k.facts.WouldEject++
		case outlier.KindReadmitted:
			k.facts.Readmissions++
		}
	case outcomes.Breaker:
		if _, k := l.cluster(e.Cluster, e.Inbound); e.To == breaker.Open && e.From != breaker.Open {
			k.facts.BreakerOpened++
		}
		return
	default:
		return
	}
	l.t.changes = append(l.t.changes, c)
}

func (l *loader) exchange(x *outcomes.Exchange, attempts []outcomes.Attempt) {
	t := l.t
	end := x.At + x.Duration + l.offset
	l.end = max(l.end, end)
	if !decided(x) {
		t.outside++
		return
	}
	i, k := l.cluster(x.Cluster, x.Marks&outcomes.Inbound != 0)
	k.facts.count(x, attempts)
	r := request{
		at: x.At + l.offset, end: end, key: x.Key, first: uint32(len(t.attempts)), cluster: i, route: l.route(x.Route),
		status: x.Status, n: uint8(len(attempts)), reason: x.Reason, marks: x.Marks,
	}
	r.begin = end // where nothing was tried the refusal is what happened
	if x.Refused > 0 {
		r.refused = r.at + x.Refused
		r.begin = r.refused
	}
	if x.Deadline > 0 {
		r.deadline = r.at + x.Deadline
	}
	for j := range attempts {
		a := &attempts[j]
		b := attempt{
			begin: r.at + a.Offset, took: a.Duration, head: a.First, rtt: max(a.RTT(), 1), endpoint: t.name(a.Endpoint),
			status: a.Status, reason: a.Reason, hedge: a.Marks&outcomes.Hedge != 0,
		}
		if a.Marks&outcomes.Asked != 0 && a.Wait > 0 {
			b.wait, b.waited = a.Wait, true
		}
		if b.reason == outcome.OK && j < len(attempts)-1 && !b.hedge {
			// Held back for its gRPC status, and tried again.
			b.reason = outcome.UpstreamError
		}
		t.attempts = append(t.attempts, b)
	}
	if len(attempts) > 0 {
		r.begin = r.at + max(attempts[0].Offset-x.Waited, 0)
	}
	t.requests = append(t.requests, r)
}

func (l *loader) route(name string) uint16 {
	i, ok := l.routeOf[name]
	if !ok {
		i = uint16(len(l.t.routes))
		l.routeOf[name] = i
		l.t.routes = append(l.t.routes, name)
	}
	return i
}
