package upstream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// hosts returns n endpoints of the network, of which those in sick are unhealthy.
func hosts(network byte, n int, sick ...int) (list []EndpointSpec) {
	for i := range n {
		list = append(list, EndpointSpec{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, network, 0, byte(i)}), 80), Weight: 1, Healthy: !slices.Contains(sick, i),
		})
	}
	return list
}

// chain makes clusters of these names, of which the first fails over to the
// others.
func (b *bed) chain(change func(*Spec), names ...string) []*Cluster {
	var list []*Cluster
	for _, name := range names {
		s := spec(change)
		s.Name = name
		list = append(list, b.r.Acquire(s, telemetry.Outbound))
	}
	list[0].SetFailover(list[1:])
	return list
}

// where says to which clusters, by their places in list, the attempts of an exchange
// go of which each but the last fails; "-" is none.
func where(list []*Cluster, attempts int, w Wish) string {
	var tried Tried
	var s strings.Builder
	for range attempts {
		e := list[0].Pick(time.Second, &w, &tried)
		if e == nil {
			s.WriteByte('-')
			break
		}
		fmt.Fprint(&s, slices.Index(list, e.cluster))
		tried.Settle(time.Second, breaker.Ignored)
		tried.Add(e)
		tried.Vacate()
	}
	return s.String()
}

// TestFailover: attempts go to the first service that has an available endpoint,
// another attempt to the next one, and where nobody has any, the panic rules hold,
// in the order of the services.
func TestFailover(t *testing.T) {
	for _, c := range []struct {
		name         string
		sizes, sick  [3]int // of each cluster the first so many are unhealthy
		first, tries string
	}{
		{"all are well", [3]int{2, 2, 2}, [3]int{}, "0", "01201"},
		{"one of ten is left", [3]int{10, 2, 2}, [3]int{9}, "0", "012"},
		{"the own are gone", [3]int{0, 2, 2}, [3]int{}, "1", "1212"},
		{"the own are sick", [3]int{3, 2, 2}, [3]int{3}, "1", "1212"},
		{"the second, too", [3]int{3, 2, 2}, [3]int{3, 2}, "2", "222"},
		{"nobody is well", [3]int{3, 2, 2}, [3]int{3, 2, 2}, "0", "012"},
		{"only the others are there, sick", [3]int{0, 2, 0}, [3]int{0, 2}, "1", "11"},
		{"nobody is there", [3]int{}, [3]int{}, "-", "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			list := b.chain(nil, "api", "api-b", "api-c")
			for i, o := range list {
				sick := make([]int, c.sick[i])
				for k := range sick {
					sick[k] = k
				}
				b.r.SetEndpoints(o.name, hosts(byte(i), c.sizes[i], sick...))
			}
			for range 50 {
				if got := where(list, 1, Wish{}); got != c.first {
					t.Fatalf("the first attempt goes to %s, want %s", got, c.first)
				}
			}
			if got := where(list, len(c.tries), Wish{}); got != c.tries {
				t.Errorf("attempts go to %s, want %s", got, c.tries)
			}
		})
	}
}

// TestFailoverPanic: while others can be asked, an endpoint that is not available
// is used of no service but by the panic rule of that service.
func TestFailoverPanic(t *testing.T) {
	b := newBed(t)
	list := b.chain(nil, "api", "api-b")
	b.r.SetEndpoints("api", hosts(0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9))
	b.r.SetEndpoints("api-b", hosts(1, 1))
	for range 200 {
		var tried Tried
		if e := list[0].Pick(time.Second, &Wish{}, &tried); e.address != "127.0.0.0:80" || tried.Panicking() {
			t.Fatalf("%s of %s is used, panic %t", e.address, e.cluster.name, tried.Panicking())
		}
	}
	list[0].SetFailover(nil)
	hit := map[string]bool{}
	for range 400 {
		hit[list[0].Pick(time.Second, &Wish{}, &Tried{}).address] = true
	}
	if len(hit) != 10 {
		t.Errorf("without failover %d of 10 are used in panic", len(hit))
	}
}

// TestFailoverByEjection: ejections move the attempts, and readmission moves them
// back. Evidence counts where the endpoint belongs, whoever asked for it.
func TestFailoverByEjection(t *testing.T) {
	b := newBed(t)
	list := b.chain(func(s *Spec) {
		o := outlier.Default()
		o.ConsecutiveFailures, o.ConsecutiveLocalFailures, o.MaxEjectedPercent, o.KeepEndpoints, o.BaseEjection = 1, 1, 100, 0, time.Second
		s.Policy.Outlier = &o
	}, "api", "api-b")
	b.r.SetEndpoints("api", hosts(0, 1))
	b.r.SetEndpoints("api-b", hosts(1, 1))
	fail := func(now time.Duration, want int) {
		t.Helper()
		var tried Tried
		e := list[0].Pick(now, &Wish{}, &tried)
		if e == nil || e.cluster != list[want] {
			t.Fatalf("%v is picked, want one of %s", e, list[want].name)
		}
		list[0].Begin(e, now)
		list[0].Finish(e, now, time.Millisecond, outcome.ConnectFailed, 0)
		e.cluster.sweep(now)
	}
	fail(time.Second, 0)
	if got := list[0].State(time.Second).Failover; len(got) != 1 || got[0].Name != "api-b" || got[0].Available != 1 || !got[0].InUse {
		t.Errorf("%+v", got)
	}
	fail(time.Second+time.Millisecond, 1)
	if s := list[1].endpoints[0].Outlier.State(); s != outlier.Ejected {
		t.Fatalf("the endpoint of api-b is %v", s)
	}
	list[0].sweep(time.Minute)
	if got := where(list, 1, Wish{}); got != "0" {
		t.Errorf("after the ejection attempts go to %s", got)
	}
}

