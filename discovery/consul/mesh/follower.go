package mesh

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

const (
	settle   = 100 * time.Millisecond // how long changes are collected before they are handed over
	patience = 500 * time.Millisecond // how long they wait for the chains of new upstreams
)

// Options are what a Follower needs beside the configuration of Consul.
type Options struct {
	// Snapshot is a file that keeps the last good Snapshot for a start without
	// Consul. It has mode 0600. Default: none.
	Snapshot string
	// Logger gets one line per change of state. Default: slog.Default.
	Logger *slog.Logger
	// Client is shared with others, so that they have one token. Default: one
	// of the Follower's own.
	Client *consul.Client
	// Via replaces the network for a client of its own; tests use it.
	Via http.RoundTripper
}

// Follower follows what Consul says about one sidecar. Run hands over all of
// it but the instances of the targets, which Endpoints follows by name.
type Follower struct {
	cfg     consul.Config
	me      consul.Sidecar
	client  *consul.Client
	log     *slog.Logger
	track   discovery.Tracker
	dirty   chan struct{} // capacity 1
	jobs    discovery.Each
	ends    *Endpoints
	lane    *lane              // of the chains
	defined *consul.Definition // what is registered; nil without it
	path    string             // of the file; empty without one
	unsaved chan struct{}      // capacity 1
	trouble chan struct{}      // capacity 1: Consul does not answer

	planning sync.Mutex // held while jobs change

	mu        sync.Mutex
	state     state
	runs      map[string]func(context.Context) // of the jobs, by name
	last      *Snapshot                        // what was handed over
	kept      *Snapshot                        // from the file; nil when there is none, or it does not fit
	saved     time.Time                        // when kept was written
	unwritten bool                             // the file could not be written last
}

// New returns a Follower for the sidecar of cfg, which must name one. Nothing is
// sent before Run.
func New(cfg consul.Config, o Options) (*Follower, error) {
	if cfg.Sidecar == nil {
		return nil, errors.New("discovery.consul.sidecar is not set")
	}
	var err error
	client := o.Client
	if client == nil {
		if client, err = consul.NewClientVia(cfg, o.Via); err != nil {
			return nil, err
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	f := &Follower{
		cfg: cfg, me: *cfg.Sidecar, client: client, log: o.Logger,
		path: o.Snapshot, unsaved: make(chan struct{}, 1), trouble: make(chan struct{}, 1),
		dirty: make(chan struct{}, 1), runs: map[string]func(context.Context){},
		state: state{chains: map[string]*chainState{}},
	}
	f.lane = newLane(client, min(f.polls(), mostChains), f.chainDetectors)
	f.ends = newEndpoints(f)
	if cfg.Register != nil {
		if f.defined, err = consul.NewDefinition(cfg, client, f.log); err != nil {
			return nil, err
		}
	}
	return f, nil
}

const (
	mostEndpoints = 4000 // long polls over shared connections
	mostChains    = 64   // chains that wait each for itself
	fixedPolls    = 8    // of the sidecar itself
)

// polls is how many queries of a lane may wait at a time.
func (f *Follower) polls() int {
	if f.client.Shares() {
		return mostEndpoints
	}
	return (max(f.me.Polls, consul.DefaultSidecar().Polls) - fixedPolls) / 2
}

// Client is the client that the Follower asks Consul with. Its token is kept
// fresh while Run runs.
func (f *Follower) Client() *consul.Client { return f.client }

// Deregister takes away what the Follower has registered, for good, before a
// drain. Otherwise the end of Run does it.
func (f *Follower) Deregister(ctx context.Context) error {
	if f.defined == nil {
		return nil
	}
	return f.defined.Deregister(ctx)
}

// Endpoints is the source of the instances of targets, by TargetName. It works
// while Run runs.
func (f *Follower) Endpoints() *Endpoints { return f.ends }

// Status describes the queries about the sidecar itself, each named
// "sidecar/" with what it is about, sorted by name. What Consul has not answered
// since the start has the age of the file, where that is in use.
func (f *Follower) Status() (list []discovery.WatchStatus) {
	f.Each(func(w *discovery.WatchStatus) { list = append(list, *w) })
	return list
}

// Each calls what with each of the statuses, as discovery.Tracker.Each does.
func (f *Follower) Each(what func(*discovery.WatchStatus)) {
	f.mu.Lock()
	stale, saved := f.last != nil && f.last.Stale, f.saved
	f.mu.Unlock()
	f.track.Each(func(w *discovery.WatchStatus) {
		if stale && w.Age < 0 {
			w.Age, w.Stale = max(0, time.Since(saved)), true
		}
		what(w)
	})
}

// Run follows the sidecar and calls give with all that is known each time
// something in it has changed, the first time when everything has been
// answered. It blocks, and returns nil when ctx ends.
func (f *Follower) Run(ctx context.Context, give func(*Snapshot)) error {
	f.load()
	var wg sync.WaitGroup
	wg.Go(func() { f.keep(ctx) })
	if f.defined != nil {
		wg.Go(func() { f.defined.Run(ctx) })
	}
	wg.Go(func() { f.client.Run(ctx) })
	wg.Go(func() {
		f.jobs.Run(ctx, f.plan(), func(ctx context.Context, job string) {
			f.mu.Lock()
			run := f.runs[job]
			f.mu.Unlock()
			run(ctx)
		})
	})
	wg.Go(func() { f.lane.run(ctx) })
	f.deliver(ctx, give)
	wg.Wait()
	return nil
}

// deliver hands over what changes until ctx ends; what the file has, when Consul
// does not answer in time.
func (f *Follower) deliver(ctx context.Context, give func(*Snapshot)) {
	grace := time.NewTimer(storeGrace)
	defer grace.Stop()
	var late <-chan time.Time // until when a new upstream's chain holds up what else has changed
	impatient := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-grace.C:
			f.giveKept(give)
			continue
		case <-f.trouble:
			f.giveKept(give)
			continue
		case <-late:
			late, impatient = nil, true
		case <-f.dirty:
		}
		if !discovery.Sleep(ctx, settle, nil) {
			return
		}
		f.mu.Lock()
		s, ok := f.state.snapshot(impatient)
		impatient = false
		if !ok && f.last != nil && late == nil {
			late = time.After(patience)
		} else if ok {
			late = nil
		}
		if ok {
			f.fill(s)
		}
		if ok && !s.equal(f.last) {
			f.last = s
		} else {
			ok = false
		}
		f.mu.Unlock()
		if ok {
			f.ends.know(s)
			give(s)
			signal(f.unsaved)
		}
	}
}

