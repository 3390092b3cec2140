package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/internal/hist"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// Counts are events of a client.
type Counts struct {
	Offered uint64 // exchanges that began
	Good    uint64 // ended with OK
	Refused uint64 // ended by a decision of the client itself: a guard, no endpoints
	Failed  uint64 // ended in another way

	Sent      uint64 // attempts, of which ...
	Retries   uint64 // ... came after a failed one ...
	Hedges    uint64 // ... and beside one that was waited for
	HedgesWon uint64 // exchanges that a hedge answered

	Ejections, Readmissions, WouldEject uint64
	BreakerOpened                       uint64
	Panics                              uint64 // times that the panic rule began to hold
}

// Add adds o's events to c's.
func (c *Counts) Add(o *Counts) {
	c.Offered += o.Offered
	c.Good += o.Good
	c.Refused += o.Refused
	c.Failed += o.Failed
	c.Sent += o.Sent
	c.Retries += o.Retries
	c.Hedges += o.Hedges
	c.HedgesWon += o.HedgesWon
	c.Ejections += o.Ejections
	c.Readmissions += o.Readmissions
	c.WouldEject += o.WouldEject
	c.BreakerOpened += o.BreakerOpened
	c.Panics += o.Panics
}

// Ended is how many exchanges have ended. With those that are active it is
// Offered.
func (c *Counts) Ended() uint64 { return c.Good + c.Refused + c.Failed }

// Point is what happened in one interval of the time series.
type Point struct {
	At time.Duration // its beginning
	Counts
	// Latencies of the good exchanges that ended in it; 0 without one.
	P50, P90, P99, Max time.Duration
	// As things stood at its end.
	Active int64 // exchanges that had begun and not ended
	Out    int64 // endpoints ejected or on probation, for each client
	Open   int64 // breakers that were not closed
	Limit  int64 // limits on active requests added up, as far as there are any
}

// Window counts the exchanges that began within it, and what came of them.
type Window struct {
	From, To time.Duration // To is behind the last moment
	Began    uint64
	Good     uint64
	Refused  uint64
	Failed   uint64
	Attempts uint64
	// Latency is that of the good ones.
	Latency hist.Histogram
}

// Stats is what has happened to the exchanges of a client.
type Stats struct {
	// Interval is that of Points. It may be set before the first exchange;
	// default 1s.
	Interval time.Duration
	// Points is the time series, without the interval that is not over.
	Points []Point
	// Reasons is how many exchanges ended for which outcome.Reason.
	Reasons [outcome.Count]uint64
	// Withheld is how often the retry machine gave which retry.Why.
	Withheld [32]uint64
	// Causes is how many ejections had which outlier.Cause.
	Causes [32]uint64
	// Latency is that of the good exchanges.
	Latency hist.Histogram

	total   Counts
	now     Point
	recent  hist.Histogram // of the interval that is not over
	windows []*Window
}

// Total is everything so far.
func (s *Stats) Total() Counts {
	t := s.total
	t.Add(&s.now.Counts)
	return t
}

// Active is how many exchanges have begun and not ended.
func (s *Stats) Active() int64 { return s.now.Active }

// Watch counts the exchanges that begin within [from, to) apart as well.
func (s *Stats) Watch(from, to time.Duration) *Window {
	w := &Window{From: from, To: to}
	s.windows = append(s.windows, w)
	return w
}

// count is where the present interval counts.
func (s *Stats) count() *Counts { return &s.now.Counts }

// advance closes the intervals that are over.
func (s *Stats) advance(now time.Duration) {
	for {
		if s.Interval <= 0 {
			s.Interval = time.Second
		}
		if now < s.now.At+s.Interval {
			return
		}
		s.closePoint()
	}
}

func (s *Stats) closePoint() {
	p := s.now
	if s.recent.Count() > 0 {
		p.P50, p.P90, p.P99, p.Max = s.recent.Quantile(.5), s.recent.Quantile(.9), s.recent.Quantile(.99), s.recent.Max()
		s.recent.Reset()
	}
	s.Points = append(s.Points, p)
	s.total.Add(&p.Counts)
	s.now = Point{At: p.At + s.Interval, Active: p.Active, Out: p.Out, Open: p.Open, Limit: p.Limit}
}

// Close ends the time series at now, after the last event.
func (s *Stats) Close(now time.Duration) {
	s.advance(now)
	if s.now.Counts != (Counts{}) {
		s.closePoint()
	}
}

// began counts the beginning of an exchange.
func (s *Stats) began(now time.Duration) {
	s.now.Offered++
	s.now.Active++
	for _, w := range s.windows {
		if now >= w.From && now < w.To {
			w.Began++
		}
	}
}

// ended counts the end of an exchange that began at start.
func (s *Stats) ended(start time.Duration, e End) {
	s.now.Active--
	s.Reasons[e.Reason]++
	n := &s.now.Counts
	switch {
	case e.Reason == outcome.OK:
		n.Good++
		s.Latency.Record(e.Latency)
		s.recent.Record(e.Latency)
	case e.Reason.Row().Source == outcome.SourceLocal:
		n.Refused++
	default:
		n.Failed++
	}
	for _, w := range s.windows {
		if start >= w.From && start < w.To {
			w.ended(e)
		}
	}
}

func (w *Window) ended(e End) {
	w.Attempts += uint64(e.Attempts)
	switch {
	case e.Reason == outcome.OK:
		w.Good++
		w.Latency.Record(e.Latency)
	case e.Reason.Row().Source == outcome.SourceLocal:
		w.Refused++
	default:
		w.Failed++
	}
}

// Ended is how many exchanges the window has counted.
func (w *Window) Ended() uint64 { return w.Good + w.Refused + w.Failed }
