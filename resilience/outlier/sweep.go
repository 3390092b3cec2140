package outlier

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// candidate is an endpoint that breaks a rule.
type candidate struct {
	e     *Endpoint
	cause Cause
	share float64 // of failures; the worst go first within a cause
}

// rate is an endpoint's success rate in the window.
type rate struct {
	e       *Endpoint
	success float64
}

// sweep is the state of one call of Sweep.
type sweep struct {
	d      *Detector
	s      *settings
	now    time.Duration
	r      uint64
	all    []*Endpoint
	out    int // ejected or on probation; in observe mode, those that would be
	events []Event
}

// Sweep makes every decision that is due at now and returns the decisions. all
// are the endpoints present; one that is missing keeps its state until it is
// present again. r is a fresh uniformly random word. Sweep is to be called
// every tenth of the window, and at once when Observe returns true.
func (d *Detector) Sweep(now time.Duration, r uint64, all []*Endpoint) []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.swept = now
	w := sweep{d: d, s: d.settings.Load(), now: now, r: r, all: all}
	observe := w.observing()
	for _, e := range all {
		e.mu.Lock()
		e.swept = w.s
		e.alarm.Store(false)
		if observe {
			w.shadow(e)
		} else {
			w.advance(e)
		}
		e.mu.Unlock()
	}
	if !observe {
		w.keep()
	}
	w.judge()
	w.eject()
	if observe {
		w.out = 0
	}
	d.out.Store(int64(w.out))
	return w.events
}

func (w *sweep) emit(e *Endpoint, kind Kind, cause Cause, until time.Duration) {
	w.events = append(w.events, Event{Endpoint: e, Kind: kind, Cause: cause, At: w.now, Until: until})
}

// random returns r first and then words mixed from it (SplitMix64).
func (w *sweep) random() uint64 {
	word := w.r
	w.r += 0x9e3779b97f4a7c15
	z := w.r
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	w.r = z ^ z>>31
	return word
}

// advance takes e through what time and its probe have decided.
func (w *sweep) advance(e *Endpoint) {
	if e.shadow { // of an observe mode that is over
		e.endShadow(w.now)
	}
	switch e.State() {
	case Healthy:
		e.decay(w.s, w.now)
		return
	case Ejected:
		if w.now >= e.until {
			cause := e.cause
			e.enter(Probation, cause, w.now)
			w.emit(e, KindProbation, cause, 0)
		}
	case Probation:
		switch v := e.probe.Load(); v & probeMask {
		case probePassed:
			e.enter(Healthy, ProbePassed, w.now)
			w.emit(e, KindReadmitted, ProbePassed, 0)
			return
		case probeFailed:
			w.sentence(e, ProbeFailed)
		case probeOut:
			w.expire(e, v)
		}
	}
	w.out++
}

// expire frees the probe v when it has been under way for a window.
func (w *sweep) expire(e *Endpoint, v uint32) {
	if e.probeSeq != v {
		e.probeSeq, e.probeSeen = v, w.now
		return
	}
	if w.now-e.probeSeen >= w.s.Window {
		e.probe.CompareAndSwap(v, v&^probeMask)
	}
}

// sentence ejects e. The caller holds e.mu.
func (w *sweep) sentence(e *Endpoint, cause Cause) {
	until := later(w.now, e.sentence(w.s, w.random()))
	e.enter(Ejected, cause, w.now)
	e.until = until
	e.ejections++
	w.d.ejections[cause].Add(1)
	w.emit(e, KindEjected, cause, until)
}

// observing reports whether nothing may be ejected.
func (w *sweep) observing() bool { return w.s.Mode == guard.Observe }

// shadow does what advance does in observe mode: it takes back what was
// ejected before and follows the ejections that would have been.
func (w *sweep) shadow(e *Endpoint) {
	if e.State() != Healthy {
		e.enter(Healthy, ObserveMode, w.now)
		w.emit(e, KindReadmitted, ObserveMode, 0)
		return
	}
	switch {
	case !e.shadow:
		e.decay(w.s, w.now)
		return
	case w.now < e.until:
	case e.consecutive.Load() > 0 || e.consecutiveLocal.Load() > 0:
		// The latest result is a failure, and so would the probe have been.
		w.wouldSentence(e, ProbeFailed)
	default:
		e.endShadow(w.now)
		e.past.Load().reset() // as readmission does
		return
	}
	w.out++
}

