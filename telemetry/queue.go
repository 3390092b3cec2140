package telemetry

import "time"

// Priority is whose turn comes first in a queue, in the order and with the words
// of the machine that decides.
type Priority uint8

const priorityCount = 4

var priorityNames = [priorityCount]string{"critical", "high", "normal", "low"}

// String returns the label value.
func (p Priority) String() string { return nameOf(priorityNames[:], int(p)) }

// QueueResult is what became of one that would wait for its turn, in the order
// and with the words of the machine that decides.
type QueueResult uint8

const queueResultCount = 8

var queueResultNames = [queueResultCount]string{
	"entered", "full", "displaced", "delayed", "waited_out", "too_late", "gone", "stopped",
}

// String returns the label value.
func (r QueueResult) String() string { return nameOf(queueResultNames[:], int(r)) }

// queueing counts what became of those who would wait.
type queueing struct {
	results [priorityCount][queueResultCount]Counter
	waits   histogram
}

// Queued counts one that would wait for its turn: what became of it, and how long
// it has waited.
func (c *Cluster) Queued(p Priority, r QueueResult, waited time.Duration) {
	if p < priorityCount && r < queueResultCount {
		c.count().queueing.results[p][r].Inc()
		c.count().queueing.waits.observe(waited)
	}
}

// QueueTotals are the sums of a cluster's queue since its handle was made.
type QueueTotals struct {
	Results [priorityCount][queueResultCount]uint64
	Waits   Distribution
}

// QueueTotals returns the sums so far.
func (c *Cluster) QueueTotals() QueueTotals {
	var t QueueTotals
	counts := c.counted()
	for p := range t.Results {
		for r := range t.Results[p] {
			t.Results[p][r] = counts.queueing.results[p][r].Value()
		}
	}
	counts.queueing.waits.addTo(&t.Waits)
	return t
}

func (c *Cluster) collectQueue(s *scrape) {
	t := c.QueueTotals()
	for p := range t.Results {
		for r, n := range t.Results[p] {
			s.cell(mQueueResults, uint16(p*queueResultCount+r), n, priorityNames[p], queueResultNames[r])
		}
	}
	if t.Waits.Count() > 0 {
		s.histogram(mQueueWait, &t.Waits)
	}
}

// AdaptiveState is what an adaptive limit knows.
type AdaptiveState struct {
	Limit             float64
	Baseline, Latency time.Duration // 0: not known yet
}

func (s *scrape) adaptive(f func() (AdaptiveState, bool)) {
	if f == nil || s.retiring {
		return
	}
	if a, ok := f(); ok {
		s.gauge(mAdaptiveLimit, a.Limit)
		s.gauge(mAdaptiveBaseline, a.Baseline.Seconds())
		s.gauge(mAdaptiveLatency, a.Latency.Seconds())
	}
}
