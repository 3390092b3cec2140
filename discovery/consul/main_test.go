package consul

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// patience bounds the wait for something that should happen soon.
const patience = 60 * time.Second

// lines is a Sink that hands on what it gets as text.
type lines chan string

func (l lines) Update(s *discovery.Service) {
	line := s.Name
	for _, e := range s.Endpoints {
		line += fmt.Sprintf(" %v", e.Address)
		if e.Weight != 1 {
			line += fmt.Sprintf("*%d", e.Weight)
		}
		if e.Health != discovery.Passing {
			line += ":" + e.Health.String()
		}
	}
	l <- line
}

func (l lines) Fail(service string, err error) { l <- service + " failed: " + err.Error() }

// expect waits for a line that starts with want, over any number of others.
func (l lines) expect(t *testing.T, want string) string {
	t.Helper()
	var seen []string
	end := time.After(patience)
	for {
		select {
		case got := <-l:
			if got == want || strings.HasPrefix(want, "~") && strings.Contains(got, want[1:]) {
				return got
			}
			seen = append(seen, got)
		case <-end:
			t.Fatalf("%q never came, but\n%s", want, strings.Join(seen, "\n"))
		}
	}
}

// sourceVia returns a Source with another way to the server when via is not nil.
func sourceVia(t *testing.T, cfg Config, via http.RoundTripper) *Source {
	t.Helper()
	c, err := newClient(cfg, via)
	if err != nil {
		t.Fatal(err)
	}
	return newSource(cfg, c)
}

// follow runs the source until the returned function is called or the test ends.
func follow(t *testing.T, s *Source, services ...string) (lines, func()) {
	t.Helper()
	l := make(lines, 10000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, services, l) }()
	ended := false
	stop := func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return l, stop
}

// await waits until something is so that has no event to wait for.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}
