package proxy

import (
	"net"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/listener"
)

// Listen returns the addresses that are bound, by listener name.
func (p *Proxy) Listen() map[string]net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := make(map[string]net.Addr, len(p.listeners))
	for name, l := range p.listeners {
		m[name] = l.Address()
	}
	return m
}

// all returns the listeners in the order of their names, and those that are
// ending.
func (p *Proxy) all() []*listener.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]*listener.Listener, 0, len(p.listeners)+len(p.retired))
	for _, l := range p.listeners {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b *listener.Listener) int { return strings.Compare(a.Plan().Name, b.Plan().Name) })
	return append(list, p.retired...)
}
