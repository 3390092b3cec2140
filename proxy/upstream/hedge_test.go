package upstream

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// TestBudgetOfHedges: it is that of retries, and there is one where only one of the
// two is on.
func TestBudgetOfHedges(t *testing.T) {
	b := newBed(t)
	h, r := hedge.Default(), retry.Default()
	r.BudgetMinPerSecond = 1
	with := func(h *hedge.Config, r *retry.Config) *retry.Budget {
		c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Hedge, s.Policy.Retry = h, r }), telemetry.Outbound)
		return c.Budget()
	}
	if with(nil, nil) != nil {
		t.Error("a budget for nothing")
	}
	own := with(&h, nil)
	if own == nil || own.Balance(0) != 100 {
		t.Error("hedges alone have not the default budget")
	}
	shared := with(&h, &r)
	if shared == own || shared.Balance(0) != 10 || with(nil, &r) != shared {
		t.Error("the budget is not that of retries")
	}
}

// TestStrain: what is seen of the whole cluster, and which endpoints are left.
func TestStrain(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(3))
	var tried Tried
	e := c.Pick(time.Second, &Wish{}, &tried)
	tried.Add(e)
	var q hedge.Question
	if c.Strain(&q, &tried); q != (hedge.Question{Others: 2}) {
		t.Errorf("of a cluster that is well: %+v", q)
	}
	if next := c.Pick(time.Second, &Wish{}, &tried); tried.Has(next) || !tried.Has(e) {
		t.Errorf("%s is picked again", next.Address())
	}
	c.Limits.Pending.Acquire(0)
	defer c.Limits.Pending.Release()
	if c.Strain(&q, &tried); q.Waiting != 1 {
		t.Errorf("a request waits: %+v", q)
	}
}

// TestKeepLatencies: what was learnt of a route lasts as long as a plan wants it.
func TestKeepLatencies(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	defer b.r.Release(c)
	first := c.KeepLatencies([]string{"a", "b", "a"})
	if first[0] == first[1] || first[0] != first[2] {
		t.Error("routes are told apart by another thing than their names")
	}
	again := c.KeepLatencies([]string{"b"})
	if again[0] != first[1] {
		t.Error("what was learnt is lost with a plan")
	}
	if last := c.KeepLatencies([]string{"a"}); last[0] == first[0] {
		t.Error("what no plan wanted was kept")
	}
}
