package faults

import (
	"fmt"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// mark is what a cluster has counted at a moment.
type mark struct {
	at time.Duration
	v  upstream.Vitals
}

type clusterKey struct {
	name      string
	direction telemetry.Direction
}

// baseline keeps for each cluster some marks of the last minute, oldest first.
type baseline map[clusterKey][]mark

// take adds marks where the last ones are old enough, and forgets older ones
// and clusters that are gone.
func (b baseline) take(now time.Duration, all []upstream.Vitals) {
	for k := range b {
		if find(all, k.name, k.direction) == nil {
			delete(b, k)
		}
	}
	for i := range all {
		k := clusterKey{all[i].Cluster, all[i].Direction}
		list := b[k]
		if n := len(list); n > 0 && now-list[n-1].at < markEvery {
			continue
		}
		old := 0
		for old < len(list) && list[old].at < now-beforehand {
			old++
		}
		b[k] = append(slices.Delete(list, 0, old), mark{now, all[i]})
	}
}

func find(all []upstream.Vitals, cluster string, d telemetry.Direction) *upstream.Vitals {
	for i := range all {
		if all[i].Cluster == cluster && all[i].Direction == d {
			return &all[i]
		}
	}
	return nil
}

// report is what clusters did before, under and after a fault.
type report struct {
	places []place
	done   bool // nothing is added any more
}

// place is one cluster. The marks bound three phases; the last ones are missing
// while they lie ahead.
type place struct {
	key   clusterKey
	marks []mark // at most 4
}

// begin notes the cluster of the fault, and the own service behind the inbound
// listener, whose callers may feel it.
func (p *report) begin(r *Rule, now time.Duration, all []upstream.Vitals, before baseline) {
	for i := range all {
		v := &all[i]
		k := clusterKey{v.Cluster, v.Direction}
		own := k == clusterKey{r.Cluster, r.Direction}
		if !own && v.Direction != telemetry.Inbound {
			continue
		}
		first := mark{now, *v}
		if list := before[k]; len(list) > 0 {
			first = list[0]
		}
		pl := place{key: k, marks: []mark{first, {now, *v}}}
		if own {
			p.places = slices.Insert(p.places, 0, pl)
		} else {
			p.places = append(p.places, pl)
		}
	}
}

func (p *report) stop(now time.Duration, all []upstream.Vitals) {
	for i := range p.places {
		pl := &p.places[i]
		m := mark{at: now, v: pl.marks[1].v} // of a cluster that is gone nothing is known
		if v := find(all, pl.key.name, pl.key.direction); v != nil {
			m.v = *v
		}
		pl.marks = append(pl.marks, m, m)
	}
}

// follow moves the end of the last phase until it is long enough.
func (p *report) follow(now, end time.Duration, all []upstream.Vitals) {
	if p.done {
		return
	}
	for i := range p.places {
		pl := &p.places[i]
		if v := find(all, pl.key.name, pl.key.direction); v != nil {
			pl.marks[3] = mark{now, *v}
		}
	}
	p.done = now-end >= afterwards
}

// Numbers are what a cluster did in a time.
type Numbers struct {
	Over       time.Duration
	Requests   uint64
	Good       uint64 // of them, with outcome ok
	Failed     uint64 // failed, and not by the caller's doing
	Met        uint64 // exchanges that met a fault
	MetFailed  uint64 // of Failed, that had met one
	ByFault    uint64 // exchanges that a fault itself has ended: the caller saw it
	Retries    uint64 // attempts after the first
	Again      uint64 // of them, after one that a fault had ended
	Ejections  uint64
	Openings   uint64 // of the breaker
	P50, P90   time.Duration
	P99        time.Duration
	Injections [fault.Kinds]uint64
}

func between(a, b *mark) Numbers {
	o, v := &a.v, &b.v
	less := func(a, b uint64) uint64 { return a - min(a, b) } // a cluster may have been made anew
	n := Numbers{
		Over: b.at - a.at, Requests: less(v.Exchanges, o.Exchanges), Failed: less(v.Failed, o.Failed), Met: less(v.Met, o.Met), MetFailed: less(v.MetFailed, o.MetFailed), ByFault: less(v.Ended, o.Ended),
		Retries: less(v.Retries, o.Retries), Again: less(v.Again, o.Again), Ejections: less(v.Ejections, o.Ejections), Openings: less(v.Openings, o.Openings),
	}
	n.Good = less(n.Requests, less(v.Failures, o.Failures))
	for k := range n.Injections {
		n.Injections[k] = less(v.Injected[k], o.Injected[k])
	}
	d := v.Durations.Since(o.Durations)
	n.P50, n.P90, n.P99 = d.Quantile(0.5), d.Quantile(0.9), d.Quantile(0.99)
	return n
}

// Place is one cluster in a report. What lies ahead is empty.
type Place struct {
	Cluster               string
	Direction             telemetry.Direction
	Before, During, After Numbers
}

// View is a fault and its report.
type View struct {
	Fault        *plan.Fault
	By, Reason   string
	Began, Until time.Duration
	End          time.Duration // 0 while it runs
	Cause        fault.Cause
	Would        fault.Cause // what would have stopped it, were its guard not observing
	Injected     [fault.Kinds]uint64
	Places       []Place
	Complete     bool // nothing will be added to After
}

// view is what is known of r at now. b.mu is held; all is needed while it runs.
func (b *Board) view(r *Rule, now time.Duration, all []upstream.Vitals) View {
	v := View{
		Fault: r.Fault, By: r.By, Reason: r.Reason, Began: r.began, Until: r.until, End: r.end, Cause: r.cause, Would: r.would, Complete: r.report.done,
	}
	for k := range v.Injected {
		v.Injected[k] = r.injected[k].Load()
	}
	for i := range r.report.places {
		pl := &r.report.places[i]
		p := Place{Cluster: pl.key.name, Direction: pl.key.direction, Before: between(&pl.marks[0], &pl.marks[1])}
		if len(pl.marks) == 4 {
			p.During, p.After = between(&pl.marks[1], &pl.marks[2]), between(&pl.marks[2], &pl.marks[3])
		} else if s := find(all, pl.key.name, pl.key.direction); s != nil {
			p.During = between(&pl.marks[1], &mark{now, *s})
		}
		v.Places = append(v.Places, p)
	}
	return v
}

// Views returns all faults that run, in the order in which they began, and those
// that have ended as far as they are kept, the last one first.
func (b *Board) Views() []View {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, all := b.now(), b.vitals()
	views := make([]View, 0, len(b.rules)+len(b.ended))
	for _, r := range b.rules {
		views = append(views, b.view(r, now, all))
	}
	for _, r := range slices.Backward(b.ended) {
		r.report.follow(now, r.end, all)
		views = append(views, b.view(r, now, all))
	}
	return views
}

// Find returns the fault of that name: the one that runs, else the last one.
func (b *Board) Find(name string) (View, error) {
	for _, v := range b.Views() {
		if v.Fault.Name == name {
			return v, nil
		}
	}
	return View{}, fmt.Errorf("%w: no fault %.64q, nor a report of it", ErrUnknown, name)
}
