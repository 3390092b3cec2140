package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/hand"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Errors of orders. What is returned wraps one of them or hand.ErrTooMany.
var (
	// ErrUnknown: there is no such cluster or endpoint.
	ErrUnknown = errors.New("unknown")
	// ErrNoEffect: the order would change nothing.
	ErrNoEffect = errors.New("no effect")
)

// orderError is an error in words for people.
type orderError struct {
	kind error
	text string
}

func (e *orderError) Error() string { return e.text }
func (e *orderError) Unwrap() error { return e.kind }

func refuse(kind error, format string, args ...any) error {
	return &orderError{kind, fmt.Sprintf(format, args...)}
}

// Order is what an operator wants of a cluster that is called.
type Order struct {
	Cluster   string
	Endpoints []string      // addresses, or the catalog's names for instances
	For       time.Duration // 0: hand.DefaultFor; at most hand.MaxFor
	By        string        // who gives it
	Reason    string
}

// Eject gives the endpoints no more traffic, until TakeBack or the end of the
// time. It returns the orders given. The last endpoint that is not ejected by
// hand cannot be.
func (r *Registry) Eject(o *Order) ([]hand.Order, error) { return r.give(o, hand.Eject) }

// Pin gives all traffic to the endpoints. It ends earlier pins of the cluster.
func (r *Registry) Pin(o *Order) ([]hand.Order, error) { return r.give(o, hand.Pin) }

// called returns the cluster that the service calls under that name.
func (r *Registry) called(name string) (*Cluster, error) {
	var names []string
	for _, c := range r.all() {
		switch {
		case c.direction != telemetry.Outbound:
		case c.name == name:
			return c, nil
		default:
			names = append(names, c.name)
		}
	}
	return nil, refuse(ErrUnknown, "no outbound cluster %.64q; there are: %s", name, listed(names))
}

