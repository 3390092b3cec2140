// Package replay runs the machines of a proxy on a virtual clock, against outcomes that were recorded or servers that are modelled.
package replay

import "time"

// Actor is what events happen to: a client, a server, a source of requests.
type Actor interface {
	// Fire is called at the time of an event, with what At was given.
	Fire(now time.Duration, arg uint64)
}

// ActorID names an actor to its engine.
type ActorID uint32

// Engine is a virtual clock with the events that are to come. Events of one
// time happen in the order in which they were scheduled, so that a run depends
// on nothing but its seed. It is not safe for concurrent use; runs side by side
// have an engine each.
type Engine struct {
	queue  events
	actors []Actor
	now    time.Duration
	number uint64
	random Random
}

// New returns an engine at time 0. Two with the same seed draw the same words.
func New(seed uint64) *Engine { return &Engine{random: NewRandom(seed)} }

// Add makes a known to the engine. There can be 65536.
func (e *Engine) Add(a Actor) ActorID {
	if len(e.actors) == maxActors {
		panic("replay: more than 65536 actors")
	}
	e.actors = append(e.actors, a)
	return ActorID(len(e.actors) - 1)
}

// At lets an event happen to an actor, at once when its time has passed.
func (e *Engine) At(at time.Duration, to ActorID, arg uint64) {
	e.number++
	e.queue.push(event{at: max(at, e.now), order: e.number<<actorBits | uint64(to), arg: arg})
}

// Now returns the time.
func (e *Engine) Now() time.Duration { return e.now }

// Events returns how many events have been scheduled.
func (e *Engine) Events() uint64 { return e.number }

// Fork returns a source of random words of its own, so that what one part of a
// run draws does not depend on how often another does.
func (e *Engine) Fork() Random { return NewRandom(e.random.Next()) }

// Run lets happen what is due up to and with until, and leaves the clock there.
// What an event schedules within that time happens too.
func (e *Engine) Run(until time.Duration) {
	for e.queue.len() > 0 && e.queue.heap[0].at <= until {
		ev := e.queue.pop()
		e.now = ev.at
		e.actors[ev.order&(maxActors-1)].Fire(ev.at, ev.arg)
	}
	e.now = max(e.now, until)
}

// Random is a stream of random words (splitmix64, Steele and others 2014),
// the same for the same seed.
type Random struct{ state uint64 }

// NewRandom returns the stream of a seed.
func NewRandom(seed uint64) Random { return Random{state: seed} }

// Next returns the next word.
func (r *Random) Next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Fraction returns a number in [0, 1).
func (r *Random) Fraction() float64 { return float64(r.Next()>>11) / (1 << 53) }
