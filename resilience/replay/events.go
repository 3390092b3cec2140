package replay

import "time"

// event is something that happens to an actor at a time.
type event struct {
	at time.Duration
	// order tells events of one time apart: number of the event<<16 | actor.
	order uint64
	arg   uint64
}

const (
	actorBits = 16
	maxActors = 1 << actorBits
)

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.order < o.order
}

// events is a heap of events with four children a node: flatter than one with
// two, and the children share cache lines.
type events struct{ heap []event }

func (q *events) len() int { return len(q.heap) }

func (q *events) push(e event) {
	q.heap = append(q.heap, e)
	h, i := q.heap, len(q.heap)-1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = e
}

// pop takes the first event off a queue that is not empty.
func (q *events) pop() event {
	h := q.heap
	first, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	q.heap = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		child := 4*i + 1
		if child >= len(h) {
			break
		}
		for k := child + 1; k < min(child+4, len(h)); k++ {
			if h[k].before(&h[child]) {
				child = k
			}
		}
		if !h[child].before(&last) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = last
	return first
}
