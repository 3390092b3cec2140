package discovery

import (
	"sync"
)

// Distinct returns a Sink that passes on to next only what changes something:
// an Update that equals the one before it is dropped, unless a Fail came
// between, because that Update says that the trouble is over. Every Fail is
// passed on.
func Distinct(next Sink) *DistinctSink {
	return &DistinctSink{next: next, last: map[string]*Service{}}
}

// DistinctSink is the Sink that Distinct returns.
type DistinctSink struct {
	next Sink
	mu   sync.Mutex
	last map[string]*Service // what next has; nil after a Fail
}

// Forget makes the next Update of a service one that is passed on, as when next
// has forgotten the service, too.
func (d *DistinctSink) Forget(service string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.last, service)
}

// Update implements Sink.
func (d *DistinctSink) Update(s *Service) {
	d.mu.Lock()
	same := d.last[s.Name].Equal(s)
	d.last[s.Name] = s
	d.mu.Unlock()
	if !same {
		d.next.Update(s)
	}
}

// Fail implements Sink.
func (d *DistinctSink) Fail(service string, err error) {
	d.mu.Lock()
	delete(d.last, service)
	d.mu.Unlock()
	d.next.Fail(service, err)
}
