package plan

import (
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Fault is a fault made on purpose, and who meets it.
type Fault struct {
	Name      string
	Cluster   string
	Direction telemetry.Direction
	// Text is all that was ordered: two faults with the same are the same.
	Text string

	Conditions string   // those of Match in words; empty without any
	Route      string   // by its name; empty: all
	Match      Match    // conditions on requests
	OnlyHTTP   bool     // it does not concern connections that are not HTTP
	From       []string // identities of callers, of which those with "*" at the end stand for all that begin so; none: all
	Endpoint   string   // by its address; empty: all

	Config fault.Config
	Stop   fault.Stop
	For    time.Duration
}

// Concerns reports whether the fault is for an attempt at endpoint by a caller
// on a route.
func (f *Fault) Concerns(route, endpoint, caller string) bool {
	if f.Route != "" && f.Route != route || f.Endpoint != "" && f.Endpoint != endpoint {
		return false
	}
	for _, from := range f.From {
		if begins, ok := strings.CutSuffix(from, "*"); from == caller || ok && caller != "" && strings.HasPrefix(caller, begins) {
			return true
		}
	}
	return len(f.From) == 0
}

// Meets reports whether a request whose head is r in raw meets the conditions.
func (f *Fault) Meets(r *http1.Request, raw []byte) bool {
	if p := &f.Match.Path; p.Kind != AnyText {
		if path := pathOf(r, raw); path == nil || !p.matches(path) {
			return false
		}
	}
	return f.Match.beside(r, raw)
}