func listed(names []string) string {
	const most = 8
	if len(names) == 0 {
		return "none"
	}
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// named returns the address of the endpoint that has this address or, alone,
// this name. c.mu is held.
func (c *Cluster) named(name string) (string, error) {
	var found, all []string
	for _, e := range c.endpoints {
		if e.address == name {
			return name, nil
		}
		if name != "" && e.spec.Load().ID == name {
			found = append(found, e.address)
		}
		all = append(all, e.address)
	}
	switch len(found) {
	case 0:
		return "", refuse(ErrUnknown, "%s has no endpoint %.64q; it has: %s", c.name, name, listed(all))
	case 1:
		return found[0], nil
	}
	return "", refuse(ErrUnknown, "%s has several endpoints %.64q; name one by its address: %s", c.name, name, listed(found))
}

func (r *Registry) give(o *Order, act hand.Act) ([]hand.Order, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	c, err := r.called(o.Cluster)
	if err != nil {
		return nil, err
	}
	now := r.sweeper.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var given []hand.Order
	for _, name := range o.Endpoints {
		address, err := c.named(name)
		if err != nil {
			return nil, err
		}
		given = append(given, hand.Order{Endpoint: address, Act: act, At: now, Until: now + hand.Clamp(o.For), By: o.By, Reason: o.Reason})
	}
	next := hand.Orders{}
	_ = next.Give(c.orders.All()...) // as many as there were
	if err := next.Give(given...); err != nil {
		return nil, refuse(err, "%s: %v", c.name, err)
	}
	if act == hand.Eject && slices.Contains(next.Stand(c.addresses()), hand.Needed) {
		return nil, refuse(ErrNoEffect, "%s would have no endpoint left that is not ejected by hand, and all would be used; release or add another one first", c.name)
	}
	c.orders = next
	for i := range given {
		c.metrics.Ordered(telemetry.Order(act))
		c.say(slog.LevelWarn, "endpoint ordered: "+act.String(), "hand_"+act.String(), &given[i], now, "by", o.By)
	}
	c.rebuild(now)
	return given, nil
}

// TakeBack ends the orders for the endpoints, and with none named all
// orders of the cluster. Endpoints that are named are taken back from outlier
// detection as well. It returns the addresses that were out or pinned.
func (r *Registry) TakeBack(o *Order) ([]string, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	c, err := r.called(o.Cluster)
	if err != nil {
		return nil, err
	}
	now := r.sweeper.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var over []hand.Order
	var readmitted, all []string
	if len(o.Endpoints) == 0 {
		over = c.orders.Release("")
	}
	for _, name := range o.Endpoints {
		address := name
		if _, ok := c.orders.Of(address); !ok { // one with an order may have left
			if address, err = c.named(name); err != nil {
				return nil, err
			}
		}
		over = append(over, c.orders.Release(address)...)
		if e := c.at(address); e != nil && c.policy.Load().Outlier != nil && c.detector.Load().Release(&e.Outlier) {
			readmitted = append(readmitted, address)
		}
	}
	for i := range over {
		c.metrics.Ordered(telemetry.OrderReleased)
		c.say(slog.LevelInfo, "order released: "+over[i].Act.String(), "hand_release", &over[i], now, "by", o.By)
		all = append(all, over[i].Endpoint)
	}
	for _, address := range readmitted {
		c.metrics.Ordered(telemetry.OrderReleased)
		c.registry.log.Info("endpoint released from its ejection", "event", "hand_release", "cluster", c.name, "endpoint", address, "by", o.By)
		if !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	if len(all) == 0 {
		return nil, refuse(ErrNoEffect, "%s: nothing to release; no order by hand and no ejection is in force there", c.name)
	}
	c.rebuild(now)
	return all, nil
}

// expire ends the orders whose time is over. c.mu is held.
func (c *Cluster) expire(now time.Duration) bool {
	over := c.orders.Expire(now)
	for i := range over {
		c.metrics.Ordered(telemetry.OrderExpired)
		c.say(slog.LevelInfo, "order over: "+over[i].Act.String(), "hand_over", &over[i], now, "given_by", over[i].By)
	}
	return len(over) > 0
}

func (c *Cluster) say(level slog.Level, text, event string, o *hand.Order, now time.Duration, attrs ...any) {
	attrs = append([]any{"event", event, "cluster", c.name, "endpoint", o.Endpoint}, attrs...)
	if o.Until > now {
		attrs = append(attrs, "for", (o.Until - now).Round(time.Second).String())
	}
	if o.Reason != "" {
		attrs = append(attrs, "reason", o.Reason)
	}
	c.registry.log.Log(c.registry.ctx, level, text, attrs...)
}

// at returns the endpoint with an address, or nil. c.mu is held.
func (c *Cluster) at(address string) *Endpoint {
	for _, e := range c.endpoints {
		if e.address == address {
			return e
		}
	}
	return nil
}

// addresses returns those of all endpoints. c.mu is held.
func (c *Cluster) addresses() []string {
	list := make([]string, len(c.endpoints))
	for i, e := range c.endpoints {
		list[i] = e.address
	}
	return list
}

// obey leaves in all the candidates to which the orders leave traffic, and
// reports whether they are pinned. Who is newly out loses the connections that
// are kept; who was ejected and is back begins slowly. c.mu is held.
func (c *Cluster) obey(all []balance.Candidate, now time.Duration) (left []balance.Candidate, pinned bool) {
	if c.orders.Len() == 0 && !c.ordered {
		return all, false
	}
	c.ordered = c.orders.Len() > 0
	standing := c.orders.Stand(c.addresses())
	for i, e := range c.endpoints {
		s := hand.Free
		if standing != nil {
			s = standing[i]
		}
		before := hand.Standing(e.standing.Swap(uint32(s)))
		switch {
		case s.Out() && !before.Out():
			e.pool.close(false, e.drop)
			e.mux.drain(false)
		case before == hand.Ejected && !s.Out():
			e.since = now
			all[i].Since = now
		}
		pinned = pinned || s == hand.Pinned
		if !s.Out() {
			left = append(left, all[i])
		}
	}
	return left, pinned
}

// choose says which of the candidates that the orders leave may be used. Of the
// pinned some always may.
func choose(p *Policy, left []balance.Candidate, pinned bool, spill *balance.Spill) (picker *balance.Picker, panicking bool) {
	picker, panicking = balance.NewTiered(p.Balance, left, spill)
	if pinned && picker.Len() == 0 {
		var use []balance.Member
		for i := range left {
			use = append(use, left[i].Member)
		}
		return balance.NewPicker(p.Balance, use), true
	}
	return picker, panicking
}
