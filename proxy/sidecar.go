package proxy

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/proxy/sidecar"
)

// meshFollower follows what Consul's mesh says about one sidecar, and the
// instances of what it calls.
type meshFollower interface {
	// Run follows until ctx ends, and gives each state of things that is new.
	Run(ctx context.Context, give func(*mesh.Snapshot)) error
	// Each calls f with the status of each query, sorted by name, for the length of
	// the call; f must not call the follower.
	Each(f func(*discovery.WatchStatus))
}

// Sidecar keeps the configuration of a proxy that Consul's mesh describes. It is
// made and run before the proxy, since nobody knows what to serve before Consul
// has said so.
type Sidecar struct {
	follower meshFollower
	source   discovery.Source // of the instances
	flags    []config.Layer
	log      *slog.Logger

	where, named string // of Consul; of the sidecar, before that has a service
	began        time.Time
	desks        []*desk  // open from the beginning
	taken        []deskAt // that could not be opened then
	quitting     context.Context
	quit         context.CancelFunc // ends the process, as another asks for
	proxy        atomic.Pointer[Proxy]

	mu       sync.Mutex
	base     *config.Base
	latest   *mesh.Snapshot
	changed  chan struct{}  // closed when latest does
	running  *config.Config // nil before the first translation
	tried    *mesh.Snapshot // the last that was translated
	findings []sidecar.Finding
	refused  string    // why tried is not in force; empty when it is
	since    time.Time // of tried
}

// Run follows Consul, and answers at the addresses of the admin section that are
// known without it, until ctx ends.
func (s *Sidecar) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.runDesks(ctx) })
	return s.follower.Run(ctx, func(snap *mesh.Snapshot) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.latest = snap
		close(s.changed)
		s.changed = make(chan struct{})
	})
}

// look returns the last snapshot, or nil, and what is closed when there is another.
func (s *Sidecar) look() (*mesh.Snapshot, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest, s.changed
}

// has says that p is what the description was for.
func (s *Sidecar) has(p *Proxy) {
	if s != nil {
		s.proxy.Store(p)
	}
}

// trouble is what the queries suffer from; empty when they do not.
func (s *Sidecar) trouble() string { return s.standing().trouble }

// standing is how the queries stand together.
type standing struct {
	oldest  time.Duration // since Consul has confirmed what it has confirmed longest ago
	trouble string        // of the first by name that has any
}

func (s *Sidecar) standing() (all standing) {
	s.follower.Each(func(w *discovery.WatchStatus) {
		all.oldest = max(all.oldest, w.Age)
		if w.LastError != "" && all.trouble == "" {
			all.trouble = w.Service + ": " + w.LastError
		}
	})
	return all
}

// First waits until Consul, or its copy on disk, has said enough, and returns
// the configuration to start with. A description that cannot be served is told
// and waited out.
func (s *Sidecar) First(ctx context.Context) (*config.Loaded, error) {
	s.log.Info("asking Consul for this sidecar", "event", "sidecar_asking", "consul", s.where, "admin", s.adminURL())
	remind := time.NewTimer(remindFirst)
	defer remind.Stop()
	var tried *mesh.Snapshot
	for {
		snap, changed := s.look()
		if snap != nil && snap != tried {
			tried = snap
			loaded, err := s.translate(snap)
			if err == nil {
				s.mu.Lock()
				s.running = loaded.Config
				s.mu.Unlock()
				s.awaitTaken(ctx, &loaded.Config.Admin)
				return loaded, nil
			}
			s.log.Error("what Consul says of this sidecar cannot be served; waiting for a change", "event", "sidecar_refused", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.quitting.Done():
			return nil, context.Canceled
		case <-changed:
		case <-remind.C:
			remind.Reset(remindStep)
			if tried == nil {
				s.log.Warn("waiting for Consul to describe this sidecar", "event", "sidecar_waiting", "error", cmp.Or(s.trouble(), "no answer yet"))
			}
		}
	}
}

// When it is said what the start waits for: soon, since somebody may be looking
// on, and then now and then.
const (
	remindFirst = time.Second
	remindStep  = 10 * time.Second
)

// translate makes the configuration that snap describes and tells of findings
// that are new.
func (s *Sidecar) translate(snap *mesh.Snapshot) (*config.Loaded, error) {
	s.mu.Lock()
	base, running := s.base, s.running
	s.mu.Unlock()
	loaded, findings, err := sidecar.Translate(base, snap, running)
	s.mu.Lock()
	before := s.findings
	s.tried, s.findings, s.refused, s.since = snap, findings, "", time.Now()
	if err != nil {
		s.refused = err.Error()
	}
	s.mu.Unlock()
	for _, f := range findings {
		if slices.Contains(before, f) {
			continue
		}
		level := slog.LevelInfo
		if f.Kind == sidecar.Refused {
			level = slog.LevelWarn
		}
		s.log.Log(context.Background(), level, "not done as Consul asks", "event", "sidecar_finding",
			"kind", string(f.Kind), "entry", f.Entry, "field", f.Field, "problem", f.Problem, "remedy", f.Remedy)
	}
	return loaded, err
}

// refuse notes that the last translation could not be put to use.
func (s *Sidecar) refuse(err error) {
	s.mu.Lock()
	s.refused = err.Error()
	s.mu.Unlock()
}

// rebase reads the file below Consul's description again.
func (s *Sidecar) rebase(path string) error {
	base, err := config.LoadBase(path)
	if err != nil {
		return err
	}
	if base, err = base.Over(s.flags...); err != nil {
		return err
	}
	s.mu.Lock()
	s.base = base
	s.mu.Unlock()
	return nil
}

// followSidecar puts what Consul says into force whenever it changes.
func (p *Proxy) followSidecar(ctx context.Context) error {
	var last *mesh.Snapshot
	for {
		snap, changed := p.sidecar.look()
		if snap != nil && snap != last {
			last = snap
			_ = p.applySnapshot(snap) // what is wrong is told, and the last good plan serves on
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// applySnapshot makes what snap describes what is served, if that is another
// configuration than before.
func (p *Proxy) applySnapshot(snap *mesh.Snapshot) error {
	loaded, err := p.sidecar.translate(snap)
	if err != nil {
		err = fmt.Errorf("what Consul says of this sidecar: %w", err)
		p.failed(err)
		return err
	}
	p.mu.Lock()
	same := p.loaded != nil && reflect.DeepEqual(p.loaded.Config, loaded.Config)
	if same {
		p.reload.LastError = ""
	}
	p.mu.Unlock()
	if same || p.draining.Load() {
		return nil
	}
	if err := p.Apply(loaded); err != nil {
		p.sidecar.refuse(err)
		return err
	}
	return nil
}

// reloadSidecar reads the file below what Consul says again.
func (p *Proxy) reloadSidecar(path string) error {
	if err := p.sidecar.rebase(path); err != nil {
		p.failed(err)
		return err
	}
	snap, _ := p.sidecar.look()
	return p.applySnapshot(snap) // there is one: the proxy started with it
}
