package discovery

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Services that stay are not disturbed when others come and go, and no service
// is followed twice at once.
func TestEachFollowsWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, starts := map[string]int{}, map[string]int{}
		hold := make(chan struct{})
		each := Each{Track: new(Tracker)}
		ctx, cancel := context.WithCancel(t.Context())
		each.Set([]string{"a", "b"}) // before Run, which then is given older ones
		done := make(chan struct{})
		go func() {
			defer close(done)
			each.Run(ctx, []string{"old"}, func(ctx context.Context, service string) {
				mu.Lock()
				running[service]++
				starts[service]++
				if running[service] > 1 {
					t.Errorf("%s is followed twice", service)
				}
				mu.Unlock()
				<-ctx.Done()
				if service == "b" {
					<-hold // takes its time to end
				}
				mu.Lock()
				running[service]--
				mu.Unlock()
			})
		}()
		check := func(want map[string]int, names ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for name, n := range want {
				if starts[name] != n {
					t.Errorf("%s was started %d times, want %d", name, starts[name], n)
				}
			}
			var followed []string
			for _, s := range each.Track.Status() {
				followed = append(followed, s.Service)
			}
			if !slices.Equal(followed, names) {
				t.Errorf("the tracker has %v, want %v", followed, names)
			}
		}
		check(map[string]int{"old": 0, "a": 1, "b": 1}, "a", "b")
		each.Set([]string{"a", "c"})
		check(map[string]int{"a": 1, "b": 1, "c": 1}, "a", "c")
		each.Set([]string{"a", "b", "b"})
		check(map[string]int{"a": 1, "b": 1, "c": 1}, "a", "b") // the first b has not ended
		close(hold)
		check(map[string]int{"a": 1, "b": 2, "c": 1}, "a", "b")
		cancel()
		<-done
		for name, n := range running {
			if n != 0 {
				t.Errorf("%s still runs", name)
			}
		}
	})
}

// refollower is a source that notes what it is to follow.
type refollower struct {
	Each
	mu   sync.Mutex
	ends map[string]int
}

func (r *refollower) Run(ctx context.Context, services []string, sink Sink) error {
	r.Each.Run(ctx, services, func(ctx context.Context, service string) {
		sink.Update(&Service{Name: service})
		<-ctx.Done()
		r.mu.Lock()
		r.ends[service]++
		r.mu.Unlock()
	})
	return nil
}
func (r *refollower) Follow(services []string) { r.Set(services) }
func (r *refollower) Status() []WatchStatus    { return r.Track.Status() }

// A Snapshotter passes the change of services on, keeps what the file has for
// services that are named later, and drops what nobody wants.
func TestSnapshotterRefollows(t *testing.T) {
	path := t.TempDir() + "/s"
	data, err := encodeSnapshot([]*Service{{Name: "a"}, {Name: "gone"}}, "", time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteKept(path, data); err != nil {
		t.Fatal(err)
	}
	src := &refollower{Each: Each{Track: new(Tracker)}, ends: map[string]int{}}
	s := NewSnapshotter(src, SnapshotConfig{Path: path})
	if _, ok := Refollows(s); !ok {
		t.Fatal("not a Refollower")
	}
	if _, ok := Refollows(NewSnapshotter(struct{ Source }{src}, SnapshotConfig{Path: path})); ok {
		t.Error("a Refollower around a source that is none")
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 10)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx, nil, updates(got)) }()
	s.Follow([]string{"a", "b"})
	names := []string{<-got, <-got}
	slices.Sort(names)
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("updates of %v", names)
	}
	s.Follow([]string{"b"})
	cancel()
	<-done
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) != 1 || s.known["b"] == nil {
		t.Errorf("known are %v", s.known)
	}
}

type updates chan string

func (u updates) Update(s *Service)  { u <- s.Name }
func (u updates) Fail(string, error) {}
