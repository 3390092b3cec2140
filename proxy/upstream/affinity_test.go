package upstream

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// held returns the Set-Cookie line and the value that keep a client at e.
func held(t *testing.T, c *Cluster, e *Endpoint) (line string, value []byte) {
	t.Helper()
	line = string(c.AppendAffinity(nil, e, nil))
	_, rest, ok := strings.Cut(line, "=")
	if !ok {
		t.Fatalf("no cookie for %s: %q", e.Address(), line)
	}
	text, _, _ := strings.Cut(rest, ";")
	return line, []byte(text)
}

// TestAffinity: a cookie leads to its endpoint through changes of the others and
// of the policy, and to another one once that is gone or may not be used.
func TestAffinity(t *testing.T) {
	b := newBed(t)
	sticky := func(ttl time.Duration, key *AffinityKey) Spec {
		return spec(func(s *Spec) {
			s.Policy.Balance.Affinity = &balance.Affinity{Name: "srv", TTL: ttl}
			s.Policy.AffinityKey = key
		})
	}
	c := b.r.Acquire(sticky(0, nil), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(5))
	e := c.Pick(0, &Wish{}, &Tried{})
	line, value := held(t, c, e)
	if want := "set-cookie: srv=" + string(value) + "; Path=/; Secure; HttpOnly; SameSite=Lax\r\n"; line != want || len(value) != tokenLen {
		t.Errorf("%q, want %q", line, want)
	}
	if strings.Contains(line, "127.") {
		t.Errorf("the cookie tells the address: %q", line)
	}
	stays := func(when string) {
		t.Helper()
		for range 30 {
			if got := c.Pick(0, &Wish{Held: value}, &Tried{}); got != e {
				t.Fatalf("%s the client goes to %s, was at %s", when, got.Address(), e.Address())
			}
		}
		if again := c.AppendAffinity(nil, e, value); len(again) > 0 {
			t.Errorf("%s the client gets its cookie again: %q", when, again)
		}
	}
	stays("at first")
	b.r.SetEndpoints("api", numbered(9))
	stays("with more endpoints")
	b.r.Acquire(sticky(90*time.Second, nil), telemetry.Outbound)
	defer b.r.Release(c)
	stays("after a reload")
	if line, _ := held(t, c, e); !strings.Contains(line, "; Max-Age=90;") {
		t.Errorf("the lifetime is not told: %q", line)
	}

	var tried Tried
	tried.Add(e)
	if c.Pick(0, &Wish{Held: value}, &tried) == e {
		t.Error("a second attempt goes to the endpoint that failed")
	}
	moves := func(when string, list []EndpointSpec) {
		t.Helper()
		b.r.SetEndpoints("api", list)
		seen := map[*Endpoint]bool{}
		for range 60 {
			got := c.Pick(0, &Wish{Held: value}, &Tried{})
			if got == nil || got == e {
				t.Fatalf("%s the client goes to %v", when, got)
			}
			seen[got] = true
		}
		if len(seen) < 2 {
			t.Errorf("%s all clients go to one endpoint", when)
		}
	}
	sick, without := numbered(9), []EndpointSpec{}
	for i := range sick {
		if sick[i].Address == e.AddrPort() {
			sick[i].Healthy = false
		} else {
			without = append(without, sick[i])
		}
	}
	moves("while it is unhealthy", sick)
	b.r.SetEndpoints("api", numbered(9))
	stays("healthy again")
	moves("once it is gone", without)
	b.r.SetEndpoints("api", numbered(9))

	key := AffinityKey{1}
	b.r.Acquire(sticky(0, &key), telemetry.Outbound)
	defer b.r.Release(c)
	e = c.Pick(0, &Wish{}, &Tried{})
	if _, other := held(t, c, e); bytes.Equal(other, value) {
		t.Error("another key gives the same cookie")
	} else {
		value = other
	}
	stays("with another key")
	twin := newBed(t)
	d := twin.r.Acquire(sticky(0, &key), telemetry.Outbound)
	defer twin.r.Release(d)
	twin.r.SetEndpoints("api", numbered(9))
	if got := d.Pick(0, &Wish{Held: value}, &Tried{}); got.Address() != e.Address() {
		t.Errorf("another proxy with the key sends the client to %s, not %s", got.Address(), e.Address())
	}
}

// TestForgedAffinity: what is not the token of an endpoint that may be used
// leads nowhere in particular.
func TestForgedAffinity(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Balance.Affinity = &balance.Affinity{Name: "srv"} }), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(20))
	a := c.set.Load().affinity
	for i := range a.holders {
		h := &a.holders[i]
		if a.find(h.token[:]) != h.endpoint {
			t.Fatalf("the token of %s does not lead to it", h.endpoint.Address())
		}
		for at := range tokenLen {
			forged := h.token
			if forged[at]++; a.find(forged[:]) != nil {
				t.Errorf("a token that differs at %d is taken", at)
			}
		}
	}
	own := a.holders[0].token
	for _, v := range []string{"", "x", string(own[:8]), string(own[:tokenLen-1]), string(own[:]) + "A", strings.Repeat("A", tokenLen), a.holders[0].endpoint.Address()} {
		if e := a.find([]byte(v)); e != nil {
			t.Errorf("%q leads to %s", v, e.Address())
		}
	}
	other := tokenOf(&b.r.affinityKey, "cart", a.holders[0].endpoint.Address())
	if a.find(other[:]) != nil {
		t.Error("the token of another cluster is taken")
	}
}

