package discovery

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestServiceEqual(t *testing.T) {
	full := func() *Service {
		return &Service{
			Name: "api", Protocol: "http", Identities: []string{"spiffe://a/b"}, Index: 7, Source: "consul", Updated: time.Unix(5, 0),
			Endpoints: []Endpoint{{
				Address: netip.MustParseAddrPort("10.0.0.1:80"), ID: "x", Weight: 2, Health: Warning,
				Tags: []string{"t"}, Meta: map[string]string{"k": "v"}, Node: "n", Datacenter: "d",
			}},
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Service)
		equal  bool
	}{
		{"nothing", func(s *Service) {}, true},
		{"index", func(s *Service) { s.Index = 8 }, true},
		{"updated", func(s *Service) { s.Updated = time.Unix(6, 0) }, true},
		{"empty meta", func(s *Service) { s.Endpoints[0].Meta["k"] = "v" }, true},
		{"name", func(s *Service) { s.Name = "b" }, false},
		{"protocol", func(s *Service) { s.Protocol = "tcp" }, false},
		{"identities", func(s *Service) { s.Identities = nil }, false},
		{"source", func(s *Service) { s.Source = "dns" }, false},
		{"stale", func(s *Service) { s.Stale = true }, false},
		{"no endpoints", func(s *Service) { s.Endpoints = nil }, false},
		{"address", func(s *Service) { s.Endpoints[0].Address = netip.MustParseAddrPort("10.0.0.2:80") }, false},
		{"id", func(s *Service) { s.Endpoints[0].ID = "y" }, false},
		{"weight", func(s *Service) { s.Endpoints[0].Weight = 3 }, false},
		{"health", func(s *Service) { s.Endpoints[0].Health = Critical }, false},
		{"tags", func(s *Service) { s.Endpoints[0].Tags = []string{"u"} }, false},
		{"meta", func(s *Service) { s.Endpoints[0].Meta = map[string]string{"k": "w"} }, false},
		{"node meta", func(s *Service) { s.Endpoints[0].NodeMeta = map[string]string{"k": "w"} }, false},
		{"zone", func(s *Service) { s.Endpoints[0].Zone = "a" }, false},
		{"region", func(s *Service) { s.Endpoints[0].Region = "a" }, false},
		{"priority", func(s *Service) { s.Endpoints[0].Priority = 1 }, false},
		{"draining", func(s *Service) { s.Endpoints[0].Draining = "x" }, false},
		{"node", func(s *Service) { s.Endpoints[0].Node = "o" }, false},
		{"datacenter", func(s *Service) { s.Endpoints[0].Datacenter = "e" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := full()
			tt.change(b)
			if got := full().Equal(b); got != tt.equal {
				t.Errorf("Equal = %v, want %v", got, tt.equal)
			}
		})
	}
	if (*Service)(nil).Equal(full()) || full().Equal(nil) || !(*Service)(nil).Equal(nil) {
		t.Error("Equal with nil")
	}
}

func TestSortEndpoints(t *testing.T) {
	ep := func(addr, id string, w uint32) Endpoint {
		return Endpoint{Address: netip.MustParseAddrPort(addr), ID: id, Weight: w}
	}
	got := SortEndpoints([]Endpoint{
		ep("10.0.0.10:80", "a", 1), ep("10.0.0.9:80", "b", 2), ep("10.0.0.9:80", "a", 3),
		ep("10.0.0.9:79", "z", 4), ep("10.0.0.9:80", "a", 5), ep("[::1]:1", "", 6),
	})
	want := []Endpoint{
		ep("10.0.0.9:79", "z", 4), ep("10.0.0.9:80", "a", 3), ep("10.0.0.9:80", "b", 2),
		ep("10.0.0.10:80", "a", 1), ep("[::1]:1", "", 6),
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if !got[i].Equal(&want[i]) {
			t.Errorf("%d: got %v, want %v", i, got[i], want[i])
		}
	}
}

func TestHealthText(t *testing.T) {
	for _, h := range []Health{Passing, Warning, Critical} {
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var back Health
		if err := json.Unmarshal(b, &back); err != nil || back != h {
			t.Errorf("%s came back as %v, %v", b, back, err)
		}
	}
	var h Health
	if err := h.UnmarshalText([]byte("fine")); err == nil {
		t.Error("an unknown health was taken")
	}
}

