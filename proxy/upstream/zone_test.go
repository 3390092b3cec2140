package upstream

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// places gives endpoint i the zone eu-N of z[i], a region of its own with a
// capital letter.
func places(z string) []EndpointSpec {
	list := numbered(len(z))
	for i := range list {
		list[i].Zone, list[i].Region = "eu-"+strings.ToLower(z[i:i+1]), "eu"
		if z[i] >= 'A' && z[i] <= 'Z' {
			list[i].Region = "us"
		}
	}
	return list
}

func zonedBed(t *testing.T, change func(*Spec)) (*bed, *Cluster) {
	t.Helper()
	return orderedBed(t, func(s *Spec) {
		s.Policy.Region, s.Policy.Zone, s.Policy.Balance.Zones.Prefer = "eu", "eu-a", true
		if change != nil {
			change(s)
		}
	})
}

func TestFar(t *testing.T) {
	for _, tt := range []struct {
		region, zone, epRegion, epZone string
		want                           balance.Far
	}{
		{"eu", "a", "eu", "a", balance.Near},
		{"eu", "a", "eu", "b", balance.Around},
		{"eu", "a", "us", "a", balance.Away},
		{"", "a", "eu", "a", balance.Near},
		{"eu", "a", "", "a", balance.Near},
		{"", "a", "", "b", balance.Away},
		{"eu", "a", "", "", balance.Away},
		{"", "", "", "", balance.Away},
		{"eu", "", "eu", "", balance.Around},
	} {
		p := &Policy{Region: tt.region, Zone: tt.zone}
		if got := p.far(&EndpointSpec{Region: tt.epRegion, Zone: tt.epZone}); got != tt.want {
			t.Errorf("%s/%s from %s/%s is %v, want %v", tt.epRegion, tt.epZone, tt.region, tt.zone, got, tt.want)
		}
	}
}

// TestZones: nearby first, then the region, then elsewhere; a retry goes on.
func TestZones(t *testing.T) {
	b, c := zonedBed(t, nil)
	list := places("abAab")
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "03")
	var tried Tried
	for _, i := range []int{0, 3} {
		tried.Add(c.list()[i])
	}
	if e := c.Pick(0, &Wish{}, &tried); e.spec.Load().Zone != "eu-b" {
		t.Errorf("the third attempt goes to %v", e.spec.Load())
	}
	list[0].Healthy, list[3].Healthy = false, false
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "14")
	list[1].Draining, list[4].Draining = "x", "x"
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "2")
	clusters, _ := b.r.States()
	if tiers := clusters[0].Tiers; len(tiers) != 1 || tiers[0].Far != balance.Away || tiers[0].Share != 1 {
		t.Errorf("%+v", tiers)
	}
}

// TestPriorities: those of a later one take what is left.
func TestPriorities(t *testing.T) {
	b, c := orderedBed(t, nil)
	list := numbered(6)
	for i := range 2 {
		list[i].Priority = 4
	}
	b.r.SetEndpoints("api", list)
	b.wantPicked(c, "2345")
	list[2].Healthy, list[3].Healthy = false, false
	b.r.SetEndpoints("api", list)
	later := 0
	const n = 20_000
	for range n {
		if c.Pick(0, &Wish{}, &Tried{}).spec.Load().Priority == 4 {
			later++
		}
	}
	if want := n * 3 / 10; later < want-330 || later > want+330 { // 5 sigma
		t.Errorf("%d of %d went to the later priority, want %d", later, n, want)
	}
}

// TestZonesSpill: what is slow under load is given away, over reloads and lists
// of endpoints, also within a subset.
func TestZonesSpill(t *testing.T) {
	b, c := zonedBed(t, func(s *Spec) { s.Policy.Subsets = partsOf(false) })
	list := places("aAA")
	for i := range list {
		list[i].Labels = labels("version", "1")
	}
	b.r.SetEndpoints("api", list)
	now := time.Second
	step := func(latency time.Duration) {
		for _, e := range c.list() {
			took := latency
			if e.spec.Load().Region == "us" {
				took = 20 * time.Millisecond
			}
			for range 10 {
				c.Begin(e, now)
				c.Finish(e, now, took, outcome.OK, 200)
			}
		}
		now += TickInterval
		c.tick(now)
	}
	shares := func() (cluster, subset float64) {
		return c.set.Load().picker.Tiers()[0].Share, c.Subset("one").set.Load().picker.Tiers()[0].Share
	}
	for range 10 {
		step(10 * time.Millisecond)
	}
	if near, part := shares(); near != 1 || part != 1 {
		t.Errorf("shares %v, %v of those nearby without need", near, part)
	}
	for range 20 {
		step(400 * time.Millisecond)
	}
	near, part := shares()
	if near > 0.5 || near < 1./3-1e-9 || part != near {
		t.Errorf("shares %v, %v of those nearby when they are slow", near, part)
	}
	list[0].Weight = 2
	b.r.SetEndpoints("api", list)
	if again, _ := shares(); again != near {
		t.Errorf("after a change of weight the share is %v, before %v", again, near)
	}
}

func TestZonePickDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b, c := zonedBed(t, func(s *Spec) { s.Policy.Balance.Algorithm = balance.P2CEWMA })
	b.r.SetEndpoints("api", places("aabbAA"))
	var tried Tried
	var w Wish
	if n := testing.AllocsPerRun(200, func() {
		e := c.Pick(time.Second, &w, &tried)
		c.Begin(e, time.Second)
		c.Finish(e, time.Second, time.Millisecond, outcome.OK, 200)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
