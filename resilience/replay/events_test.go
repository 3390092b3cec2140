package replay

import (
	"slices"
	"testing"
	"time"
)

// TestQueueAgainstSort: whatever is pushed comes out by time, and within a time
// in the order of pushing.
func TestQueueAgainstSort(t *testing.T) {
	r := NewRandom(1)
	for round := range 200 {
		var q events
		var model []event
		number := uint64(0)
		for range 300 {
			if len(model) > 0 && r.Next()%5 < 2 {
				got := q.pop()
				slices.SortFunc(model, func(a, b event) int {
					if a.before(&b) {
						return -1
					}
					return 1
				})
				if got != model[0] {
					t.Fatalf("round %d: popped %v, want %v", round, got, model[0])
				}
				model = model[1:]
				continue
			}
			number++
			e := event{at: time.Duration(r.Next() % 20), order: number << actorBits, arg: r.Next()}
			q.push(e)
			model = append(model, e)
		}
		if q.len() != len(model) {
			t.Fatalf("%d left, want %d", q.len(), len(model))
		}
	}
}

// recorder notes what fires.
type recorder struct {
	e     *Engine
	id    ActorID
	fired []time.Duration
	args  []uint64
	again time.Duration
}

func (r *recorder) Fire(now time.Duration, arg uint64) {
	r.fired, r.args = append(r.fired, now), append(r.args, arg)
	if r.again > 0 && len(r.fired) < 5 {
		r.e.At(now+r.again, r.id, arg+1)
	}
}

func TestEngineOrder(t *testing.T) {
	e := New(1)
	r := &recorder{e: e}
	r.id = e.Add(r)
	e.At(3, r.id, 30)
	e.At(1, r.id, 10)
	e.At(3, r.id, 31)
	e.At(9, r.id, 90)
	e.Run(8)
	if want := []uint64{10, 30, 31}; !slices.Equal(r.args, want) || e.Now() != 8 {
		t.Fatalf("fired %v at %v, want %v", r.args, e.Now(), want)
	}
	e.At(2, r.id, 20) // its time has passed: at once
	e.Run(8)
	if r.fired[3] != 8 || r.args[3] != 20 {
		t.Fatalf("fired %v %v", r.fired, r.args)
	}
	e.Run(100)
	if r.args[4] != 90 || len(r.args) != 5 {
		t.Fatalf("fired %v", r.args)
	}
}

func TestEngineRunsWhatIsScheduledMeanwhile(t *testing.T) {
	e := New(1)
	r := &recorder{e: e, again: 2}
	r.id = e.Add(r)
	e.At(0, r.id, 0)
	e.Run(8)
	if want := []time.Duration{0, 2, 4, 6, 8}; !slices.Equal(r.fired, want) {
		t.Fatalf("fired at %v, want %v", r.fired, want)
	}
}
