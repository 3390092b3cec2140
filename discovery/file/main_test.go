package file

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// patience bounds the wait for something that should happen soon.
const patience = 20 * time.Second

// lines is a Sink that hands on what it gets as text.
type lines chan string

func (l lines) Update(s *discovery.Service) {
	line := s.Name + " " + s.Protocol
	for _, e := range s.Endpoints {
		line += fmt.Sprintf(" %v*%d:%v", e.Address, e.Weight, e.Health)
	}
	l <- line
}

func (l lines) Fail(service string, err error) {
	l <- service + " failed: " + strings.ReplaceAll(err.Error(), "\n", " | ")
}

// next returns the next line.
func (l lines) next(t *testing.T) string {
	t.Helper()
	select {
	case s := <-l:
		return s
	case <-time.After(patience):
		t.Fatal("nothing came")
		return ""
	}
}

// run starts a source on path and returns what its sink gets; it ends with the test.
func run(t *testing.T, path string, services ...string) (*Source, lines) {
	t.Helper()
	s, err := New(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	l := make(lines, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, services, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, l
}
