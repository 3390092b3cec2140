package upstream

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func labels(pairs ...string) balance.Labels {
	var list []balance.Label
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, balance.Label{Key: pairs[i], Value: pairs[i+1]})
	}
	l, _ := balance.NewLabels(list)
	return l
}

// versions gives endpoint i the version v[i].
func versions(v string) []EndpointSpec {
	list := numbered(len(v))
	for i := range list {
		list[i].Labels = labels("version", v[i:i+1], "stage", "live")
	}
	return list
}

func partsOf(any bool) []SubsetSpec {
	return []SubsetSpec{
		{Name: "one", Match: labels("version", "1"), Any: any},
		{Name: "two", Match: labels("version", "2", "stage", "live"), Any: any},
	}
}

func (b *bed) wantPart(c *Cluster, subset, want string) {
	b.t.Helper()
	s := c.Subset(subset)
	hit := map[*Endpoint]bool{}
	for range 400 {
		var tried Tried
		if e := c.Pick(time.Second, &Wish{Subset: s}, &tried); e != nil {
			hit[e] = true
			if seen := tried.Seen(); seen.Total == 0 {
				b.t.Fatalf("seen %+v", seen)
			}
		}
	}
	var out []byte
	for _, e := range c.list() {
		if hit[e] {
			out = append(out, '0'+e.AddrPort().Addr().As4()[3])
		}
	}
	if string(out) != want {
		b.t.Errorf("attempts for %s go to %q, want %q", subset, out, want)
	}
}

// TestSubsets: each is picked from by itself, and is refused or falls back when
// it is empty.
func TestSubsets(t *testing.T) {
	for _, any := range []bool{false, true} {
		b, c := orderedBed(t, func(s *Spec) { s.Policy.Subsets, s.Policy.Balance.PanicPercent = partsOf(any), 50 })
		b.r.SetEndpoints("api", versions("11222"))
		b.wantPart(c, "one", "01")
		b.wantPart(c, "two", "234")
		b.wantPicked(c, "01234")
		// Two of two are failing, which is panic for the subset, not for the cluster.
		list := versions("11222")
		list[0].Healthy, list[1].Healthy = false, false
		b.r.SetEndpoints("api", list)
		b.wantPart(c, "one", "01")
		b.wantPart(c, "two", "234")
		b.wantPicked(c, "234")
		if !strings.Contains(b.lg.String(), "event=panic endpoints=2 cluster=api subset=one") {
			t.Errorf("log: %s", b.lg.String())
		}
		// Half is not, and none that drains is used.
		list[0].Healthy = true
		list[3].Draining = "x"
		b.r.SetEndpoints("api", list)
		b.wantPart(c, "one", "0")
		b.wantPart(c, "two", "24")
		b.r.SetEndpoints("api", versions("222"))
		want := ""
		if any {
			want = "012"
		}
		b.wantPart(c, "one", want)
		clusters, _ := b.r.States()
		st := clusters[0].Subsets[0]
		if st.Endpoints != 0 || st.Usable != 0 || st.Fallback != any || (st.Fallbacks == 400) != any {
			t.Errorf("any %v: %+v", any, st)
		}
		w := Wish{Subset: c.Subset("one")}
		if err := w.Refusal(); err.Error() != "no endpoint of subset one of api (version=1) may be used" {
			t.Errorf("refused because of %v", err)
		}
		// Who is pinned has all traffic.
		b.must(b.r.Pin(order("api", 2)))
		b.wantPart(c, "one", "2")
		b.wantPart(c, "two", "2")
	}
}

// TestSubsetsShareEndpoints: load and ejections are the cluster's.
func TestSubsetsShareEndpoints(t *testing.T) {
	o := outlier.Default()
	o.ConsecutiveFailures = 1
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Subsets, s.Policy.Outlier = partsOf(false), &o })
	b.r.SetEndpoints("api", versions("1122"))
	e := c.Pick(0, &Wish{Subset: c.Subset("two")}, &Tried{})
	c.Begin(e, 0)
	c.Finish(e, time.Second, time.Millisecond, outcome.UpstreamReset, 0)
	if e.Outlier.State() != outlier.Ejected {
		t.Fatal("it is not ejected")
	}
	left := map[string]string{address(2): "3", address(3): "2"}[e.address]
	b.wantPart(c, "two", left)
	b.wantPart(c, "one", "01")
	b.wantPicked(c, "01"+left)
}

// TestSubsetsOutlivePlans: one that stays as it is keeps its handle, one that
// goes serves exchanges which began under it.
func TestSubsetsOutlivePlans(t *testing.T) {
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Subsets = partsOf(false) })
	b.r.SetEndpoints("api", versions("12"))
	one, two := c.Subset("one"), c.Subset("two")
	b.r.Acquire(spec(func(s *Spec) {
		s.Policy.Subsets = partsOf(false)
		s.Policy.Subsets[0].Match = labels("version", "3")
	}), telemetry.Outbound)
	if c.Subset("two") != two || c.Subset("one") == one || c.Subset("three") != nil {
		t.Error("the wrong handles stay")
	}
	if e := c.Pick(0, &Wish{Subset: one}, &Tried{}); e == nil || e.address != address(0) {
		t.Errorf("the old handle leads to %v", e)
	}
	b.wantPart(c, "one", "")
	b.wantPart(c, "two", "1")
}

// TestSubsetShares: within a subset the weights hold.
func TestSubsetShares(t *testing.T) {
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Subsets = partsOf(false) })
	list := versions("12222")
	for i := range list {
		list[i].Weight = uint32(i)
	}
	b.r.SetEndpoints("api", list)
	const n = 20_000
	counts := map[string]int{}
	for range n {
		counts[c.Pick(0, &Wish{Subset: c.Subset("two")}, &Tried{}).address]++
	}
	for i := 1; i < 5; i++ { // 4 sigma of a binomial are below 350
		if got, want := counts[address(i)], n*i/10; got < want-350 || got > want+350 {
			t.Errorf("endpoint %d was picked %d times, want %d", i, got, want)
		}
	}
}

// TestSubsetAgainstModel: whatever is listed, what is picked is a member that
// may be used, and something is whenever there is one.
func TestSubsetAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Subsets, s.Policy.Balance.PanicPercent = partsOf(false), 0 })
	for range 300 {
		v := make([]byte, 1+rnd.IntN(8))
		for i := range v {
			v[i] = '1' + byte(rnd.IntN(3))
		}
		list := versions(string(v))
		want := map[string]bool{}
		for i := range list {
			list[i].Healthy = rnd.IntN(3) > 0
			if rnd.IntN(4) == 0 {
				list[i].Draining = "x"
			}
			if v[i] == '2' && list[i].Healthy && list[i].Draining == "" {
				want[list[i].Address.String()] = true
			}
		}
		b.r.SetEndpoints("api", list)
		for range 20 {
			e := c.Pick(0, &Wish{Subset: c.Subset("two")}, &Tried{})
			if (e == nil) != (len(want) == 0) || e != nil && !want[e.address] {
				t.Fatalf("%s: picked %v of %v", v, e, want)
			}
		}
	}
}

func TestSubsetPickDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b, c := orderedBed(t, func(s *Spec) { s.Policy.Subsets, s.Policy.Balance.Algorithm = partsOf(true), balance.P2CEWMA })
	b.r.SetEndpoints("api", versions("2222"))
	var tried Tried
	for _, name := range []string{"one", "two"} {
		w := Wish{Subset: c.Subset(name)}
		if n := testing.AllocsPerRun(200, func() { c.Pick(time.Second, &w, &tried) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
