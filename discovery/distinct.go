package discovery

import (
	"sync"
)

// Distinct returns a Sink that passes on to next only what changes something:
// an Update that equals the one before it is dropped, unless a Fail came
// between, because that Update says that the trouble is over. Every Fail is
// passed on.
func Distinct(next Sink) Sink {
	return &distinct{next: next, last: map[string]*Service{}}
}

type distinct struct {
	next Sink
	mu   sync.Mutex
	last map[string]*Service // what next has; nil after a Fail
}

func (d *distinct) Update(s *Service) {
	d.mu.Lock()
	same := d.last[s.Name].Equal(s)
	d.last[s.Name] = s
	d.mu.Unlock()
	if !same {
		d.next.Update(s)
	}
}

func (d *distinct) Fail(service string, err error) {
	d.mu.Lock()
	delete(d.last, service)
	d.mu.Unlock()
	d.next.Fail(service, err)
}
