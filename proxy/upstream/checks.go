package upstream

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// check is what an endpoint's active checks have said, and the connection that
// they keep. Its lock is the innermost: nothing else is locked under it.
type check struct {
	mu      sync.Mutex
	machine *health.Endpoint // nil before the first look; see judge
	running bool             // a check is under way
	gone    bool             // the endpoint has left: nothing is kept any more
	conn    *wire.Conn       // kept for the next check; nil while one runs
}

// judge is the machine that decides. k.mu is held.
func (k *check) judge() *health.Endpoint {
	if k.machine == nil {
		k.machine = new(health.Endpoint)
	}
	return k.machine
}

func (k *check) start(cfg *health.Config, now time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.judge().Start(cfg, now, rand.Uint64())
}

func (k *check) restart(cfg *health.Config, now time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.judge().Restart(cfg, now, rand.Uint64())
}

// stop closes the kept connection; with final none is kept afterwards.
func (k *check) stop(final bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = k.gone || final
	if k.conn != nil {
		_ = k.conn.Close()
		k.conn = nil
	}
}

// fit reports whether the checks have nothing against traffic to the endpoint.
func (k *check) fit(cfg *health.Config) bool {
	if cfg == nil {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.judge().Fit(cfg)
}

func (k *check) state() health.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.judge().State()
}

func (k *check) snapshot() health.Snapshot {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.judge().Snapshot()
}

// applyHealth follows a change of the checks in the policy. c.mu is held.
func (c *Cluster) applyHealth(old, now *Policy, at time.Duration) {
	var before *health.Config
	if old != nil {
		before = old.Health
	}
	if sameChecks(before, now.Health) {
		return
	}
	for _, e := range c.endpoints {
		e.check.stop(false)
		switch {
		case now.Health == nil:
		case before == nil:
			e.check.start(now.Health, at)
		default:
			e.check.restart(now.Health, at)
		}
	}
	c.registry.wakeChecks()
}

func sameChecks(a, b *health.Config) bool { return a == b || reflect.DeepEqual(a, b) }

func (r *Registry) wakeChecks() {
	select {
	case r.recheck <- struct{}{}:
	default:
	}
}

// ChecksChanged has a value when endpoints or policies have changed in a way
// that may make an active check due earlier than DueChecks said.
func (r *Registry) ChecksChanged() <-chan struct{} { return r.recheck }

// DueCheck is an active check that is to be made now.
type DueCheck struct {
	Endpoint *Endpoint
	Config   *health.Config
	// Conn is the connection that the last check kept, or nil. It belongs to
	// whoever makes the check.
	Conn *wire.Conn

	due time.Duration
}

// DueChecks appends to list the active checks that are due at now, at most so
// many and those that have waited longest, and marks them as under way; each
// must be given to Checked. next is when the next one of the others is due; as
// late as can be when there is none.
func (r *Registry) DueChecks(list []DueCheck, now time.Duration, most int) (due []DueCheck, next time.Duration) {
	next = math.MaxInt64
	var waiting []DueCheck
	for _, c := range r.all() {
		cfg := c.policy.Load().Health
		if cfg == nil {
			continue
		}
		for _, e := range c.list() {
			e.check.mu.Lock()
			at, busy := e.check.judge().Due(), e.check.running
			e.check.mu.Unlock()
			switch {
			case busy:
			case at <= now:
				waiting = append(waiting, DueCheck{Endpoint: e, Config: cfg, due: at})
			default:
				next = min(next, at)
			}
		}
	}
	slices.SortStableFunc(waiting, func(a, b DueCheck) int { return int(min(max(a.due-b.due, -1), 1)) })
	if len(waiting) > most {
		waiting, next = waiting[:most], now
	}
	for _, d := range waiting {
		if d.begin() {
			list = append(list, d)
		}
	}
	return list, next
}

// begin marks the check as under way; false when the endpoint has left.
func (d *DueCheck) begin() bool {
	k := &d.Endpoint.check
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return false
	}
	k.running = true
	d.Conn, k.conn = k.conn, nil
	return true
}

// CheckResult is a check that ended.
type CheckResult struct {
	Check  DueCheck
	Result health.Result
	// Void says that the check was given up and there is no result.
	Void bool
	// Keep is a connection for the next check, or nil.
	Keep *wire.Conn
}

