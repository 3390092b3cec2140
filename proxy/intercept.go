package proxy

import (
	"github.com/outrigger-mesh/outrigger/proxy/compile"
	"github.com/outrigger-mesh/outrigger/proxy/listener"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

// direct tells the listeners that intercept connections where to hand them on.
// All listeners of the plan accept by now.
func (p *Proxy) direct(next *plan.Plan, s sockets) {
	var all []*listener.Listener
	for _, l := range next.Listeners {
		if l.Intercept == nil && (l.Ports == nil || l.Ports.Others == nil) {
			s.byName[l.Name].Direct(nil)
			continue
		}
		if all == nil {
			all = make([]*listener.Listener, len(next.Listeners))
			for i, l := range next.Listeners {
				all[i] = s.byName[l.Name]
			}
		}
		s.byName[l.Name].Direct(&listener.Directory{Interception: l.Intercept, Listeners: all})
	}
}

// early opens the sockets to which connections are redirected, before anything
// else is there: until the first plan the kernel would refuse them.
func (p *Proxy) early() error {
	if p.initial.Config.Outbound.Transparent == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	draft, err := compile.Compile(compile.Input{Loaded: p.initial, Early: true})
	if err != nil {
		return err
	}
	bound, err := p.bind(draft.Listeners())
	if err != nil {
		return err
	}
	p.first = draft.Build(p.registry, p.metrics)
	p.sync(p.first, bound)
	return nil
}

// begun gives back what stood before the first plan. p.mu is held.
func (p *Proxy) begun() {
	if p.first != nil {
		compile.Release(p.first, p.registry)
		p.first = nil
	}
}