// giveKept hands over what the file has, if nothing was handed over yet.
func (f *Follower) giveKept(give func(*Snapshot)) {
	f.mu.Lock()
	s, saved := f.kept, f.saved
	if f.last != nil || s == nil {
		f.mu.Unlock()
		return
	}
	f.last = s
	f.mu.Unlock()
	f.log.Warn("the sidecar works from its snapshot until consul answers", "path", f.path, "age", time.Since(saved).Round(time.Second).String())
	f.ends.know(s)
	give(s)
}

// signal makes a wait on a channel of capacity 1 return once.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// change calls what with the state and makes a new snapshot soon.
func (f *Follower) change(what func(*state)) {
	f.mu.Lock()
	what(&f.state)
	f.mu.Unlock()
	signal(f.dirty)
}

// replan starts and ends jobs as what is known now asks for it.
func (f *Follower) replan() {
	f.planning.Lock()
	defer f.planning.Unlock()
	f.jobs.Set(f.plan())
}

// plan returns the names of the jobs that what is known asks for.
func (f *Follower) plan() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	runs := map[string]func(context.Context){}
	add := func(w *watch) { runs[w.name+w.key] = w.run }
	runs["registration"] = f.followRegistration
	names := []string{"sidecar/registration"}
	for _, w := range f.watches() {
		add(w)
		names = append(names, w.name)
	}
	f.track.Follow(names)
	f.runs = runs
	return slices.Sorted(maps.Keys(runs))
}

// watch is one query that a Follower asks again and again.
type watch struct {
	f     *Follower
	name  string // in statuses
	key   string // what else tells it from others, among them earlier ones of the name
	query consul.Query
	take  func(consul.Reply) (int, error)
	fail  func(error) // may be nil
	many  bool        // one of the chains
}

// run asks until ctx ends.
func (w *watch) run(ctx context.Context) {
	take := func(r consul.Reply) (int, error) {
		n, err := w.take(r)
		if err == nil {
			warning := ""
			if r.Hidden {
				warning = "something is hidden by ACLs; the token needs " + w.query.Need
			}
			w.f.track.Confirm(w.name, r.Index, n, warning)
		}
		return n, err
	}
	fail := func(err error) {
		w.f.track.Fail(w.name, err)
		if w.fail != nil {
			w.fail(err)
		}
	}
	if w.many {
		w.f.lane.follow(ctx, question{query: w.query, take: take, fail: fail})
		return
	}
	step(ctx, w.f.client, w.query, take, fail)
}
