package rerun

import (
	"cmp"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// Measure is what a log says of a cluster, for whoever makes a policy for it.
type Measure struct {
	Name    string
	Inbound bool
	Span    time.Duration

	Requests   int
	Idempotent int
	Callers    int // that went away
	// Whole is how long the exchanges took that were answered well, Answered how long
	// attempts did, and Heads how long to the first byte; each sorted.
	Whole, Answered, Heads []time.Duration
	GivenUp                int // attempts, after a timeout

	Active     []uint32 // how many were in flight when one came, sorted
	First      int      // first attempts that failed so that another could be made
	Again      int      // exchanges with another attempt
	AgainGood  int      // of these, answered well
	Third      int      // exchanges with a third attempt
	ThirdGood  int      // of these, answered well
	MostAgain  float64  // the largest share of retries in 10 s, in percent
	Endpoints  []EndpointMeasure
	Refused    int // by limits and breakers
	Background float64
}

// EndpointMeasure is what a log says of one endpoint.
type EndpointMeasure struct {
	Address  string
	Attempts int
	Failed   int
	InARow   int // the most failures without a success between
	// Worst is the largest share of failures in 10 s of at least 20 attempts, in percent.
	Worst float64
}

// Clusters returns how many clusters the log names.
func (t *Trace) Clusters() int { return len(t.clusters) }

// Measure measures cluster i.
func (t *Trace) Measure(i int) *Measure {
	c := t.clusters[i]
	m := &Measure{Name: c.name, Inbound: c.inbound, Span: t.Span}
	var firsts, retries []time.Duration
	for k := range t.requests {
		r := &t.requests[k]
		if int(r.cluster) != i {
			continue
		}
		t.count(m, r)
		if r.n > 0 {
			firsts = append(firsts, r.begin)
			for j := 1; j < int(r.n); j++ {
				retries = append(retries, t.attempts[int(r.first)+j].begin)
			}
		}
	}
	slices.Sort(m.Whole)
	slices.Sort(m.Answered)
	slices.Sort(m.Heads)
	m.MostAgain = mostShare(firsts, retries, 10*time.Second, 50)
	t.flights(m, i)
	t.endpoints(m, c)
	return m
}

func (t *Trace) count(m *Measure, r *request) {
	m.Requests++
	if r.marks&outcomes.Idempotent != 0 {
		m.Idempotent++
	}
	switch {
	case r.reason == outcome.OK:
		m.Whole = append(m.Whole, r.end-r.at)
	case r.reason == outcome.DownstreamGone:
		m.Callers++
	case r.reason.Row().Source == outcome.SourceLocal:
		m.Refused++
	}
	for j := range int(r.n) {
		a := &t.attempts[int(r.first)+j]
		switch {
		case a.reason == outcome.OK:
			m.Answered = append(m.Answered, a.took)
			m.Heads = append(m.Heads, max(a.head, 1))
		case a.reason == outcome.RequestTimeout || a.reason == outcome.TryTimeout:
			m.GivenUp++
		}
		if j == 0 && repeatable(a.reason, r.marks) {
			m.First++
		}
	}
	good := r.reason == outcome.OK
	if r.n >= 2 {
		m.Again++
		if good {
			m.AgainGood++
		}
	}
	if r.n >= 3 {
		m.Third++
		if good {
			m.ThirdGood++
		}
	}
}

// repeatable reports whether another attempt may follow one that ended so.
func repeatable(r outcome.Reason, m outcomes.Marks) bool {
	switch r.Row().Retryable {
	case outcome.RetryUnsent:
		return m&outcomes.Replayable != 0
	case outcome.RetryIdempotent:
		return m&outcomes.Idempotent != 0 && m&outcomes.Replayable != 0
	}
	return false
}

// mostShare is the largest share, in percent, of part to whole in a stretch of d with
// at least least of whole.
func mostShare(whole, part []time.Duration, d time.Duration, least int) float64 {
	slices.Sort(whole)
	slices.Sort(part)
	most, p := 0.0, 0
	for from := 0; from < len(whole); {
		end := whole[from] + d
		to := from
		for to < len(whole) && whole[to] < end {
			to++
		}
		for p < len(part) && part[p] < whole[from] {
			p++
		}
		n := 0
		for p < len(part) && part[p] < end {
			p++
			n++
		}
		if to-from >= least {
			most = max(most, percent(float64(n), float64(to-from)))
		}
		from = to
	}
	return most
}

// flights counts how many requests were in flight when each came.
func (t *Trace) flights(m *Measure, cluster int) {
	var ends []time.Duration
	for k := range t.requests {
		if r := &t.requests[k]; int(r.cluster) == cluster && r.n > 0 {
			ends = append(ends, r.end)
		}
	}
	slices.Sort(ends)
	begun, over := 0, 0
	for k := range t.requests {
		r := &t.requests[k]
		if int(r.cluster) != cluster || r.n == 0 {
			continue
		}
		for over < len(ends) && ends[over] <= r.begin {
			over++
		}
		begun++
		m.Active = append(m.Active, uint32(max(begun-over, 1)))
	}
	slices.Sort(m.Active)
}

// endpoints measures the endpoints of c.
func (t *Trace) endpoints(m *Measure, c *cluster) {
	var shares []float64
	for name, s := range c.byName {
		e := EndpointMeasure{Address: t.names[name], Attempts: len(s.list)}
		var all, bad []time.Duration
		row := 0
		byEnd := slices.Clone(s.list)
		slices.SortFunc(byEnd, func(a, b uint32) int {
			return cmp.Compare(t.attempts[a].begin+t.attempts[a].took, t.attempts[b].begin+t.attempts[b].took)
		})
		for _, i := range byEnd {
			a := &t.attempts[i]
			all = append(all, a.begin)
			if !a.reason.Row().Blame {
				row = 0
				continue
			}
			bad = append(bad, a.begin)
			e.Failed++
			row++
			e.InARow = max(e.InARow, row)
		}
		e.Worst = mostShare(all, bad, 10*time.Second, 20)
		shares = append(shares, percent(float64(e.Failed), float64(e.Attempts)))
		m.Endpoints = append(m.Endpoints, e)
	}
	slices.SortFunc(m.Endpoints, func(a, b EndpointMeasure) int { return cmp.Compare(a.Address, b.Address) })
	if n := len(shares); n > 0 {
		slices.Sort(shares)
		m.Background = shares[(n-1)/2]
	}
}

// Quantile returns the q-quantile of sorted values; 0 of none.
func Quantile[T any](sorted []T, q float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Above is the share of sorted values above v, in percent.
func Above[T cmp.Ordered](sorted []T, v T) float64 {
	n, _ := slices.BinarySearch(sorted, v)
	for n < len(sorted) && sorted[n] == v {
		n++
	}
	return percent(float64(len(sorted)-n), float64(len(sorted)))
}
