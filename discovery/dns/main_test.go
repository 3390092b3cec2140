package dns

import (
	"fmt"
	"testing"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// lines is a Sink that hands on what it gets as text.
type lines chan string

func (l lines) Update(s *discovery.Service) {
	line := s.Name
	for _, e := range s.Endpoints {
		line += fmt.Sprintf(" %v*%d", e.Address, e.Weight)
	}
	l <- line
}

func (l lines) Fail(service string, err error) { l <- service + " failed: " + err.Error() }
