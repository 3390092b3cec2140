package mtls

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoMaterial is returned by a handshake that begins before the source has
// its first certificate.
var ErrNoMaterial = errors.New("mtls: no certificate yet; the identity source has not delivered one")

// Source keeps the own certificate and the trust bundles fresh.
type Source interface {
	// Run keeps the material fresh until ctx ends, and returns then ctx's
	// error, or earlier one that no waiting can cure.
	Run(ctx context.Context) error
	// Material returns the newest good set, nil before the first. It never blocks.
	Material() *Material
	// Changed returns a channel that is closed when the material is next replaced.
	// Take the channel before reading Material, so that no change is missed.
	Changed() <-chan struct{}
	// Status says how the source fares.
	Status() Status
}

// Status is what a source tells the admin API and the metrics.
type Status struct {
	// Kind names the source: "files", "workload_api" or what Feed was made with.
	Kind string
	// ID is the own identity; zero before the first material.
	ID ID
	// NotAfter is when the own certificate ends; zero before the first material.
	NotAfter time.Time
	// LastError is why the last attempt to refresh failed; nil once one has succeeded.
	LastError error
	// LastErrorAt is when LastError happened.
	LastErrorAt time.Time
	// Updates counts the materials delivered, including the first.
	Updates uint64
}

// Remaining returns the time until the certificate ends: negative once it has,
// zero when there is none yet.
func (s Status) Remaining(now time.Time) time.Duration {
	if s.NotAfter.IsZero() {
		return 0
	}
	return s.NotAfter.Sub(now)
}

// Wait returns the source's material as soon as there is one. It fails when ctx
// ends first, and says what the source last complained of.
func Wait(ctx context.Context, src Source) (*Material, error) {
	for {
		changed := src.Changed()
		if m := src.Material(); m != nil {
			return m, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err := src.Status().LastError; err != nil {
				return nil, fmt.Errorf("mtls: no identity from %s: %w (last trouble: %w)", src.Status().Kind, ctx.Err(), err)
			}
			return nil, fmt.Errorf("mtls: no identity from %s: %w", src.Status().Kind, ctx.Err())
		}
	}
}

// Feed is the publishing half of a Source, and on its own a Source whose
// material is set by its owner. All methods may be called concurrently.
type Feed struct {
	kind    string
	current atomic.Pointer[Material]

	mu      sync.Mutex
	changed chan struct{}
	status  Status
}

// NewFeed returns an empty feed. Kind appears in its Status.
func NewFeed(kind string) *Feed {
	return &Feed{kind: kind, changed: make(chan struct{}), status: Status{Kind: kind}}
}

// Run implements Source by waiting for the end of ctx: a feed refreshes nothing itself.
func (f *Feed) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Material implements Source.
func (f *Feed) Material() *Material { return f.current.Load() }

// Changed implements Source.
func (f *Feed) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Status implements Source.
func (f *Feed) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Publish makes m the current material and clears the last error. A material
// equal to the current one changes nothing else. It reports whether the material
// changed. The feed owns m from here on.
func (f *Feed) Publish(m *Material) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.LastError, f.status.LastErrorAt = nil, time.Time{}
	old := f.current.Load()
	if old != nil && old.equal(m) {
		return false
	}
	m.Serial = 1
	if old != nil {
		m.Serial = old.Serial + 1
	}
	f.status.ID, f.status.NotAfter = m.ID, m.NotAfter
	f.status.Updates++
	f.current.Store(m)
	close(f.changed)
	f.changed = make(chan struct{})
	return true
}

// Fail records why the last refresh did not succeed. The current material stays.
func (f *Feed) Fail(err error) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.LastError, f.status.LastErrorAt = err, now
}
