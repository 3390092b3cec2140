package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

var errNoLeader = errors.New("no leader")

// recorder is a Sink that writes down what it gets, one line a call.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Update(s *Service) {
	line := s.Name
	if s.Stale {
		line += " stale"
	}
	for _, e := range s.Endpoints {
		line += fmt.Sprintf(" %v", e.Address)
	}
	r.add(line)
}

func (r *recorder) Fail(service string, err error) { r.add(service + " failed: " + err.Error()) }

func (r *recorder) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// take returns the lines since the last call.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.lines, "\n")
	r.lines = nil
	return s
}

// service makes a service with an endpoint on each port of 127.0.0.1.
func service(name string, ports ...uint16) *Service {
	s := &Service{Name: name, Source: "test", Updated: time.Now()}
	for _, p := range ports {
		s.Endpoints = append(s.Endpoints, Endpoint{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p), Weight: 1,
		})
	}
	return s
}
