package upstream

import "github.com/outrigger-mesh/outrigger/resilience/ratelimit"

// RateSpec says which buckets a plan wants for a rate limit of a cluster.
type RateSpec struct {
	Name  string
	Key   string // what they are told apart by
	Rate  ratelimit.Config
	Keys  int // how many there may be
	Field string
}

// KeepRates returns the tables of the rate limits in want. One that the plan
// before has wanted in the same way is what it was, with all that its buckets
// know; others are forgotten.
func (c *Cluster) KeepRates(want []RateSpec) []*ratelimit.Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[RateSpec]*ratelimit.Table, len(want))
	list := make([]*ratelimit.Table, len(want))
	for i, s := range want {
		t := c.rates[s]
		if t == nil {
			t = ratelimit.NewTable(s.Rate, s.Keys)
		}
		next[s], list[i] = t, t
	}
	c.rates = next
	return list
}

// Live returns how many endpoints of a service discovery has last called alive,
// and not about to go.
func (r *Registry) Live(service string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for i := range r.latest[service] {
		if e := &r.latest[service][i]; e.Healthy && e.Draining == "" {
			n++
		}
	}
	return n
}
