package discovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// SnapshotConfig is how a Snapshotter keeps its file.
type SnapshotConfig struct {
	// Path of the file. Required. Missing parent folders are made, with mode
	// 0700; the file has mode 0600.
	Path string
	// Datacenter is written into the file; a file of another one is refused.
	Datacenter string
	// Grace is how long the live source may take to answer before the
	// services from the file are used. One that reports trouble is not waited
	// for. Default 2s; negative means no time at all.
	Grace time.Duration
	// Logger gets one line per change of state. Default: slog.Default.
	Logger *slog.Logger
}

// SnapshotStatus is what the admin API shows about the file.
type SnapshotStatus struct {
	Path string `json:"path"`
	// Loaded is the number of services found in the file at the start.
	Loaded int `json:"loaded"`
	// LoadError is why the file was not used at the start; empty when it was
	// or when there was none.
	LoadError string `json:"load_error,omitempty"`
	// Saved is when the file was last written, by this process or, right
	// after the start, by the one before it. Zero means never.
	Saved time.Time `json:"saved"`
	// SaveError is why the last write failed; empty when it did not.
	SaveError string `json:"save_error,omitempty"`
}

const (
	snapshotGrace   = 2 * time.Second
	snapshotSettle  = 500 * time.Millisecond // changes this close together are one write
	snapshotRetry   = 30 * time.Second       // after a failed write
	snapshotRefresh = 10 * time.Minute       // keeps the ages in the file true without any change
)

// Snapshotter is a Source that keeps what another one finds in a file, and on
// a cold start hands out the file's content, marked Stale, for the services
// that the other one has not answered for.
//
// Trouble with the file never stops serving: it is shown in Snapshot and
// logged once per change of state. A file that is damaged, of another format
// version or datacenter, or writable by others is not used; it is replaced as
// soon as the live source has answered.
type Snapshotter struct {
	src   Source
	cfg   SnapshotConfig
	write func(path string, data []byte) error
	dirty chan struct{} // capacity 1
	more  chan struct{} // capacity 1: other services are wanted

	mu     sync.Mutex
	loaded bool
	runs   bool
	ahead  []string // what Follow was given before Run
	wanted map[string]bool
	known  map[string]*Service // the best there is, Stale when it comes from the file
	given  map[string]bool     // which of them the sink has had in this Run
	status SnapshotStatus
}

// NewSnapshotter returns a Snapshotter around src. Nothing is read or started before Run.
func NewSnapshotter(src Source, cfg SnapshotConfig) *Snapshotter {
	if cfg.Grace == 0 {
		cfg.Grace = snapshotGrace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Snapshotter{
		src: src, cfg: cfg, write: WriteKept,
		dirty: make(chan struct{}, 1), more: make(chan struct{}, 1),
		known: map[string]*Service{}, given: map[string]bool{},
		status: SnapshotStatus{Path: cfg.Path},
	}
}

// Run runs the wrapped source and implements Source. What an earlier Run has
// learnt is handed out at once.
func (s *Snapshotter) Run(ctx context.Context, services []string, sink Sink) error {
	s.begin(services)
	live := &snapshotSink{s: s, next: sink}
	s.mu.Lock()
	for _, name := range services {
		if k := s.known[name]; k != nil && !k.Stale {
			live.give(k)
		}
	}
	s.mu.Unlock()

	background, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for s.cfg.Grace < 0 || Sleep(background, s.cfg.Grace, nil) {
			s.mu.Lock()
			wanted := slices.Sorted(maps.Keys(s.wanted))
			s.mu.Unlock()
			live.giveStale(wanted)
			select {
			case <-background.Done():
				return
			case <-s.more:
			}
		}
	})
	wg.Go(func() { s.keep(background) })
	err := s.src.Run(ctx, services, live)
	stop()
	wg.Wait()
	s.mu.Lock()
	s.runs, s.ahead = false, nil
	s.mu.Unlock()
	s.save()
	return err
}

// Follow implements Refollower where the wrapped source does. A service that is
// new is given the file's content when the live source has not answered for it
// in time.
func (s *Snapshotter) Follow(services []string) {
	r, ok := s.src.(Refollower)
	if !ok {
		return
	}
	s.mu.Lock()
	if s.runs {
		s.want(services)
	} else {
		s.ahead = append([]string{}, services...)
	}
	for name := range s.given {
		if !s.wanted[name] {
			delete(s.given, name)
		}
	}
	s.mu.Unlock()
	r.Follow(services)
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// Refollows reports whether Follow does something.
func (s *Snapshotter) Refollows() bool {
	_, ok := s.src.(Refollower)
	return ok
}

// begin loads the file on the first call and forgets services that are no longer wanted.
func (s *Snapshotter) begin(services []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		s.loaded = true
		s.load()
	}
	s.runs = true
	if s.ahead != nil {
		services = s.ahead
	}
	s.want(services)
	clear(s.given)
}

