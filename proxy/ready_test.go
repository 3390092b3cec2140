package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery"
)

// thousand is a sidecar that follows the chains of so many services, of which the last two have
// trouble.
func thousand(n int) *Sidecar {
	f := &saying{}
	names := []string{"sidecar/registration"}
	for i := range n {
		names = append(names, fmt.Sprintf("sidecar/chain s%04d", i))
	}
	f.Follow(names)
	for i, name := range names {
		f.Confirm(name, 1, 0, "")
		if i > n-2 {
			f.Fail(name, errors.New("refused"))
		}
	}
	s := newSidecar(nil, f, slog.New(slog.DiscardHandler))
	s.running = &config.Config{}
	return s
}

// Readiness tells of the trouble of the first by name, and of the oldest.
func TestReadinessOfThousand(t *testing.T) {
	s := thousand(1000)
	if got, want := s.trouble(), "sidecar/chain s0998: refused"; got != want {
		t.Errorf("the trouble is %q, want %q", got, want)
	}
	if c := s.check(); !c.OK || !strings.Contains(c.Detail, "; sidecar/chain s0998: refused") {
		t.Errorf("readiness says %+v", c)
	}
	if age := s.age("chains"); age < 0 {
		t.Errorf("the age of the chains is %v", age)
	}
	s.follower.(*saying).Follow([]string{"sidecar/chain s0001", "sidecar/chain new"})
	if age := s.age("chains"); age != -1 {
		t.Errorf("the age of the chains is %v with one that is not there yet", age)
	}
}

// What discovery said of a service is found by its name.
func TestWatchesOf(t *testing.T) {
	var w *watches
	if s, _ := w.of("a"); s != nil {
		t.Error("before anything was said: ", s)
	}
	w = &watches{time.Now(), []discovery.WatchStatus{{Service: "a", Endpoints: 1}, {Service: "b", Endpoints: 2}}}
	for name, want := range map[string]int{"": 0, "a": 1, "b": 2, "c": 0} {
		s, _ := w.of(name)
		if want == 0 != (s == nil) || s != nil && s.Endpoints != want {
			t.Errorf("of %q: %+v", name, s)
		}
	}
}

func BenchmarkReadiness1000(b *testing.B) {
	s := thousand(1000)
	b.ReportAllocs()
	for b.Loop() {
		s.check()
	}
}
