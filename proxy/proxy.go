// Package proxy is the facade: it joins identity, discovery, plan and listeners into one running proxy that can be reloaded and drained.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/lifecycle"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/jwks"
	"github.com/outrigger-mesh/outrigger/proxy/check"
	"github.com/outrigger-mesh/outrigger/proxy/datagram"
	"github.com/outrigger-mesh/outrigger/proxy/detect"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/faults"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/proxy/listener"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/names"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// Options is what a proxy is made from.
type Options struct {
	Config   *config.Loaded
	Log      *slog.Logger
	LogLevel *slog.LevelVar // changed by the admin API and by reloads; may be nil
	Version  string
	Commit   string
	// Sidecar is where Config is from, and what says when it changes; nil where
	// that is a file. It must run while the proxy does.
	Sidecar *Sidecar
	// Memory is the memory budget in bytes; 0 takes that of the configuration.
	Memory int64
}

// Proxy is one proxy. New makes it, Run serves until its context ends, Apply
// changes what is served.
type Proxy struct {
	log      *slog.Logger
	level    *slog.LevelVar
	version  string
	started  time.Time
	initial  *config.Loaded
	sweeper  *wire.Sweeper
	streams  *http2.Sweeper
	resting  *wire.Resting
	memory   *memory.Budget
	floods   *floods
	metrics  *telemetry.Metrics
	access   *telemetry.AccessLog
	tracer   *telemetry.Tracer
	server   *exchange.Server
	ledger   *ledger.Ring // nil without one
	outcomes *outcomes.Log
	registry *upstream.Registry
	faults   *faults.Board
	limiters *limiter.Set
	tokens   *jwks.Set
	identity mtls.Source // nil without one
	source   discovery.Source
	snapshot *discovery.Snapshotter // nil without one
	register *consul.Registrar      // nil unless asked for
	sidecar  *Sidecar               // nil unless Consul says what is served
	names    *names.Server          // nil without dns
	desks    []*desk
	left     []*desk         // open from before the configuration, which does not ask for them
	quitting context.Context // ended by quit, as Run's own may be
	quit     context.CancelFunc
	life     context.Context // ends when everything else has: dials stop then
	endLife  context.CancelFunc

	draining  atomic.Bool // from the first moment: not ready any more
	closing   atomic.Bool // inbound connections end with their exchange
	localID   atomic.Pointer[string]
	current   atomic.Pointer[plan.Plan]
	first     *plan.Plan // what stands before the first plan; nil otherwise
	inForce   atomic.Pointer[configured]
	following atomic.Pointer[[]string]
	watches   atomic.Pointer[watches]
	refollow  chan struct{} // capacity 1: the services to follow have changed

	dividing    sync.Mutex // held while rates are divided
	mu          sync.Mutex // held while a plan is applied
	loaded      *config.Loaded
	history     []planned // the last configurations, for the ledger
	planned     uint64    // the version of the last plan
	listeners   map[string]*listener.Listener
	datagrams   map[string]*datagram.Relay
	retired     []*listener.Listener // stopped, with connections that end
	accepting   *lifecycle.Group
	identities  map[string][]string
	serverNames map[string]string               // that discovery gives
	watched     map[string]*telemetry.Discovery // metrics of the services followed
	reload      admin.ReloadView
}

// New prepares a proxy. It opens the admin API's socket and the access log, so
// that mistakes about them are found at once, and starts nothing.
func New(o Options) (*Proxy, error) {
	cfg := o.Config.Config
	p := &Proxy{
		log: o.Log, level: o.LogLevel, version: o.Version, started: time.Now(), initial: o.Config, sidecar: o.Sidecar,
		refollow:  make(chan struct{}, 1),
		listeners: map[string]*listener.Listener{}, identities: map[string][]string{}, serverNames: map[string]string{},
		watched: map[string]*telemetry.Discovery{},
	}
	res := telemetry.Resource{Service: cfg.Service.Name, Version: o.Version, Commit: o.Commit}
	var err error
	if p.metrics, err = telemetry.New(telemetry.Options{Resource: res}); err != nil {
		return nil, err
	}
	if p.access, err = newAccessLog(o.Config); err != nil {
		return nil, err
	}
	if t := cfg.Telemetry.Tracing; t.Endpoint != "" {
		p.tracer, err = telemetry.NewTracer(telemetry.TracerConfig{
			Endpoint: t.Endpoint, Protocol: t.Protocol, SamplingPercent: t.SamplingPercent, Resource: res,
		})
		if err != nil {
			return nil, o.Config.Problem("telemetry.tracing.endpoint", err.Error())
		}
	}
	p.quitting, p.quit = context.WithCancel(context.Background())
	p.life, p.endLife = context.WithCancel(context.Background())
	p.sweeper = wire.NewSweeper(time.Now())
	p.streams = http2.NewSweeper(p.sweeper.Now)
	if p.resting, err = wire.NewResting(); err != nil {
		p.endLife()
		return nil, err
	}
	budget := o.Memory
	if budget == 0 {
		budget = cfg.Memory.Bytes()
	}
	p.memory = p.newBudget(budget)
	p.sweeper.Memory = p.memory
	p.floods = &floods{log: p.log, now: p.sweeper.Now}
	h2 := http2.Config{
		Sweeper: p.streams, PingAfter: pingAfter, ExtendedConnect: true, Memory: p.memory, OnFlood: p.floods.struck,
	}
	fitWindows(&h2, budget)
	p.registry = upstream.NewRegistry(p.life, p.sweeper, p.metrics, p.log)
	p.registry.HTTP2 = &h2
	p.faults = faults.New(p.sweeper.Now, p.registry.Vitals, p.log)
	p.limiters, p.tokens = limiter.NewSet(p.sweeper.Now, p.log), jwks.NewSet(p.log)
	p.ledger = ledger.New(cfg.Telemetry.Ledger, budget/ledgerShare)
	if err := p.newOutcomes(o.Config); err != nil {
		p.endLife()
		return nil, err
	}
	p.server = &exchange.Server{
		Ledger: p.ledger, Outcomes: p.outcomes, Faults: p.faults,
		Sweeper: p.sweeper, Tracer: p.tracer, AccessLog: p.access, Log: p.log,
		Lessons: detect.NewMemory[exchange.Destination](rememberedDestinations, rememberedFor),
		HTTP2:   &h2, Resting: p.resting, Memory: p.memory, LocalID: p.ownID, Draining: &p.closing, Hops: exchange.NewHops(),
	}
	if err = p.newIdentity(cfg); err == nil {
		err = p.newDiscovery(cfg)
	}
	if err != nil {
		p.endLife()
		return nil, err
	}
	if err := p.newNames(o.Config); err != nil {
		p.endLife()
		return nil, err
	}
	p.bindProcess()
	if err := p.newDesks(o.Config); err != nil {
		p.endLife()
		return nil, err
	}
	p.sidecar.has(p)
	return p, nil
}

