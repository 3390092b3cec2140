package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/outrigger-mesh/outrigger/discovery"
)

const (
	pollInterval = 5 * time.Second       // finds what the kernel did not announce
	fastPoll     = time.Second           // when the kernel announces nothing at all
	settle       = 20 * time.Millisecond // lets an editor finish
)

// Source follows a catalog file. It implements discovery.Source.
type Source struct {
	cfg   Config
	track discovery.Tracker
}

// New returns a Source for a catalog. The file is first read by Run.
func New(cfg Config) (*Source, error) {
	var errs []error
	cfg.Validate(func(field, problem string) { errs = append(errs, fmt.Errorf("discovery.file.%s %s", field, problem)) })
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Source{cfg: cfg}, nil
}

// Status implements discovery.Source.
func (s *Source) Status() []discovery.WatchStatus { return s.track.Status() }

// Run implements discovery.Source. A service that the catalog does not list
// is reported as a failure; one that it lists without endpoints has none.
func (s *Source) Run(ctx context.Context, services []string, sink discovery.Sink) error {
	r := &reader{src: s, services: s.track.Follow(services), sink: discovery.Distinct(sink)}
	var events chan fsnotify.Event
	var faults chan error
	interval := fastPoll
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, faults = watcher.Events, watcher.Errors
	}
	dir := filepath.Dir(s.cfg.Path)
	watch := func() {
		// Adding a folder again does nothing; one that was replaced is found so.
		if watcher != nil && watcher.Add(dir) == nil {
			interval = pollInterval
		} else {
			interval = fastPoll
		}
	}
	// The watch comes first: a change after the read below is then announced.
	watch()
	r.look()
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if !s.concerns(e) {
				continue
			}
			timer.Reset(settle)
		case _, ok := <-faults:
			// An overflow of the queue or the like: look for oneself.
			if !ok {
				faults = nil
				continue
			}
			timer.Reset(settle)
		case <-timer.C:
			watch()
			r.look()
			timer.Reset(interval)
		}
	}
}

// concerns reports whether an event in the folder may have changed what the
// path leads to: the file itself, or a symlink of a mounted volume, whose
// names start with two dots ("..data").
func (s *Source) concerns(e fsnotify.Event) bool {
	base := filepath.Base(e.Name)
	return e.Op != fsnotify.Chmod && (base == filepath.Base(s.cfg.Path) || strings.HasPrefix(base, ".."))
}

// reader reads the file for one Run.
type reader struct {
	src      *Source
	services []string
	sink     discovery.Sink
	started  bool
	data     []byte // what was read last
	failure  string // why it could not be read or decoded
	catalog  map[string]*discovery.Service
}

// look reads the file and reports what is new.
func (r *reader) look() {
	path := r.src.cfg.Path
	data, err := read(path)
	if err == nil && r.started && r.failure == "" && bytes.Equal(data, r.data) {
		r.confirm(false)
		return
	}
	if err == nil && r.started && r.failure != "" && bytes.Equal(data, r.data) {
		return // as broken as before
	}
	var services []*discovery.Service
	if err == nil {
		services, err = decode(path, data, time.Now())
	}
	r.started, r.data = true, data
	if err != nil {
		if r.failure != err.Error() {
			r.failure = err.Error()
			for _, name := range r.services {
				r.src.track.Fail(name, err)
				r.sink.Fail(name, err)
			}
		}
		return
	}
	r.failure = ""
	r.catalog = make(map[string]*discovery.Service, len(services))
	for _, svc := range services {
		r.catalog[svc.Name] = svc
	}
	r.confirm(true)
}

// confirm records that the catalog stands; changed when it was just decoded.
func (r *reader) confirm(changed bool) {
	for _, name := range r.services {
		svc := r.catalog[name]
		if svc == nil {
			if changed {
				err := fmt.Errorf("%s: service %q is not in the catalog", r.src.cfg.Path, name)
				r.src.track.Fail(name, err)
				r.sink.Fail(name, err)
			}
			continue
		}
		r.src.track.Confirm(name, 0, len(svc.Endpoints), "")
		if changed {
			r.sink.Update(svc)
		}
	}
}
