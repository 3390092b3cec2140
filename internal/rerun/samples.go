package rerun

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
)

// Source is how the end of an attempt is known.
type Source uint8

// The sources, the best first.
const (
	// Observed: the attempt was made, there and then.
	Observed Source = iota
	// Near: taken from what the same endpoint did within seconds.
	Near
	// Peers: taken from what other endpoints of the cluster did within seconds.
	Peers
	// Guessed: from whatever there is; or it is not known how long an attempt that
	// was given up would have taken.
	Guessed

	sourceCount
)

// String returns the word that is printed.
func (s Source) String() string {
	return [...]string{"observed", "inferred_endpoint", "inferred_peers", "guessed"}[s]
}

const (
	nearTime  = 5 * time.Second // what happened within it tells of a moment
	nearCount = 32              // so many of the nearest are drawn from
	nearLeast = 4               // fewer tell nothing
)

// series are attempts in the order of their beginnings.
type series struct {
	list     []uint32        // in Trace.attempts
	answered []time.Duration // how long those took that were waited for, sorted
}

// index makes the series of endpoints and clusters.
func (t *Trace) index() {
	for i := range t.requests {
		r := &t.requests[i]
		c := t.clusters[r.cluster]
		for j := range uint32(r.n) {
			a := &t.attempts[r.first+j]
			s := c.byName[a.endpoint]
			if s == nil {
				s = &series{}
				c.byName[a.endpoint] = s
			}
			s.list = append(s.list, r.first+j)
			c.all.list = append(c.all.list, r.first+j)
		}
	}
	for _, c := range t.clusters {
		c.all.sort(t)
		for _, s := range c.byName {
			s.sort(t)
		}
	}
}

func (s *series) sort(t *Trace) {
	before := func(a, b uint32) int { return cmp.Compare(t.attempts[a].begin, t.attempts[b].begin) }
	if !slices.IsSortedFunc(s.list, before) {
		slices.SortStableFunc(s.list, before)
	}
	for _, i := range s.list {
		if a := &t.attempts[i]; !censored(a.reason) {
			s.answered = append(s.answered, a.took)
		}
	}
	slices.Sort(s.answered)
}

// censored reports whether an attempt was given up, so that it is not known how it
// would have ended.
func censored(r outcome.Reason) bool {
	switch r {
	case outcome.RequestTimeout, outcome.TryTimeout, outcome.DownstreamGone, outcome.StreamIdle, outcome.MaxLifetime, outcome.Overload, outcome.Draining:
		return true
	}
	return given(r)
}

// given reports whether an attempt was given up by this proxy for another one.
func given(r outcome.Reason) bool {
	row := r.Row()
	return row.Source == outcome.SourceLocal && row.Status == 0
}

// draw returns one of the attempts of s that began nearest to at, and within d of
// it; nil where those are too few.
func (t *Trace) draw(s *series, at, d time.Duration, word uint64) *attempt {
	if s == nil || len(s.list) == 0 {
		return nil
	}
	p := sort.Search(len(s.list), func(i int) bool { return t.attempts[s.list[i]].begin >= at })
	from, to := max(p-nearCount/2, 0), min(p+nearCount/2, len(s.list))
	for from < p && at-t.attempts[s.list[from]].begin > d {
		from++
	}
	for to > p && t.attempts[s.list[to-1]].begin-at > d {
		to--
	}
	if to-from < nearLeast && d < forever || to == from {
		return nil
	}
	return &t.attempts[s.list[from+int(word%uint64(to-from))]]
}

const forever = time.Duration(1<<63 - 1)

// like returns an attempt like one at the endpoint at that time would have been.
func (t *Trace) like(c *cluster, endpoint uint32, at time.Duration, word uint64) (*attempt, Source) {
	own := c.byName[endpoint]
	if a := t.draw(own, at, nearTime, word); a != nil {
		return a, Near
	}
	if a := t.draw(&c.all, at, nearTime, word); a != nil {
		return a, Peers
	}
	if a := t.draw(own, at, forever, word); a != nil {
		return a, Guessed
	}
	return t.draw(&c.all, at, forever, word), Guessed
}

// longer draws how long an attempt would have taken that was given up after d; 0
// where no attempt there has ever taken as long.
func (s *series) longer(d time.Duration, word uint64) time.Duration {
	if s == nil {
		return 0
	}
	p := sort.Search(len(s.answered), func(i int) bool { return s.answered[i] > d })
	if p == len(s.answered) {
		return 0
	}
	return s.answered[p+int(word%uint64(len(s.answered)-p))]
}

// fate is how a ends for a client that gives it up at cut (0: never).
func (t *Trace) fate(a *attempt) replay.Fate {
	return replay.Fate{Latency: a.took, Head: a.head, RTT: a.rtt, Reason: a.reason, Status: a.status}
}