// wouldSentence records an ejection in observe mode. The caller holds e.mu.
func (w *sweep) wouldSentence(e *Endpoint, cause Cause) {
	e.until = later(w.now, e.sentence(w.s, w.random()))
	e.cause, e.shadow, e.capped = cause, true, false
	e.quiet.Store(true)
	e.clear()
	e.wouldEject++
	w.d.wouldEject[cause].Add(1)
	w.emit(e, KindWouldEject, cause, e.until)
}

// spare returns how many endpoints may be out for KeepEndpoints to stay in.
func (w *sweep) spare() int { return max(len(w.all)-int(w.s.KeepEndpoints), 0) }

// keep takes ejected endpoints back when too few are left because others are
// gone: those that would return soonest.
func (w *sweep) keep() {
	for spare := w.spare(); w.out > spare; {
		var first *Endpoint
		for _, e := range w.all {
			if e.State() != Healthy && (first == nil || e.until < first.until) {
				first = e
			}
		}
		if first == nil {
			return
		}
		first.mu.Lock()
		first.enter(Healthy, TooFewLeft, w.now)
		first.mu.Unlock()
		w.out--
		w.emit(first, KindReadmitted, TooFewLeft, 0)
	}
}

// judge collects the candidates for ejection, the worst first.
func (w *sweep) judge() {
	d := w.d
	d.candidates, d.rates = d.candidates[:0], d.rates[:0]
	for _, e := range w.all {
		if e.State() != Healthy || e.shadow {
			continue
		}
		cause, share := e.judge(w.s, w.now)
		e.breaks = cause != NoCause
		if e.breaks {
			d.candidates = append(d.candidates, candidate{e, cause, share})
		}
		if past := e.past.Load(); past != nil && w.s.SuccessRateStdev > 0 {
			if total, failed := past.window.sum(w.s, w.now); total >= uint64(w.s.MinimumRequests) {
				d.rates = append(d.rates, rate{e, float64(total-failed) / float64(total)})
			}
		}
	}
	w.compare()
	slices.SortStableFunc(d.candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), cmp.Compare(b.share, a.share))
	})
}

// compare applies the success-rate rule: the mean and the standard deviation
// of the population, as Envoy and gRPC A50 compute them.
func (w *sweep) compare() {
	d := w.d
	if w.s.SuccessRateStdev == 0 || len(d.rates) < max(int(w.s.SuccessRateMinimumEndpoints), 2) {
		return
	}
	n := float64(len(d.rates))
	var mean, variance float64
	for _, r := range d.rates {
		mean += r.success / n
	}
	for _, r := range d.rates {
		variance += (r.success - mean) * (r.success - mean) / n
	}
	// The margin keeps rounding from ejecting one of many equal endpoints.
	const margin = 1e-9
	threshold := mean - w.s.SuccessRateStdev*math.Sqrt(variance) - margin
	for _, r := range d.rates {
		if r.success < threshold && !r.e.breaks {
			r.e.breaks = true
			d.candidates = append(d.candidates, candidate{r.e, SuccessRate, 1 - r.success})
		}
	}
}

// eject acts on the candidates as far as the caps allow.
func (w *sweep) eject() {
	const margin = 1e-9 // a share such as 29 % of 100 may come out just below 29
	share := int(w.s.MaxEjectedPercent*float64(len(w.all))/100 + margin)
	limit := min(max(share, 1), w.spare())

	for _, c := range w.d.candidates {
		c.e.mu.Lock()
		switch {
		case w.out >= limit:
			if !c.e.capped {
				c.e.capped = true
				c.e.quiet.Store(true)
				w.d.capped.Add(1)
				w.emit(c.e, KindCapReached, c.cause, 0)
			}
		case w.observing():
			w.wouldSentence(c.e, c.cause)
			w.out++
		default:
			w.sentence(c.e, c.cause)
			w.out++
		}
		c.e.mu.Unlock()
	}
	w.uncap()
	clear(w.d.candidates) // keep no endpoint alive until the next Sweep
	clear(w.d.rates)
}

// uncap clears the mark of endpoints that were refused and recovered since.
func (w *sweep) uncap() {
	for _, e := range w.all {
		if e.capped && !e.breaks {
			e.mu.Lock()
			e.capped = false
			e.quiet.Store(false)
			e.mu.Unlock()
		}
	}
}
