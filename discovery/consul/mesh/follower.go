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

// settle is how long changes are collected before they are handed over.
const settle = 100 * time.Millisecond

// Options are what a Follower needs beside the configuration of Consul.
type Options struct {
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
	cfg    consul.Config
	me     consul.Sidecar
	client *consul.Client
	log    *slog.Logger
	track  discovery.Tracker
	dirty  chan struct{} // capacity 1
	jobs   discovery.Each
	ends   *Endpoints
	lane   *lane // of the chains

	planning sync.Mutex // held while jobs change

	mu    sync.Mutex
	state state
	runs  map[string]func(context.Context) // of the jobs, by name
	last  *Snapshot                        // what was handed over
}

// New returns a Follower for the sidecar of cfg, which must name one. Nothing is
// sent before Run.
func New(cfg consul.Config, o Options) (*Follower, error) {
	if cfg.Sidecar == nil {
		return nil, errors.New("discovery.consul.sidecar is not set")
	}
	client, err := o.Client, error(nil)
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
		dirty: make(chan struct{}, 1), runs: map[string]func(context.Context){},
		state: state{chains: map[string]*chainState{}},
	}
	f.lane = newLane(client, min(f.polls(), mostChains), f.chainDetectors)
	f.ends = newEndpoints(f)
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

// Endpoints is the source of the instances of targets, by TargetName. It works
// while Run runs.
func (f *Follower) Endpoints() *Endpoints { return f.ends }

// Status describes the queries about the sidecar itself, each named
// "sidecar/" with what it is about, sorted by name.
func (f *Follower) Status() []discovery.WatchStatus { return f.track.Status() }

// Run follows the sidecar and calls give with all that is known each time
// something in it has changed, the first time when everything has been
// answered. It blocks, and returns nil when ctx ends.
func (f *Follower) Run(ctx context.Context, give func(*Snapshot)) error {
	var wg sync.WaitGroup
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

// deliver hands over what changes until ctx ends.
func (f *Follower) deliver(ctx context.Context, give func(*Snapshot)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.dirty:
		}
		if !discovery.Sleep(ctx, settle, nil) {
			return
		}
		f.mu.Lock()
		s, ok := f.state.snapshot()
		if ok && !s.equal(f.last) {
			f.last = s
		} else {
			ok = false
		}
		f.mu.Unlock()
		if ok {
			f.ends.know(s)
			give(s)
		}
	}
}

// change calls what with the state and makes a new snapshot soon.
func (f *Follower) change(what func(*state)) {
	f.mu.Lock()
	what(&f.state)
	f.mu.Unlock()
	select {
	case f.dirty <- struct{}{}:
	default:
	}
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
