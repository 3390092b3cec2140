package demo

import (
	"slices"
	"sync"
	"time"
)

// The kinds of event. Those of endpoints and of the circuit breaker carry the
// words of the sidecar's log: ejected, probation, readmitted, would_eject,
// cap_reached, panic, panic_over, breaker_open, breaker_half_open, breaker_closed.
const (
	kindErrs       = "instance_errs"
	kindRecovers   = "instance_recovers"
	kindKilled     = "instance_killed"
	kindRestarted  = "instance_restarted"
	kindLost       = "instance_lost"
	kindRetryBurst = "retry_burst"
	kindRotated    = "identity_rotated"

	kindEjected    = "ejected"
	kindProbation  = "probation"
	kindReadmitted = "readmitted"
)

// Event is something that happened in the mesh.
type Event struct {
	At time.Time `json:"at"`
	// Seconds is the time since the load began.
	Seconds float64 `json:"t_seconds"`
	Kind    string  `json:"kind"`
	// Endpoint is the address that web's sidecar calls.
	Endpoint string `json:"endpoint,omitempty"`
	// Instance is the name of the instance at Endpoint.
	Instance string `json:"instance,omitempty"`
	Cause    string `json:"cause,omitempty"`
	// For is how long an ejection lasts, such as "3.2s".
	For string `json:"for,omitempty"`
	// Count is the number of retried attempts of a burst.
	Count uint64 `json:"count,omitempty"`
}

// maxEvents bounds what a demo that runs for days keeps.
const maxEvents = 4096

// journal keeps the events, and gives them to who listens.
type journal struct {
	began time.Time
	names map[string]string // address to instance

	mu      sync.Mutex
	list    []Event
	ejected uint64
	heard   func(Event)
}

// add records e; its time since the beginning and its instance follow from the
// other fields.
func (j *journal) add(e Event) {
	e.At = e.At.Truncate(time.Millisecond)
	e.Seconds = float64(e.At.Sub(j.began).Milliseconds()) / 1000
	if e.Instance == "" {
		e.Instance = j.names[e.Endpoint]
	}
	j.mu.Lock()
	if len(j.list) >= maxEvents {
		j.list = slices.Delete(j.list, 0, maxEvents/4)
	}
	j.list = append(j.list, e)
	if e.Kind == kindEjected {
		j.ejected++
	}
	heard := j.heard
	j.mu.Unlock()
	if heard != nil {
		heard(e)
	}
}

// listen gives every event from now on to heard; nil ends that.
func (j *journal) listen(heard func(Event)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.heard = heard
}

// all returns a copy in the order of time.
func (j *journal) all() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := slices.Clone(j.list)
	slices.SortStableFunc(list, func(a, b Event) int { return a.At.Compare(b.At) })
	return list
}

// last returns up to n of the latest, in the order of time.
func (j *journal) last(n int) []Event {
	list := j.all()
	return list[max(len(list)-n, 0):]
}

func (j *journal) ejections() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ejected
}
