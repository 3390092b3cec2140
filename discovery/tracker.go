package discovery

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Tracker keeps the WatchStatus of each service that a Source follows. The
// zero value is ready; all methods may be called from any goroutine.
type Tracker struct {
	mu      sync.Mutex
	watches map[string]*tracked
	order   []*tracked // by name
}

type tracked struct {
	status    WatchStatus
	confirmed time.Time // zero: never
}

// Follow starts over with the named services. What is known of one that was
// followed before is kept. It returns the names, each once, sorted.
func (t *Tracker) Follow(services []string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[string]*tracked, len(services))
	for _, name := range services {
		if old := t.watches[name]; old != nil {
			next[name] = old
		} else {
			next[name] = &tracked{status: WatchStatus{Service: name}}
		}
	}
	t.watches = next
	names := slices.Sorted(maps.Keys(next))
	t.order = make([]*tracked, len(names))
	for i, name := range names {
		t.order[i] = next[name]
	}
	return names
}

// Confirm records that the source has answered for a service just now, which
// ends its trouble. Names that are not followed are ignored.
func (t *Tracker) Confirm(service string, index uint64, endpoints int, warning string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.watches[service]; w != nil {
		w.confirmed = time.Now()
		w.status.LastError, w.status.Warning = "", warning
		w.status.Index, w.status.Endpoints = index, endpoints
	}
}

// Fail records that the source has trouble with a service; what was confirmed
// before stays. Names that are not followed are ignored.
func (t *Tracker) Fail(service string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.watches[service]; w != nil {
		w.status.LastError = err.Error()
	}
}

// Status implements the method of Source.
func (t *Tracker) Status() []WatchStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]WatchStatus, 0, len(t.order))
	t.each(func(s *WatchStatus) { out = append(out, *s) })
	return out
}

// Each calls f with the status of each service, sorted by name, which is f's for
// the length of the call. It makes no list of them, and f must not call the
// Tracker.
func (t *Tracker) Each(f func(*WatchStatus)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.each(f)
}

// each is Each with mu held.
func (t *Tracker) each(f func(*WatchStatus)) {
	now := time.Now()
	var s WatchStatus
	for _, w := range t.order {
		s = w.status
		s.Age = -1
		if !w.confirmed.IsZero() {
			s.Age = max(0, now.Sub(w.confirmed))
		}
		f(&s)
	}
}
