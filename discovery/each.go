package discovery

import (
	"context"
	"sync"
)

// Each runs one function for every service of a set that may change meanwhile.
// The zero value is ready.
type Each struct {
	// Track, where it is set, follows the same services.
	Track *Tracker

	mu   sync.Mutex
	set  func(services []string) // nil while Run does not run
	next []string                // what Set was given meanwhile
}

// one is the run of a function for one service.
type one struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Run calls follow for each of services, in a goroutine of its own, with a
// context that ends when the service is no longer wanted. Calls for one service
// never overlap. It blocks until ctx ends and all calls have returned. It may run once at a time.
func (e *Each) Run(ctx context.Context, services []string, follow func(ctx context.Context, service string)) {
	var wg sync.WaitGroup
	running, ending := map[string]one{}, map[string]one{}
	start := func(name string) {
		var now one
		before := ending[name]
		delete(ending, name)
		now.done = make(chan struct{})
		var its context.Context
		its, now.cancel = context.WithCancel(ctx)
		running[name] = now
		wg.Go(func() {
			defer close(now.done)
			defer now.cancel()
			if before.done != nil {
				<-before.done
			}
			follow(its, name)
		})
	}
	set := func(services []string) {
		for name, o := range ending {
			select {
			case <-o.done:
				delete(ending, name)
			default:
			}
		}
		wanted := make(map[string]bool, len(services))
		for _, name := range services {
			wanted[name] = true
		}
		for name, o := range running {
			if !wanted[name] {
				o.cancel()
				ending[name] = o
				delete(running, name)
			}
		}
		for name := range wanted {
			if _, ok := running[name]; !ok {
				start(name)
			}
		}
	}
	e.mu.Lock()
	e.set = set
	if e.next != nil {
		services = e.next
	}
	if e.Track != nil {
		e.Track.Follow(services)
	}
	set(services)
	e.mu.Unlock()
	<-ctx.Done()
	e.mu.Lock()
	e.set, e.next = nil, nil
	e.mu.Unlock()
	wg.Wait()
}

// Set makes services those that the present Run follows, or else the next one,
// whatever that is given.
func (e *Each) Set(services []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		e.next = append([]string{}, services...)
		return
	}
	if e.Track != nil {
		e.Track.Follow(services)
	}
	e.set(services)
}