func (p *Proxy) ownID() string {
	if s := p.localID.Load(); s != nil {
		return *s
	}
	return ""
}

// ErrCutOff is returned by Run when the drain had to end connections that were
// still in use.
var ErrCutOff = errors.New("connections in use were cut off at the end of the drain")

// Run serves until ctx ends, then drains. Ending kill as well cuts the drain
// short. It returns nil when everything ended in order, ErrCutOff when
// connections had to be cut off, and another error when the proxy could not
// start or one of its parts failed.
func (p *Proxy) Run(ctx, kill context.Context) error {
	defer p.endLife()
	defer p.quit()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(p.quitting, stop)()
	if p.sidecar != nil {
		defer context.AfterFunc(p.sidecar.quitting, stop)()
	}
	// Telemetry and the admin API outlive everything that they tell about.
	tail := lifecycle.New(context.WithoutCancel(ctx))
	defer func() {
		tail.Stop()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = tail.Wait()
		}()
		flush, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		select {
		case <-ended:
		case <-flush.Done():
			// Such as an access log into a pipe that nobody reads.
			p.log.Error("telemetry could not be written out in time; some of it is lost", "event", "flush_failed")
		}
		_ = p.metrics.Shutdown(flush)
	}()
	tail.Go("access log", p.optional("access log", p.access.Run))
	tail.Go("outcome log", p.optional("outcome log", p.outcomes.Run))
	if p.tracer != nil {
		tail.Go("tracing", p.optional("tracing", p.tracer.Run))
	}
	p.runDesks(tail)

	core := lifecycle.New(context.WithoutCancel(ctx))
	p.accepting = lifecycle.New(context.WithoutCancel(ctx))
	err := p.serve(ctx, core)
	cut := p.drain(kill, core, err == nil)
	if first := core.Err(); err == nil {
		err = first
	}
	core.Stop()
	_ = core.Wait()
	if err == nil && cut {
		err = ErrCutOff
	}
	return err
}

const flushTime = 5 * time.Second

// What detection remembers: as many destinations as a proxy may have upstreams,
// and no longer than it takes to be told that one has changed.
const (
	rememberedDestinations = 4096
	rememberedFor          = 10 * time.Minute
)

// pingAfter is how long an HTTP/2 connection with streams may be silent before
// its peer is asked whether it is still there.
const pingAfter = 30 * time.Second

// optional makes run a part whose failure is said and ends nothing else:
// traffic goes on without it.
func (p *Proxy) optional(name string, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := run(ctx); err != nil {
			p.log.Error(name+" has failed; the proxy goes on without it", "event", "part_failed", "error", err)
		}
		return nil
	}
}

// serve starts everything in order and returns when the proxy is told to stop
// or a part has failed.
func (p *Proxy) serve(ctx context.Context, core *lifecycle.Group) error {
	if err := p.early(); err != nil {
		return err
	}
	core.Go("sweeper", p.sweeper.Run)
	core.Go("stream sweeper", p.streams.Run)
	core.Go("resting connections", p.resting.Run)
	core.Go("memory", p.memory.Run)
	core.Go("upstreams", p.registry.Run)
	core.Go("faults", p.faults.Run)
	core.Go("rate limiters", p.limiters.Run)
	core.Go("token keys", p.tokens.Run)
	core.Go("health checks", check.New(p.registry, p.sweeper).Run)
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(core.Context(), cancel)
	defer stop()
	if p.identity != nil {
		core.Go("identity", p.identity.Run)
		core.Go("identity watch", p.watchIdentity)
		core.Go("identity expiry", func(ctx context.Context) error { return mtls.Watch(ctx, p.identity, p.log) })
		if _, err := mtls.Wait(starting, p.identity); err != nil {
			if failed := core.Err(); failed != nil || ctx.Err() != nil {
				return failed
			}
			return fmt.Errorf("identity: %w", err)
		}
	}
	if err := p.Apply(p.initial); err != nil {
		return err
	}
	if p.names != nil {
		core.Go("dns", p.optional("the DNS server", p.names.Run))
	}
	core.Go("retired listeners", p.closeRetired)
	if p.sidecar != nil {
		core.Go("sidecar", p.followSidecar)
	}
	if p.source != nil {
		core.Go("discovery", p.follow)
		core.Go("discovery status", p.keepWatches)
	}
	core.Go("end of the start", p.settle)
	if p.register != nil {
		core.Go("registration", p.registration)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-core.Context().Done():
		return core.Err()
	}
}

func parseAddrPort(s string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(s)
	return a
}
