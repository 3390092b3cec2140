package detect

import (
	"sync"
	"time"
)

// Lesson is what was learnt about a destination.
type Lesson struct {
	// ServerFirst: its servers speak before their clients do.
	ServerFirst bool
	// Client is what its clients have spoken, who spoke first.
	Client Kind
}

// Memory remembers what was learnt about the destinations used last: at most a
// number of them, each until some time after it was last seen to be so. What it
// says only shortens or lengthens a wait, so nobody gains by teaching it wrong.
// A nil Memory knows nothing.
type Memory[K comparable] struct {
	max int
	age time.Duration

	mu      sync.Mutex
	entries map[K]*entry[K]
	ring    entry[K] // ring.next is the one used last, ring.prev the one to go
}

type entry[K comparable] struct {
	next, prev *entry[K]
	key        K
	lesson     Lesson
	learnt     time.Duration
}

// NewMemory returns a Memory of at most max destinations, at least one, that
// forgets what was not confirmed for age.
func NewMemory[K comparable](most int, age time.Duration) *Memory[K] {
	m := &Memory[K]{max: max(most, 1), age: age, entries: map[K]*entry[K]{}}
	m.ring.next, m.ring.prev = &m.ring, &m.ring
	return m
}

// Lookup returns what is known about a destination; ok is false if that is
// nothing. now is on any clock that only goes forward.
func (m *Memory[K]) Lookup(key K, now time.Duration) (l Lesson, ok bool) {
	if m == nil {
		return Lesson{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[key]
	if e == nil {
		return Lesson{}, false
	}
	if now-e.learnt >= m.age {
		m.forget(e)
		return Lesson{}, false
	}
	m.use(e)
	return e.lesson, true
}

// Learn takes in what a connection has shown. That a client spoke first does
// not undo that the server has: one who sends an HTTP request to a database
// teaches nothing about the database.
func (m *Memory[K]) Learn(key K, l Lesson, now time.Duration) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[key]
	switch {
	case e == nil:
		if len(m.entries) == m.max {
			m.forget(m.ring.prev)
		}
		e = &entry[K]{key: key}
		e.next, e.prev = e, e
		m.entries[key] = e
	case e.lesson.ServerFirst && !l.ServerFirst && now-e.learnt < m.age:
		return
	}
	e.lesson, e.learnt = l, now
	m.use(e)
}

// use makes e the one used last.
func (m *Memory[K]) use(e *entry[K]) {
	if m.ring.next == e {
		return
	}
	e.next.prev, e.prev.next = e.prev, e.next
	e.next, e.prev = m.ring.next, &m.ring
	e.next.prev, e.prev.next = e, e
}

func (m *Memory[K]) forget(e *entry[K]) {
	e.next.prev, e.prev.next = e.prev, e.next
	delete(m.entries, e.key)
}