func TestDistinct(t *testing.T) {
	var r recorder
	d := Distinct(&r)
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { d.Update(service("api", 1)) }, "api 127.0.0.1:1"},
		{func() { d.Update(service("api", 1)) }, ""},
		{func() { d.Update(service("web", 1)) }, "web 127.0.0.1:1"},
		{func() { d.Update(service("api", 1, 2)) }, "api 127.0.0.1:1 127.0.0.1:2"},
		{func() { d.Fail("api", errNoLeader) }, "api failed: no leader"},
		{func() { d.Fail("api", errNoLeader) }, "api failed: no leader"},
		{func() { d.Update(service("api", 1, 2)) }, "api 127.0.0.1:1 127.0.0.1:2"},
		{func() { d.Update(service("api", 1, 2)) }, ""},
		{func() { d.Update(service("api")) }, "api"},
	} {
		step.do()
		if got := r.take(); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{Base: 200 * time.Millisecond, Max: 10 * time.Second}
	ceilings := []time.Duration{200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000}
	for round := range 2 {
		for i, ms := range ceilings {
			b := b // the same state with the three words below
			ceiling := ms * time.Millisecond
			if got := b.Next(0); got != 0 {
				t.Errorf("round %d pause %d: least is %v, want 0", round, i, got)
			}
			b = backoffAfter(i)
			if got := b.Next(math.MaxUint64); got != ceiling-1 {
				t.Errorf("round %d pause %d: most is %v, want just under %v", round, i, got, ceiling)
			}
			b = backoffAfter(i)
			if got := b.Next(1 << 63); got != ceiling/2 {
				t.Errorf("round %d pause %d: middle is %v, want %v", round, i, got, ceiling/2)
			}
		}
		for range 100 {
			b.Next(rand.Uint64())
		}
		if got := b.Next(math.MaxUint64); got != 10*time.Second-1 {
			t.Errorf("after 100 pauses: %v", got)
		}
		b.Reset()
	}
}

func backoffAfter(n int) Backoff {
	b := Backoff{Base: 200 * time.Millisecond, Max: 10 * time.Second}
	for range n {
		b.Next(1)
	}
	return b
}

func TestJitter(t *testing.T) {
	const d = 5 * time.Second
	if lo, mid, hi := Jitter(d, 0.2, 0), Jitter(d, 0.2, 1<<63), Jitter(d, 0.2, math.MaxUint64); lo != 4*time.Second || mid != d || hi != 6*time.Second-1 {
		t.Errorf("got %v, %v, %v", lo, mid, hi)
	}
	if got := Jitter(0, 0.2, math.MaxUint64); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !Sleep(t.Context(), time.Hour, nil) || time.Since(start) != time.Hour {
			t.Errorf("slept %v", time.Since(start))
		}
		early := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(early) })
		if Sleep(t.Context(), time.Hour, early) || time.Since(start) != time.Hour+time.Second {
			t.Errorf("woken early after %v", time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if Sleep(ctx, time.Hour, nil) || Sleep(ctx, 0, nil) {
			t.Error("slept to the end in an ended context")
		}
	})
}

func TestTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr Tracker
		if got := tr.Follow([]string{"web", "api", "web"}); len(got) != 2 || got[0] != "api" || got[1] != "web" {
			t.Fatalf("Follow = %v", got)
		}
		tr.Confirm("api", 9, 3, "careful")
		tr.Confirm("other", 1, 1, "")
		time.Sleep(5 * time.Second)
		tr.Fail("api", errNoLeader)
		tr.Fail("other", errNoLeader)
		check := func(want ...WatchStatus) {
			t.Helper()
			got := tr.Status()
			if len(got) != len(want) {
				t.Fatalf("got %+v", got)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("got %+v, want %+v", got[i], want[i])
				}
			}
		}
		check(
			WatchStatus{Service: "api", Age: 5 * time.Second, LastError: "no leader", Warning: "careful", Index: 9, Endpoints: 3},
			WatchStatus{Service: "web", Age: -1})
		tr.Confirm("api", 10, 2, "")
		tr.Follow([]string{"api", "new"})
		check(WatchStatus{Service: "api", Index: 10, Endpoints: 2}, WatchStatus{Service: "new", Age: -1})
	})
}