// want makes services the wanted ones and forgets others. Before any service is
// wanted, as when the source itself says later which ones are, none is forgotten.
func (s *Snapshotter) want(services []string) {
	s.wanted = make(map[string]bool, len(services))
	for _, name := range services {
		s.wanted[name] = true
	}
	if len(services) == 0 && s.Refollows() {
		return
	}
	for name := range s.known {
		if !s.wanted[name] {
			delete(s.known, name)
		}
	}
}

func (s *Snapshotter) load() {
	data, err := ReadKept(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var services []*Service
	if err == nil {
		services, s.status.Saved, err = decodeSnapshot(data, s.cfg.Datacenter)
	}
	if err != nil {
		s.status.LoadError = err.Error()
		s.cfg.Logger.Warn("discovery snapshot is not used; starting without last-good endpoints",
			"path", s.cfg.Path, "error", err.Error())
		return
	}
	s.status.Loaded = len(services)
	for _, svc := range services {
		s.known[svc.Name] = svc
	}
}

// keep writes the file after changes, and now and then without any.
func (s *Snapshotter) keep(ctx context.Context) {
	refresh := time.NewTicker(snapshotRefresh)
	defer refresh.Stop()
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-refresh.C:
		case <-retry.C:
		case <-s.dirty:
			if !Sleep(ctx, snapshotSettle, nil) {
				return
			}
		}
		if s.save() != nil {
			retry.Reset(snapshotRetry)
		} else {
			retry.Stop()
		}
	}
}

// save writes the file if the live source has answered for any service.
func (s *Snapshotter) save() error {
	now := time.Now()
	ages := map[string]time.Duration{}
	for _, w := range s.src.Status() {
		if w.Age >= 0 {
			ages[w.Service] = w.Age
		}
	}
	s.mu.Lock()
	var services []*Service
	answered := false
	for _, name := range slices.Sorted(maps.Keys(s.known)) {
		svc := *s.known[name]
		if !svc.Stale {
			answered = true
			if age, ok := ages[name]; ok {
				svc.Updated = now.Add(-age)
			}
		}
		svc.Updated = svc.Updated.UTC().Truncate(time.Millisecond)
		services = append(services, &svc)
	}
	s.mu.Unlock()
	if !answered {
		return nil
	}
	data, err := encodeSnapshot(services, s.cfg.Datacenter, now)
	if err == nil && len(data) > maxSnapshot {
		err = fmt.Errorf("the services take %d bytes; the limit is %d", len(data), maxSnapshot)
	}
	if err == nil {
		err = s.write(s.cfg.Path, data)
	}
	s.saved(now, err)
	return err
}

// saved records the result of a write and logs it when it differs from the one before.
func (s *Snapshotter) saved(now time.Time, err error) {
	s.mu.Lock()
	before := s.status.SaveError
	if err == nil {
		s.status.Saved, s.status.SaveError = now, ""
	} else {
		s.status.SaveError = err.Error()
	}
	after := s.status.SaveError
	s.mu.Unlock()
	switch {
	case before == after:
	case after != "":
		s.cfg.Logger.Warn("discovery snapshot cannot be written; serving goes on, a restart without the live source would find the last written one",
			"path", s.cfg.Path, "error", after)
	default:
		s.cfg.Logger.Info("discovery snapshot is written again", "path", s.cfg.Path)
	}
}

// Status is the status of the wrapped source, completed where services from
// the file are in use. It implements Source.
func (s *Snapshotter) Status() []WatchStatus {
	status := s.src.Status()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range status {
		w := &status[i]
		if k := s.known[w.Service]; k != nil && k.Stale && s.given[w.Service] {
			w.Age, w.Endpoints, w.Stale = max(0, now.Sub(k.Updated)), len(k.Endpoints), true
		}
	}
	return status
}

// Snapshot describes the file.
func (s *Snapshotter) Snapshot() SnapshotStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// snapshotSink stands between the wrapped source and the sink of one Run. It
// calls next with the lock held, so that a stale service can never follow the
// live one.
type snapshotSink struct {
	s    *Snapshotter
	next Sink
}

func (l *snapshotSink) Update(svc *Service) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if !l.s.wanted[svc.Name] {
		return // no longer followed
	}
	l.s.known[svc.Name] = svc
	l.give(svc)
	select {
	case l.s.dirty <- struct{}{}:
	default:
	}
}

func (l *snapshotSink) Fail(service string, err error) {
	l.giveStale([]string{service})
	l.next.Fail(service, err)
}

func (l *snapshotSink) giveStale(services []string) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for _, name := range services {
		if k := l.s.known[name]; k != nil && k.Stale && !l.s.given[name] {
			l.give(k)
			l.s.cfg.Logger.Warn("service is served from the discovery snapshot until the live source answers",
				"service", name, "endpoints", len(k.Endpoints), "age", max(0, time.Since(k.Updated)).Round(time.Second).String())
		}
	}
}

func (l *snapshotSink) give(svc *Service) {
	l.s.given[svc.Name] = true
	l.next.Update(svc)
}
