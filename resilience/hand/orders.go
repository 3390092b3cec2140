// Package hand keeps what an operator has ordered of a cluster's endpoints, each order with its end, and says which endpoints that leaves.
package hand

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Bounds of orders. None is for ever: whoever forgets one does not change the
// traffic for good.
const (
	// DefaultFor is how long an order holds that says nothing about it.
	DefaultFor = 5 * time.Minute
	// MaxFor is the longest that one may hold.
	MaxFor = 24 * time.Hour
	// MaxOrders bounds the orders of one cluster.
	MaxOrders = 256
)

// ErrTooMany is returned for more than MaxOrders.
var ErrTooMany = errors.New("the cluster has as many orders as it may have; release some")

// Act is what an order does.
type Act uint8

// The acts.
const (
	// Eject: the endpoint takes no traffic.
	Eject Act = iota
	// Pin: only endpoints with this order take traffic.
	Pin
)

// String returns the word used in logs and the admin API.
func (a Act) String() string {
	if a == Pin {
		return "pin"
	}
	return "eject"
}

// Order is one endpoint's order.
type Order struct {
	Endpoint string // its address
	Act      Act
	At       time.Duration // when it was given
	Until    time.Duration // when it ends
	By       string        // who gave it
	Reason   string        // in the words of who gave it; may be empty
}

// Orders are those of one cluster: at most one for an endpoint, the last that
// was given. They are kept by address, whether the endpoint is there or not. The
// zero value is empty and ready. It is not safe for concurrent use.
type Orders struct {
	list []Order // sorted by endpoint
}

// Clamp returns how long an order holds for which d was asked.
func Clamp(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultFor
	}
	return min(d, MaxFor)
}

// Len returns the number of orders.
func (o *Orders) Len() int { return len(o.list) }

// All returns a copy of the orders, sorted by endpoint.
func (o *Orders) All() []Order { return slices.Clone(o.list) }

// Of returns the order of an endpoint.
func (o *Orders) Of(endpoint string) (Order, bool) {
	i, ok := o.find(endpoint)
	if !ok {
		return Order{}, false
	}
	return o.list[i], true
}

func (o *Orders) find(endpoint string) (int, bool) {
	return slices.BinarySearchFunc(o.list, endpoint, func(x Order, e string) int { return strings.Compare(x.Endpoint, e) })
}

// Give takes orders, each in place of an earlier one for the same endpoint. With
// pins among them all earlier pins end: a cluster has one set of pinned
// endpoints. Either all are taken or none, with ErrTooMany.
func (o *Orders) Give(orders ...Order) error {
	next := Orders{list: slices.Clone(o.list)}
	if slices.ContainsFunc(orders, func(x Order) bool { return x.Act == Pin }) {
		next.list = slices.DeleteFunc(next.list, func(x Order) bool { return x.Act == Pin })
	}
	for _, x := range orders {
		if i, ok := next.find(x.Endpoint); ok {
			next.list[i] = x
		} else {
			next.list = slices.Insert(next.list, i, x)
		}
	}
	if len(next.list) > MaxOrders {
		return ErrTooMany
	}
	*o = next
	return nil
}

// Release takes back the order of an endpoint, or with an empty name all of
// them, and returns what was taken back.
func (o *Orders) Release(endpoint string) []Order {
	return o.drop(func(x Order) bool { return endpoint == "" || x.Endpoint == endpoint })
}

// Expire takes back the orders whose time is over at now.
func (o *Orders) Expire(now time.Duration) []Order {
	return o.drop(func(x Order) bool { return x.Until <= now })
}

func (o *Orders) drop(over func(Order) bool) []Order {
	var dropped, kept []Order
	for _, x := range o.list {
		if over(x) {
			dropped = append(dropped, x)
		} else {
			kept = append(kept, x)
		}
	}
	if len(dropped) > 0 {
		o.list = kept
	}
	return dropped
}