// Checked takes the results of checks that DueChecks had given and returns when
// the first of their endpoints is to be checked again.
func (r *Registry) Checked(now time.Duration, results []CheckResult) (next time.Duration) {
	var changed []*Cluster
	next = math.MaxInt64
	for i := range results {
		c := results[i].Check.Endpoint.cluster
		rebuild, due := c.checked(now, &results[i])
		next = min(next, due)
		if rebuild && !slices.Contains(changed, c) {
			changed = append(changed, c)
		}
	}
	for _, c := range changed {
		c.mu.Lock()
		c.rebuild(now)
		c.mu.Unlock()
	}
	return next
}

// EndChecks closes the connections that checks have kept.
func (r *Registry) EndChecks() {
	for _, c := range r.all() {
		for _, e := range c.list() {
			e.check.stop(false)
		}
	}
}

// checked takes one result. rebuild says that the endpoint may be used now and
// could not before, or the other way round; due is when it is to be checked again.
func (c *Cluster) checked(now time.Duration, res *CheckResult) (rebuild bool, due time.Duration) {
	e := res.Check.Endpoint
	cfg := c.policy.Load().Health
	k := &e.check
	k.mu.Lock()
	k.running = false
	keep, void := res.Keep, res.Void || k.gone || !sameChecks(cfg, res.Check.Config)
	if keep != nil && !void && keep.Generation == c.generation.Load() {
		k.conn, keep = keep, nil
	}
	var before, after health.Snapshot
	changed := false
	if !void {
		fit := k.judge().Fit(cfg)
		before = k.judge().Snapshot()
		changed = k.judge().Observe(cfg, now, rand.Uint64(), res.Result)
		after = k.judge().Snapshot()
		rebuild = fit != k.judge().Fit(cfg)
	}
	due = math.MaxInt64
	if cfg != nil && !k.gone {
		due = k.judge().Due()
	}
	k.mu.Unlock()
	if keep != nil {
		_ = keep.Close()
	}
	if void {
		return false, due
	}
	c.metrics.Checked(telemetry.CheckResult(res.Result.Cause))
	if rebuild && before.State == health.Unhealthy {
		c.mu.Lock()
		e.since = now // slow start: it may have been restarted
		c.mu.Unlock()
	}
	if changed {
		c.healthChanged(e, cfg, before.State, &after)
	}
	return rebuild, due
}

func (c *Cluster) healthChanged(e *Endpoint, cfg *health.Config, before health.State, after *health.Snapshot) {
	level := slog.LevelInfo
	switch {
	case after.State == health.Unhealthy:
		level = slog.LevelWarn
		e.metrics.BecameUnhealthy.Inc()
		if cfg.Mode == guard.Observe {
			c.metrics.WouldHave(telemetry.WouldAvoid)
			break
		}
		e.pool.close(false, e.drop)
		e.mux.drain(false)
		e.check.stop(false)
	case before == health.Unknown:
		level = slog.LevelDebug
	default:
		e.metrics.BecameHealthy.Inc()
	}
	attrs := []any{"event", "health_" + after.State.String(), "cluster", c.name, "endpoint", e.address, "check", cfg.Kind()}
	if after.State == health.Unhealthy {
		attrs = append(attrs, "cause", after.Cause.Cause.String(), "detail", after.Cause.Detail)
	}
	if cfg.Mode == guard.Observe {
		attrs = append(attrs, "mode", cfg.Mode.String())
	}
	c.registry.log.Log(c.registry.ctx, level, "endpoint is "+after.State.String()+" by its checks", attrs...)
}

// Cluster returns the name of the cluster that e belongs to.
func (e *Endpoint) Cluster() string { return e.cluster.name }

// Protocol is the word for what is spoken with e: http, http2, grpc or tcp.
func (e *Endpoint) Protocol() string { return e.cluster.spec.Load().Protocol }

// HTTP2 reports whether HTTP/2 is spoken with e.
func (e *Endpoint) HTTP2() bool { return e.cluster.policy.Load().HTTP2 }

// Dial makes a connection to e as for an exchange, with its TLS handshake, that
// counts neither in the cluster's limits nor in its metrics and is the caller's
// to close. It offers protos by ALPN.
func (e *Endpoint) Dial(ctx context.Context, until time.Time, protos []string) (*wire.Conn, *outcome.Error) {
	if protos == nil {
		protos = []string{}
	}
	return e.open(ctx, until, protos, "", nil)
}

// Current reports whether a connection that Dial made is still one that would
// be made now, and can be used: open, with nothing to read.
func (e *Endpoint) Current(c *wire.Conn) bool {
	return c.Generation == e.cluster.generation.Load() && c.Quiet()
}
