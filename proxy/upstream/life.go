package upstream

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/hand"
)

// Listed reports whether discovery has said anything about the cluster yet.
func (c *Cluster) Listed() bool {
	select {
	case <-c.listed:
		return true
	default:
		return false
	}
}

// AwaitListed waits, at most for d, until discovery has said which endpoints the
// cluster has. It reports whether it had to wait and they are known now: a
// cluster that comes with a reload is used before its first answer.
//
// The same goes for those who have its attempts while it has no endpoint.
func (c *Cluster) AwaitListed(d time.Duration) bool {
	if len(c.Failover()) == 0 {
		return c.awaitListed(d)
	}
	until := time.Now().Add(d)
	waited := c.awaitListed(d)
	if total, _ := c.sizes(); total > 0 {
		return waited
	}
	return c.awaitFailover(until) || waited
}

func (c *Cluster) awaitListed(d time.Duration) bool {
	if c.Listed() {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.listed:
		return true
	case <-t.C:
	case <-c.registry.ctx.Done():
	}
	return false
}

// Renew has connections over TLS made anew, as the own certificate has been
// renewed: kept ones are closed, those in use take no more exchanges. Without it
// a connection could outlive the certificate, and the root, that it was made with.
func (r *Registry) Renew() {
	for _, c := range r.all() {
		c.mu.Lock()
		if c.spec.Load().TLS != nil {
			c.anew()
		}
		c.mu.Unlock()
	}
}

// anew lets no exchange begin on a connection that there is. The caller holds c.mu.
func (c *Cluster) anew() {
	c.generation.Add(1)
	for _, e := range c.endpoints {
		e.pool.close(false, e.drop)
		e.mux.drain(false)
	}
}

// retire closes what the cluster keeps, as no plan in use has it. Exchanges that
// began under one that had may still call its endpoints; their connections are
// closed behind them. It returns the orders that were in force.
func (c *Cluster) retire() hand.Orders {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.endpoints {
		e.gone()
	}
	c.applySubsets(nil)
	if len(c.found) > 0 {
		c.registry.Instances.set(c, nil)
	}
	orders := c.orders
	c.orders = hand.Orders{}
	return orders
}

// keepOrders keeps the orders of a cluster that has retired, for the case that
// a reload brings it back within their time, and forgets those of others whose
// time is over.
func (r *Registry) keepOrders(orders hand.Orders, c *Cluster) {
	now := r.sweeper.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, o := range r.orders {
		if o.Expire(now); o.Len() == 0 {
			delete(r.orders, key)
		}
	}
	if orders.Len() > 0 {
		r.orders[c.direction.String()+"/"+c.name] = orders
	}
}

// gone ends what e keeps; connections in use end with their exchanges.
func (e *Endpoint) gone() {
	e.pool.close(true, e.drop)
	e.mux.drain(true)
	e.check.stop(true)
	e.metrics.Release()
}
