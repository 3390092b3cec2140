package upstream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Instances agrees with looking through all endpoints while clusters come, go and
// change.
func TestInstances(t *testing.T) {
	b := newBed(t)
	rng := rand.New(rand.NewPCG(3, 4))
	clusters := map[string]*Cluster{}
	direct := map[string]bool{}
	eps := map[string][]EndpointSpec{}
	addr := func() netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(5))}), uint16(20000+rng.IntN(3)))
	}
	for step := range 400 {
		name := fmt.Sprint("s", rng.IntN(3))
		switch c := clusters[name]; {
		case c == nil || rng.IntN(4) == 0:
			direct[name] = rng.IntN(2) == 0
			next := b.r.Acquire(spec(func(s *Spec) { s.Name, s.Direct = name, direct[name] }), telemetry.Outbound)
			if c != nil {
				b.r.Release(c)
			}
			clusters[name] = next
		case rng.IntN(5) == 0:
			b.r.Release(c)
			delete(clusters, name)
		default:
			var list []EndpointSpec
			seen := map[netip.AddrPort]bool{}
			for range rng.IntN(5) {
				if a := addr(); !seen[a] {
					seen[a] = true
					list = append(list, EndpointSpec{Address: a, Weight: 1, Healthy: true})
				}
			}
			eps[name] = list
			b.r.SetEndpoints(name, list)
		}
		for range 20 {
			dst := netip.AddrPortFrom(addr().Addr(), uint16(20000+rng.IntN(5)))
			exact, same := map[string]bool{}, map[string]bool{}
			for name := range clusters {
				for _, e := range eps[name] {
					if !direct[name] || e.Address.Addr() != dst.Addr() {
						continue
					}
					same[name+" "+e.Address.String()] = true
					if e.Address == dst {
						exact[name+" "+e.Address.String()] = true
					}
				}
			}
			got := ""
			if e := b.r.Instances.Find(dst); e != nil {
				got = e.Home().Name() + " " + e.Address()
			}
			switch {
			case len(exact) > 0 && !exact[got], len(exact) == 0 && len(same) == 1 && !same[got], len(exact) == 0 && len(same) != 1 && got != "":
				t.Fatalf("step %d: %s is %q; exact %v, of the address %v", step, dst, got, exact, same)
			}
		}
	}
}

// An exchange that means one endpoint gets that one, whatever its health, and no
// other when it is gone.
func TestPickOnly(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Direct = true }), telemetry.Outbound)
	a, other := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1")
	b.r.SetEndpoints("api", []EndpointSpec{{Address: a, Weight: 1}, {Address: other, Weight: 1, Healthy: true}})
	w := &Wish{Only: a}
	for range 10 {
		if e := c.Pick(0, w, &Tried{Draw: guard.Draw(0)}); e == nil || e.AddrPort() != a {
			t.Fatalf("got %v", e)
		}
	}
	b.r.SetEndpoints("api", []EndpointSpec{{Address: other, Weight: 1, Healthy: true}})
	if e := c.Pick(0, w, &Tried{}); e != nil {
		t.Errorf("the endpoint has gone; got %s", e.Address())
	}
	if n := testing.AllocsPerRun(100, func() { w.Only = other; c.Pick(0, w, &Tried{}) }); n != 0 && !raceEnabled {
		t.Errorf("a pick makes %v allocations", n)
	}
}
