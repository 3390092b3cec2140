package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
)

// hedger starts attempts beside others by the machine that does it in a proxy.
type hedger struct {
	c    *Client
	cfg  *hedge.Config
	seen hedge.Latencies
}

// After implements Hedger.
func (h *hedger) After(now time.Duration, x *Exchange) (time.Duration, bool) {
	if !h.cfg.Hedges(x.Request.Idempotent, x.attempts) {
		return 0, false
	}
	wait, ok := h.cfg.Wait(now, &h.seen.All)
	return wait, ok && (x.deadline == 0 || now+wait < x.deadline)
}

// May implements Hedger. x avoids the endpoints of the attempts under way.
func (h *hedger) May(now time.Duration, x *Exchange) bool {
	q := hedge.Question{Attempts: x.attempts, Draw: x.draw, Panicking: h.c.panicking, Others: h.c.picker.Len() - x.nTried}
	if h.c.gate.queue != nil {
		q.Waiting = int64(h.c.gate.queue.Len())
	}
	if h.c.detector != nil {
		q.Ejected = h.c.detector.Out()
	}
	if b := h.c.breaker; b != nil {
		q.Broken = b.State(now) != breaker.Closed
	}
	return h.cfg.Decide(q, h.c.budget, now) == hedge.Started
}

// Observe implements Hedger: what failed at once says nothing of how long
// answers take.
func (h *hedger) Observe(now, took time.Duration, r outcome.Reason) {
	if h.cfg.Delay > 0 {
		return
	}
	switch r {
	case outcome.OK, outcome.Superseded, outcome.TryTimeout, outcome.RequestTimeout:
		h.seen.All.Observe(now, took)
	}
}
