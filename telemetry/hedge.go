package telemetry

// HedgeResult is how an attempt ended that was started beside another.
type HedgeResult uint8

// The results.
const (
	HedgeWon       HedgeResult = iota // its answer was passed on
	HedgeCancelled                    // another attempt answered first, or nobody waited any more
	HedgeFailed

	hedgeResultCount
)

var hedgeResultNames = [hedgeResultCount]string{"won", "cancelled", "failed"}

// String returns the label value.
func (r HedgeResult) String() string { return nameOf(hedgeResultNames[:], int(r)) }

// HedgeAnswer is the answer to whether another attempt may be started beside a
// slow one, in the order and with the words of the machine that gives it.
type HedgeAnswer uint8

const hedgeAnswerCount = 11

var hedgeAnswerNames = [hedgeAnswerCount]string{
	"started", "attempts_spent", "too_few_samples", "no_other", "queueing", "ejections", "breaker_not_closed", "memory_short", "pushed_back",
	"budget_spent", "observed",
}

// String returns the label value.
func (a HedgeAnswer) String() string { return nameOf(hedgeAnswerNames[:], int(a)) }

type hedges struct {
	results  [hedgeResultCount]Counter
	withheld [hedgeAnswerCount]Counter
}

// Hedged counts the end of an attempt that was started beside another.
func (c *Cluster) Hedged(r HedgeResult) {
	if r < hedgeResultCount {
		c.count().hedges.results[r].Inc()
	}
}

// HedgeWithheld counts an attempt that was not started although another is slow.
func (c *Cluster) HedgeWithheld(a HedgeAnswer) {
	if a < hedgeAnswerCount {
		c.count().hedges.withheld[a].Inc()
	}
}

func (h *hedges) collect(s *scrape) {
	for i := range h.results {
		s.cell(mHedges, uint16(i), h.results[i].Value(), HedgeResult(i).String(), "")
	}
	for i := range h.withheld {
		s.cell(mHedgesWithheld, uint16(i), h.withheld[i].Value(), HedgeAnswer(i).String(), "")
	}
}
