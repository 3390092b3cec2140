package proxy

import (
	"fmt"

	"github.com/outrigger-mesh/outrigger/proxy/explain"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// viewExplain says what would become of a request that nobody has sent.
func (p *Proxy) viewExplain(q *admin.Question) (*admin.LegView, error) {
	p.mu.Lock()
	loaded, current := p.loaded, p.current.Load()
	p.mu.Unlock()
	if current == nil {
		return nil, fmt.Errorf("%w: it has no plan yet", admin.ErrNotHere)
	}
	return explain.Request(q, explain.Input{
		Plan: current, Loaded: loaded, TrustDomain: p.trustDomain(loaded.Config), Datacenter: p.datacenter(),
		Endpoints: p.viewEndpoints(), Live: true, Now: p.sweeper.Now(), Faults: p.faults.InEffect(), Hops: p.server.Hops,
	})
}
