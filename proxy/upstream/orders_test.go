package upstream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/hand"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// goesTo returns the last bytes of the addresses that get attempts, in order.
func goesTo(c *Cluster) string {
	hit := map[*Endpoint]bool{}
	for range 400 {
		if e := c.Pick(time.Second, &Wish{}, &Tried{}); e != nil {
			hit[e] = true
		}
	}
	var out []byte
	for _, e := range c.list() {
		if hit[e] {
			out = append(out, '0'+e.AddrPort().Addr().As4()[3])
		}
	}
	return string(out)
}

func address(i int) string { return numbered(i + 1)[i].Address.String() }

func order(cluster string, which ...int) *Order {
	o := &Order{Cluster: cluster, For: time.Minute, By: "127.0.0.1:40000", Reason: "disk replaced"}
	for _, i := range which {
		o.Endpoints = append(o.Endpoints, address(i))
	}
	return o
}

func (b *bed) must(_ []hand.Order, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) wantPicked(c *Cluster, want string) {
	b.t.Helper()
	if got := goesTo(c); got != want {
		b.t.Errorf("attempts go to %q, want %q", got, want)
	}
}

func orderedBed(t *testing.T, change func(*Spec)) (*bed, *Cluster) {
	t.Helper()
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) {
		s.Policy.Balance.SlowStart, s.Policy.Balance.Algorithm = 0, balance.Random
		if change != nil {
			change(s)
		}
	}), telemetry.Outbound)
	b.r.SetEndpoints("api", numbered(4))
	return b, c
}

func TestEjectByHand(t *testing.T) {
	b, c := orderedBed(t, nil)
	b.must(b.r.Eject(order("api", 1)))
	b.wantPicked(c, "023")
	if log := b.lg.String(); !strings.Contains(log, `event=hand_eject cluster=api endpoint=`+address(1)+` by=127.0.0.1:40000 for=1m0s reason="disk replaced"`) {
		t.Errorf("log: %s", log)
	}
	// It leaves, another list comes, it returns: the order holds.
	b.r.SetEndpoints("api", numbered(1))
	if _, endpoints := b.r.States(); len(endpoints) != 2 || !endpoints[1].Absent || endpoints[1].Order == nil {
		t.Errorf("the order for the absent one is not shown: %+v", endpoints)
	}
	b.r.SetEndpoints("api", numbered(4))
	b.wantPicked(c, "023")
	// A reload leaves it, too.
	b.r.Acquire(spec(nil), telemetry.Outbound)
	b.wantPicked(c, "023")
	c.sweep(b.sw.Now() + time.Minute - time.Second)
	b.wantPicked(c, "023")
	c.sweep(b.sw.Now() + time.Minute + time.Second)
	b.wantPicked(c, "0123")
	if !strings.Contains(b.lg.String(), "event=hand_over") {
		t.Error("its end is not logged")
	}
}

// Panic counts only those that are not ejected by hand, and uses only those.
func TestPanicSparesWhoIsEjectedByHand(t *testing.T) {
	b, c := orderedBed(t, nil)
	b.must(b.r.Eject(order("api", 1)))
	list := numbered(4)
	for i := range list {
		list[i].Healthy = false
	}
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "023")
	b.r.SetEndpoints("api", list[1:2])
	b.wantPicked(c, "1")
	if _, endpoints := b.r.States(); endpoints[0].Standing != hand.Needed {
		t.Errorf("standing %v", endpoints[0].Standing)
	}
}

func TestLastEndpointIsNotEjected(t *testing.T) {
	b, c := orderedBed(t, nil)
	b.must(b.r.Eject(order("api", 0, 1, 2)))
	if _, err := b.r.Eject(order("api", 3)); !errors.Is(err, ErrNoEffect) {
		t.Errorf("the last one: %v", err)
	}
	b.wantPicked(c, "3")
}

