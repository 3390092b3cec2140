package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// soon bounds the wait for something that should happen soon.
const soon = 60 * time.Second

// running is a Follower that runs until the test ends, with what it has handed
// over last.
type running struct {
	*Follower
	stop func()

	mu       sync.Mutex
	snapshot *Snapshot
	given    int
	services map[string]*discovery.Service
	updates  map[string]int
	failures map[string]string
	changed  chan struct{}
}

func start(t testing.TB, cfg consul.Config, o Options, names ...string) *running {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{
		Follower: f, services: map[string]*discovery.Service{}, failures: map[string]string{},
		updates: map[string]int{}, changed: make(chan struct{}, 1),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx, r.give); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wg.Go(func() {
		if err := f.Endpoints().Run(ctx, names, r); err != nil {
			t.Errorf("Endpoints.Run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) note() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *running) give(s *Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshot = s
	r.given++
	r.note()
}

func (r *running) Update(s *discovery.Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.services[s.Name] = s
	r.updates[s.Name]++
	delete(r.failures, s.Name)
	r.note()
}

func (r *running) Fail(service string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures[service] = err.Error()
	r.note()
}

// until waits for a state in which so is true.
func (r *running) until(t testing.TB, what string, so func() bool) {
	t.Helper()
	end := time.After(soon)
	tick := time.NewTicker(20 * time.Millisecond) // statuses change without an event
	defer tick.Stop()
	for {
		r.mu.Lock()
		ok := so()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-tick.C:
		case <-end:
			r.mu.Lock()
			s, _ := json.MarshalIndent(r.snapshot, "", " ")
			var states []string
			for _, st := range append(r.Status(), r.Endpoints().Status()...) {
				states = append(states, fmt.Sprintf("%+v", st))
			}
			r.mu.Unlock()
			t.Fatalf("waited in vain for: %s\nsnapshot %s\n%s", what, s, strings.Join(states, "\n"))
		}
	}
}

// status returns the status of one of the sidecar's queries.
func (r *running) status(name string) discovery.WatchStatus {
	for _, s := range append(r.Status(), r.Endpoints().Status()...) {
		if s.Service == name {
			return s
		}
	}
	return discovery.WatchStatus{Age: -2}
}

// line is a service as text.
func line(s *discovery.Service) string {
	if s == nil {
		return "<nil>"
	}
	var b strings.Builder
	for _, e := range s.Endpoints {
		fmt.Fprintf(&b, "%v", e.Address)
		if e.Weight != 1 {
			fmt.Fprintf(&b, "*%d", e.Weight)
		}
		if e.Health != discovery.Passing {
			b.WriteString(":" + e.Health.String())
		}
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}