// TestFailoverSeen: what is told of an attempt names the service whose endpoint
// it went to, and counts it.
func TestFailoverSeen(t *testing.T) {
	b := newBed(t)
	list := b.chain(nil, "api", "api-b")
	b.r.SetEndpoints("api", nil)
	b.r.SetEndpoints("api-b", hosts(1, 2))
	var tried Tried
	e := list[0].Pick(time.Second, &Wish{}, &tried)
	if list[0].Of(e) != "api-b" || list[1].Of(e) != "" || tried.Seen().Algorithm != "p2c_ewma of api-b as failover" {
		t.Errorf("%q, %q", list[0].Of(e), tried.Seen().Algorithm)
	}
	rival := tried.Rival()
	rival.Add(e)
	if again := list[0].Pick(time.Second, &Wish{}, &rival); again == nil || again == e || again.cluster != list[1] {
		t.Errorf("an attempt beside it goes to %v", again)
	}
}

// TestFailoverBreakers: an exchange that has the leave of the own cluster's breaker
// keeps it, whatever breakers the endpoints of others have.
func TestFailoverBreakers(t *testing.T) {
	b := newBed(t)
	cfg := breaker.Default()
	cfg.Scope = breaker.ScopeEndpoint
	list := b.chain(func(s *Spec) { s.Policy.Breaker = &cfg }, "api", "api-b")
	own := breaker.Default()
	s := spec(nil)
	s.Policy.Breaker = &own
	list[0].apply(&s, 0)
	b.r.SetEndpoints("api-b", hosts(1, 2))
	var tried Tried
	if !list[0].Admit(list[0].Breaker(), time.Second, &tried) {
		t.Fatal("the breaker is open")
	}
	by := tried.leave.by
	if e := list[0].Pick(time.Second, &Wish{}, &tried); e == nil || tried.leave.by != by || by == nil {
		t.Errorf("%v, the leave is another one", e)
	}
}

// TestFailoverModel compares picks with a slow model over random states.
func TestFailoverModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 9))
	for round := range 60 {
		b := newBed(t)
		zero := func(s *Spec) {
			if round%2 == 0 {
				s.Policy.Balance.PanicPercent = 0
			}
			if round%3 == 0 {
				s.Policy.Balance.Algorithm, s.Policy.Balance.Hash = balance.Maglev, []balance.HashOn{{SourceIP: true}}
			}
		}
		list := b.chain(zero, "s0", "s1", "s2", "s3")
		type state struct{ total, well int }
		states := make([]state, len(list))
		for i, o := range list {
			n := r.IntN(4)
			var sick []int
			for k := range n {
				if r.IntN(2) == 0 {
					sick = append(sick, k)
				}
			}
			states[i] = state{n, n - len(sick)}
			b.r.SetEndpoints(o.name, hosts(byte(i), n, sick...))
		}
		// The model: of those not failed yet the first with one that is well; else of
		// the others; else, by the panic rule, the first with any, in the same order.
		failed := map[int]bool{}
		want := ""
		for range 6 {
			at, around := -1, false
			usable := func(i int, strict bool) bool {
				return states[i].well > 0 || !strict && round%2 == 1 && states[i].total > 0
			}
			for _, strict := range []bool{true, false} {
				for _, again := range []bool{false, true} {
					for i := range list {
						if at < 0 && failed[i] == again && usable(i, strict) {
							at, around = i, again
						}
					}
				}
			}
			if at < 0 {
				want += "-"
				break
			}
			want += fmt.Sprint(at)
			if around {
				failed = map[int]bool{}
			}
			failed[at] = true
		}
		if got := where(list, 6, Wish{Key: r.Uint64(), Keyed: true}); got != want {
			t.Fatalf("round %d, %+v: attempts go to %s, the model says %s", round, states, got, want)
		}
	}
}

// TestFailoverAllocations: a pick from another service allocates nothing.
func TestFailoverAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBed(t)
	list := b.chain(nil, "api", "api-b", "api-c")
	b.r.SetEndpoints("api-c", hosts(2, 3))
	var tried Tried
	wish := Wish{Held: []byte("x")}
	if n := testing.AllocsPerRun(200, func() {
		tried.Reset()
		if list[0].Pick(time.Second, &wish, &tried) == nil {
			t.Error("nothing is picked")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