func TestPinByHand(t *testing.T) {
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Balance.PanicPercent = 0 })
	b.must(b.r.Pin(order("api", 1, 2)))
	b.wantPicked(c, "12")
	list := numbered(4)
	list[1].Healthy = false
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "2")
	list[2].Healthy = false // pinned is pinned, whatever it is like
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "12")
	b.r.SetEndpoints("api", list[3:])
	b.wantPicked(c, "3")
	b.r.SetEndpoints("api", numbered(4))
	b.must(b.r.Pin(order("api", 0)))
	b.wantPicked(c, "0")
	c.sweep(b.sw.Now() + 2*time.Minute)
	b.wantPicked(c, "0123")
}

func TestTakeBack(t *testing.T) {
	cfg := outlier.Default()
	cfg.ConsecutiveFailures = 1
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Outlier = &cfg })
	b.must(b.r.Eject(order("api", 1, 2)))
	e := c.list()[3]
	c.Begin(e, time.Second)
	c.Finish(e, time.Second, time.Millisecond, outcome.UpstreamReset, 0)
	b.wantPicked(c, "0")
	for _, o := range []*Order{order("api", 1), order("api", 3), order("api")} {
		if _, err := b.r.TakeBack(o); err != nil {
			t.Errorf("%v: %v", o.Endpoints, err)
		}
	}
	b.wantPicked(c, "0123")
	for _, o := range []*Order{order("api", 1), order("api")} {
		if _, err := b.r.TakeBack(o); !errors.Is(err, ErrNoEffect) {
			t.Errorf("again %v: %v", o.Endpoints, err)
		}
	}
	// One that has left can still be released.
	b.must(b.r.Eject(order("api", 3)))
	b.r.SetEndpoints("api", numbered(2))
	if got, err := b.r.TakeBack(order("api", 3)); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

func TestOrdersNameWhatIsThere(t *testing.T) {
	b, c := orderedBed(t, nil)
	list := numbered(4)
	list[0].ID, list[1].ID, list[2].ID = "api-0", "twice", "twice"
	b.r.SetEndpoints("api", list)
	for _, o := range []*Order{
		{Cluster: "nobody", Endpoints: []string{address(0)}},
		{Cluster: "api", Endpoints: []string{"10.0.0.1:1"}},
		{Cluster: "api", Endpoints: []string{"twice"}},
		{Cluster: "api", Endpoints: []string{""}},
		{Cluster: "api", Endpoints: []string{"api-0", "10.0.0.1:1"}},
	} {
		if _, err := b.r.Eject(o); !errors.Is(err, ErrUnknown) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	b.wantPicked(c, "0123")
	given, err := b.r.Eject(&Order{Cluster: "api", Endpoints: []string{"api-0"}})
	if err != nil || len(given) != 1 || given[0].Endpoint != address(0) || given[0].Until-given[0].At != hand.DefaultFor {
		t.Errorf("%+v %v", given, err)
	}
	b.wantPicked(c, "123")
}

// A cluster that a reload takes away and another brings back within the time
// has its orders.
func TestOrdersOutliveTheirCluster(t *testing.T) {
	b, c := orderedBed(t, nil)
	b.must(b.r.Eject(order("api", 1)))
	b.r.Release(c)
	c = b.r.Acquire(spec(nil), telemetry.Outbound)
	b.wantPicked(c, "023")
	b.r.Release(c)
	other := spec(func(s *Spec) { s.Name = "other" })
	b.r.orders["outbound/api"] = func() hand.Orders { // as if its time were over
		var o hand.Orders
		_ = o.Give(hand.Order{Endpoint: address(1)})
		return o
	}()
	b.r.Release(b.r.Acquire(other, telemetry.Outbound))
	if len(b.r.orders) != 0 {
		t.Errorf("orders are kept for ever: %v", b.r.orders)
	}
}

// What an order takes out loses its idle connections.
func TestEjectByHandClosesConnections(t *testing.T) {
	b, c := orderedBed(t, nil)
	one, two := b.server(), b.server()
	b.r.SetEndpoints("api", at(one, two))
	e := c.at(one.String())
	e.Put(b.get(e, Want{}), b.sw.Now())
	b.wantConnections(c, 1, 1)
	b.must(b.r.Eject(&Order{Cluster: "api", Endpoints: []string{one.String()}}))
	b.wantConnections(c, 0, 0)
}
