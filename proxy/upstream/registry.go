// Package upstream keeps what outlives a plan: clusters, endpoints, their pooled connections, counters and ejections.
package upstream

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/hand"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// TickInterval is how often ejections are reviewed and idle connections
// closed.
const TickInterval = 200 * time.Millisecond

// freeSlots bounds the wake-ups stored for exchanges that wait for a
// connection; each waiter looks for itself, so a lost one costs nothing.
const freeSlots = 1024

// Registry holds the clusters by name.
type Registry struct {
	ctx     context.Context // ends with the proxy; dials stop then
	sweeper *wire.Sweeper
	metrics *telemetry.Metrics
	log     *slog.Logger
	dialer  net.Dialer
	running sync.WaitGroup // HTTP/2 connections

	// Instances finds the endpoints of clusters that are called directly.
	Instances Instances

	// HTTP2 is how HTTP/2 connections to endpoints behave. Set it before the
	// first cluster that needs them.
	HTTP2 *http2.Config

	// Outcomes is the log that is told of changes. Set it before the first cluster.
	Outcomes *outcomes.Log

	affinityKey AffinityKey // where a policy gives none

	// recheck wakes whoever makes the active checks; capacity 1.
	recheck chan struct{}

	// changing is held by whoever changes clusters or their endpoints, so that
	// what comes last is what stays.
	changing sync.Mutex

	mu       sync.Mutex // below; never held for long
	clusters map[string]*Cluster
	sorted   []*Cluster // by name, never changed in place; nil after clusters has changed
	// latest is what discovery said last, also of services that no plan wants
	// at present, so that a cluster which comes with a reload starts full.
	latest map[string][]EndpointSpec
	// orders are those of clusters that no plan wants at present, by their keys.
	orders map[string]hand.Orders
}

// NewRegistry returns an empty registry whose connections are watched by sw.
// ctx bounds the life of everything dialled.
func NewRegistry(ctx context.Context, sw *wire.Sweeper, m *telemetry.Metrics, log *slog.Logger) *Registry {
	r := &Registry{
		ctx: ctx, HTTP2: &http2.Config{}, sweeper: sw, metrics: m, log: log,
		dialer:   net.Dialer{KeepAlive: time.Minute},
		clusters: map[string]*Cluster{},
		latest:   map[string][]EndpointSpec{},
		orders:   map[string]hand.Orders{},
		recheck:  make(chan struct{}, 1),
	}
	_, _ = rand.Read(r.affinityKey[:]) // never fails
	return r
}

// Acquire returns the cluster that spec names, made or changed to match it,
// and counts one more user. dir is the direction in metrics.
func (r *Registry) Acquire(spec Spec, dir telemetry.Direction) *Cluster {
	now := r.sweeper.Now()
	key := dir.String() + "/" + spec.Name
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	c := r.clusters[key]
	known, listed := r.latest[spec.Name]
	orders := r.orders[key]
	delete(r.orders, key)
	r.mu.Unlock()
	if c != nil {
		c.refs++
		c.apply(&spec, now)
		return c
	}
	c = &Cluster{
		name: spec.Name, direction: dir, registry: r, refs: 1,
		metrics: r.metrics.Cluster(spec.Name, dir),
		orders:  orders,
		free:    make(chan struct{}, freeSlots),
		listed:  make(chan struct{}),
	}
	c.Gate.bind(c, &c.Limits)
	c.apply(&spec, now)
	c.bindMetrics()
	if listed && !spec.Local {
		c.setEndpoints(known, now)
	}
	// Found by others only now that it is whole.
	r.mu.Lock()
	r.clusters[key], r.sorted = c, nil
	r.mu.Unlock()
	return c
}

// Release takes back one Acquire. The last one retires the cluster: idle
// connections are closed, those in use when their exchange ends.
func (r *Registry) Release(c *Cluster) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if c.refs--; c.refs > 0 {
		return
	}
	r.mu.Lock()
	for k, v := range r.clusters {
		if v == c {
			delete(r.clusters, k)
			r.sorted = nil
		}
	}
	r.mu.Unlock()
	r.keepOrders(c.retire(), c)
	c.metrics.Release()
}

// SetEndpoints makes list the endpoints of every cluster of that service.
func (r *Registry) SetEndpoints(service string, list []EndpointSpec) {
	list = slices.Clone(list)
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	r.latest[service] = list
	c := r.clusters[telemetry.Outbound.String()+"/"+service]
	r.mu.Unlock()
	if c == nil {
		return
	}
	if added, removed := c.setEndpoints(list, r.sweeper.Now()); added+removed > 0 {
		r.log.Info("endpoints changed", "event", "endpoints", "cluster", service, "endpoints", len(list), "added", added, "removed", removed)
	}
}

// SetLocal makes list the endpoints of a cluster that discovery does not know.
func (c *Cluster) SetLocal(list []EndpointSpec) {
	c.setEndpoints(slices.Clone(list), c.registry.sweeper.Now())
}

// Run reviews ejections and closes idle connections until ctx ends; then it
// closes all that is idle.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(TickInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, c := range r.all() {
				c.closeIdle()
			}
			r.running.Wait()
			return nil
		case <-tick.C:
			now := r.sweeper.Now()
			for _, c := range r.all() {
				c.tick(now)
			}
		}
	}
}

// all returns the clusters in the order of their names. The list is not to be changed.
func (r *Registry) all() []*Cluster {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sorted != nil {
		return r.sorted
	}
	list := make([]*Cluster, 0, len(r.clusters))
	for _, c := range r.clusters {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *Cluster) int { return strings.Compare(a.name, b.name) })
	r.sorted = list
	return list
}

func (c *Cluster) tick(now time.Duration) {
	c.sweep(now)
	p := c.policy.Load()
	if p.Balance.Zones.Prefer || p.caution() != nil {
		c.measure(p, now)
	}
	c.weigh(p, now)
	c.mu.Lock()
	endpoints := c.endpoints
	c.mu.Unlock()
	for _, e := range endpoints {
		if e.conns.Load() > 0 {
			e.pool.expire(now, p.Keepalive, e.drop)
		}
	}
}

// CloseIdle closes the connections that are kept for later exchanges.
func (r *Registry) CloseIdle() {
	for _, c := range r.all() {
		for _, e := range c.list() {
			e.pool.close(false, e.drop)
		}
	}
}

func (c *Cluster) closeIdle() {
	c.mu.Lock()
	endpoints := c.endpoints
	c.mu.Unlock()
	for _, e := range endpoints {
		e.pool.close(false, e.drop)
		e.mux.end()
	}
}
