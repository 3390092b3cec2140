package upstream

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// slot takes the right to make one more connection. Where the limit is
// reached it waits for a connection to become free: then that one is returned,
// or an idle one of another endpoint is closed to make room.
func (c *Cluster) slot(e *Endpoint, p *Policy, w Want, until time.Time) (*wire.Conn, *outcome.Error) {
	most := p.Limits.MaxConnections
	if !p.Limits.Mode.Acts(w.Draw) {
		if most > 0 && c.Limits.Connections.Value() >= most {
			c.metrics.WouldHave(telemetry.WouldLimit)
		}
		c.Limits.Acquire(&p.Limits, limit.Connections, w.Draw)
		return nil, nil
	}
	if c.Limits.Connections.Acquire(most) {
		return nil, nil
	}
	if !c.Limits.Acquire(&p.Limits, limit.Pending, w.Draw) {
		c.metrics.Limited(telemetry.LimitPending)
		return nil, &outcome.Error{Reason: outcome.LimitPending}
	}
	defer c.Limits.Release(limit.Pending)
	c.waiters.Add(1)
	defer c.waiters.Add(-1)
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		if !w.Fresh {
			if got := e.kept(c.registry.sweeper.Now(), p, true); got != nil {
				return got, nil
			}
		}
		if c.Limits.Connections.Acquire(most) {
			return nil, nil
		}
		if c.evictIdle() {
			continue
		}
		c.evictMux()
		select {
		case <-c.free:
		case <-timer.C:
			if c.Limits.Acquire(&p.Limits, limit.Connections, w.Draw) {
				return nil, nil
			}
			c.metrics.Limited(telemetry.LimitConnections)
			return nil, &outcome.Error{Reason: outcome.LimitConnections}
		case <-c.registry.ctx.Done():
			return nil, &outcome.Error{Reason: outcome.Draining}
		}
	}
}

// evictIdle closes one idle connection of any endpoint.
func (c *Cluster) evictIdle() bool {
	for _, e := range c.set.Load().endpoints {
		if idle := e.pool.evict(); idle != nil {
			e.drop(idle)
			return true
		}
	}
	return false
}

// evictMux ends one HTTP/2 connection without streams of any endpoint. Its slot
// is free once the peer has had time to read the last frame.
func (c *Cluster) evictMux() {
	for _, e := range c.set.Load().endpoints {
		if e.mux.evict() {
			return
		}
	}
}

// freed tells a waiter that a connection was put back or, with gone, closed.
func (c *Cluster) freed(gone bool) {
	if gone {
		c.Limits.Connections.Release()
	}
	if c.waiters.Load() > 0 {
		select {
		case c.free <- struct{}{}:
		default:
		}
	}
}
