// Package rerun runs the machines of a proxy again over an outcome log, by the configuration of the time or by another, and compares what comes of it.
package rerun

import (
	"cmp"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/hist"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// Trace is an outcome log in memory, in the order in which things happened. Its
// clock is that of the first process, for the machines' windows move by it; others
// stand behind.
type Trace struct {
	Damage outcomes.Damage
	// From is when it begins by the time of day, Span how long it is.
	From time.Time
	Span time.Duration

	clusters []*cluster
	names    []string // endpoints
	nameOf   map[string]uint32
	routes   []string
	requests []request // by begin
	attempts []attempt // of all requests
	changes  []change
	configs  []string      // the texts of configurations, in order
	phase    time.Duration // of the sweep
	start    time.Duration
	outside  uint64 // exchanges that reached no cluster or no machine
}

// cluster is what the log says of a cluster.
type cluster struct {
	name    string
	inbound bool
	facts   Facts
	byName  map[uint32]*series // what endpoints did
	all     series
}

// request is an exchange of which machines decided something.
type request struct {
	begin, at time.Duration // of its first attempt; when it came
	end       time.Duration
	refused   time.Duration // when an attempt was refused; 0 none was
	deadline  time.Duration // the caller's own, 0 none
	key       uint64
	first     uint32 // in attempts
	cluster   uint16
	route     uint16
	status    uint16
	n         uint8 // attempts
	reason    outcome.Reason
	marks     outcomes.Marks
}

// attempt is one try as it was.
type attempt struct {
	begin, took, head, rtt, wait time.Duration
	endpoint                     uint32
	status                       uint16
	reason                       outcome.Reason
	waited                       bool // wait was decided after it
	hedge                        bool
}

// change is a change of state.
type change struct {
	at      time.Duration
	kind    outcomes.Kind
	cluster uint16
	word    uint64
	config  int // in configs
	list    []outcomes.Endpoint
	own     bool // of Judged: by a turn of the sweep, not by the end of an attempt
}

// Facts are what the log itself says.
type Facts struct {
	Requests, Good, Refused, Failed uint64
	Attempts, Retries, Hedges       uint64
	Ejections, WouldEject           uint64
	Readmissions, BreakerOpened     uint64
	Reasons                         [outcome.Count]uint64
	Latency                         hist.Histogram
}

// Facts returns what the log says of each cluster, in the order of Result.Clusters.
func (t *Trace) Facts() []*Facts {
	list := make([]*Facts, len(t.clusters))
	for i, c := range t.clusters {
		list[i] = &c.facts
	}
	return list
}

// decided reports whether an exchange ended by what machines that are rerun decide,
// or by an attempt. Others end in the same way under any policy of a cluster.
func decided(x *outcomes.Exchange) bool {
	if x.Cluster == "" {
		return false
	}
	if x.Attempts > 0 {
		return true
	}
	switch x.Reason {
	case outcome.BreakerOpen, outcome.LimitRequests, outcome.NoEndpoints, outcome.RequestTimeout:
		return true
	}
	return false
}

func (f *Facts) count(x *outcomes.Exchange, attempts []outcomes.Attempt) {
	f.Requests++
	f.Attempts += uint64(x.Attempts)
	f.Reasons[x.Reason]++
	hedges := 0
	for i := range attempts {
		if attempts[i].Marks&outcomes.Hedge != 0 {
			hedges++
		}
	}
	f.Hedges += uint64(hedges)
	f.Retries += uint64(max(x.Attempts-1-hedges, 0))
	switch {
	case x.Reason == outcome.OK:
		f.Good++
		f.Latency.Record(x.Duration)
	case x.Reason.Row().Source == outcome.SourceLocal:
		f.Refused++
	default:
		f.Failed++
	}
}

// finish puts everything in order.
func (l *loader) finish(last time.Duration) *Trace {
	t := l.t
	if last > 0 && l.end-t.start > last {
		t.since(l.end - last)
	}
	slices.SortStableFunc(t.requests, func(a, b request) int { return cmp.Compare(a.begin, b.begin) })
	slices.SortStableFunc(t.changes, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	if len(t.requests) > 0 {
		t.start = max(min(t.start, t.requests[0].begin), 0)
	}
	t.Span = max(l.end-t.start, 0)
	t.index()
	t.judged()
	return t
}

// since leaves out the requests before from; state is kept.
func (t *Trace) since(from time.Duration) {
	for _, c := range t.clusters {
		e := c.facts
		c.facts = Facts{Ejections: e.Ejections, WouldEject: e.WouldEject, Readmissions: e.Readmissions, BreakerOpened: e.BreakerOpened}
	}
	t.requests = slices.DeleteFunc(t.requests, func(r request) bool { return r.at < from })
	for i := range t.requests {
		r := &t.requests[i]
		f := &t.clusters[r.cluster].facts
		x := outcomes.Exchange{Reason: r.reason, Duration: r.end - r.at, Attempts: int(r.n)}
		marks := make([]outcomes.Attempt, r.n)
		for j := range marks {
			if t.attempts[int(r.first)+j].hedge {
				marks[j].Marks = outcomes.Hedge
			}
		}
		f.count(&x, marks)
	}
}

// judged finds out which reviews of ejections came in their turn: those at whose
// time no attempt ended. Their phase is that of the sweep.
func (t *Trace) judged() {
	times := map[time.Duration]bool{}
	for i := range t.changes {
		if t.changes[i].kind == outcomes.Judged {
			times[t.changes[i].at] = true
		}
	}
	if len(times) == 0 {
		return
	}
	for i := range t.attempts {
		a := &t.attempts[i]
		if end := a.begin + a.took; times[end] {
			times[end] = false
		}
	}
	for i := range t.changes {
		if c := &t.changes[i]; c.kind == outcomes.Judged && times[c.at] {
			c.own = true
			if t.phase == 0 {
				t.phase = c.at % sweepTurn
			}
		}
	}
}

// sweepTurn is how often a proxy reviews its ejections.
const sweepTurn = 200 * time.Millisecond

// Outcomes is how many attempts and refusals the trace holds.
func (t *Trace) Outcomes() int {
	n := 0
	for i := range t.requests {
		n += max(int(t.requests[i].n), 1)
	}
	return n
}