// TestPickByHash: keyed requests go to one endpoint, again after others failed,
// and to the next with a load that is bounded; a request without a key goes
// anywhere.
func TestPickByHash(t *testing.T) {
	for _, a := range []balance.Algorithm{balance.RingHash, balance.Maglev} {
		b := newBed(t)
		c := b.r.Acquire(spec(func(s *Spec) {
			s.Policy.Balance.Algorithm, s.Policy.Balance.BoundedLoadPercent = a, 125
		}), telemetry.Outbound)
		b.r.SetEndpoints("api", numbered(10))
		seen, free := map[*Endpoint]bool{}, map[*Endpoint]bool{}
		w := &Wish{Key: balance.KeyOf("user-1"), Keyed: true}
		for range 50 {
			seen[c.Pick(0, w, &Tried{})] = true
			free[c.Pick(0, &Wish{}, &Tried{})] = true
		}
		if len(seen) != 1 || len(free) < 5 {
			t.Errorf("%v: one key went to %d endpoints, none to %d", a, len(seen), len(free))
		}
		first := c.Pick(0, w, &Tried{})
		var tried Tried
		tried.Add(first)
		second := c.Pick(0, w, &tried)
		if second == first || c.Pick(0, w, &tried) != second {
			t.Errorf("%v: second attempts go to %v and not to one other", a, second)
		}
		for range 7 { // 8 active with the next: ceil(1.25 x 8/10) = 1 each
			c.Limits.Requests.Acquire(0)
			c.Begin(c.Pick(0, w, &Tried{}), 0)
		}
		c.Limits.Requests.Acquire(0)
		if got := c.Pick(0, w, &Tried{}); got == first {
			t.Errorf("%v: the endpoint with %d of 8 requests gets one more", a, first.Load.Inflight())
		}
		if n := c.metrics.Spilled.Value(); n == 0 {
			t.Errorf("%v: no spill is counted", a)
		}
		for range 8 {
			c.Limits.Requests.Release()
		}
		b.r.Release(c)
	}
}

// TestPolicyBetween: what a request wished for under the policy before does no
// harm under the next one.
func TestPolicyBetween(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(nil), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(3))
	w := &Wish{Key: 1, Keyed: true, Held: []byte("x")}
	seen := map[*Endpoint]bool{}
	var tried Tried
	for range 40 {
		seen[c.Pick(0, w, &Tried{})] = true
		e := c.Pick(0, w, &tried) // in the end all were tried
		if e == nil {
			t.Fatal("no endpoint")
		}
		tried.Add(e)
		if got := c.AppendAffinity(nil, e, w.Held); len(got) > 0 {
			t.Fatalf("a cookie that is not wanted any more: %q", got)
		}
	}
	if len(seen) != 3 {
		t.Errorf("a key that counts no more leads to %d of 3 endpoints", len(seen))
	}
}

// TestHoldOffIsBounded: an endpoint cannot ask for more than the policy allows.
func TestHoldOffIsBounded(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Balance.RetryAfterMax = 2 * time.Second }), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(2))
	e := c.Pick(0, &Wish{}, &Tried{})
	c.HoldOff(e, time.Second, time.Hour)
	for at, want := range map[time.Duration]time.Duration{3 * time.Second: 5 * time.Second, 5 * time.Second: 30 * time.Millisecond} {
		if got := e.Load.EWMA(at); got != want {
			t.Errorf("at %v the endpoint costs %v, want %v", at, got, want)
		}
	}
}

func TestNoAllocationInPick(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) {
		s.Policy.Balance.Algorithm = balance.Maglev
		s.Policy.Balance.Affinity = &balance.Affinity{Name: "srv"}
	}), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(100))
	_, value := held(t, c, c.Pick(0, &Wish{}, &Tried{}))
	forged := bytes.Repeat([]byte("A"), tokenLen)
	var tried Tried
	var out [256]byte
	if n := testing.AllocsPerRun(200, func() {
		c.Pick(0, &Wish{Key: 7, Keyed: true, Held: value}, &tried)
		e := c.Pick(0, &Wish{Key: 7, Keyed: true, Held: forged}, &tried)
		c.AppendAffinity(out[:0], e, forged)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPickAffinity(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			key := AffinityKey{1}
			a := &affinity{}
			for _, s := range numbered(n) {
				a.holders = append(a.holders, holder{tokenOf(&key, "api", s.Address.String()), &Endpoint{}})
			}
			value := a.holders[n/2].token
			b.ReportAllocs()
			for b.Loop() {
				a.find(value[:])
			}
		})
	}
}
