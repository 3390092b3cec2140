package proxy

import (
	"errors"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/datagram"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

// datagramSockets are the relays of a plan by name; fresh are those of them that
// do not run yet.
type datagramSockets struct {
	byName map[string]*datagram.Relay
	fresh  map[*datagram.Relay]bool
}

// bindDatagrams finds the relays that the plan needs, as bind does listeners.
func (p *Proxy) bindDatagrams(want []*plan.Datagrams) (datagramSockets, error) {
	open := map[string]*datagram.Relay{}
	for _, r := range p.datagrams {
		open[datagramSocketOf(r.Plan())] = r
	}
	s := datagramSockets{map[string]*datagram.Relay{}, map[*datagram.Relay]bool{}}
	var errs []error
	for _, g := range want {
		r := open[datagramSocketOf(g)]
		if r == nil {
			var err error
			o := datagram.Options{Now: p.sweeper.Now, AccessLog: p.access, Log: p.log, Memory: p.memory}
			if r, err = datagram.Bind(g, o); err != nil {
				errs = append(errs, err)
				continue
			}
			s.fresh[r] = true
		}
		s.byName[g.Name] = r
	}
	if len(errs) > 0 {
		s.abandon()
		return datagramSockets{}, errors.Join(errs...)
	}
	return s, nil
}

// abandon closes what was bound for a plan that does not come.
func (s datagramSockets) abandon() {
	for r := range s.fresh {
		r.Close()
	}
}

// datagramSocketOf names the socket that g needs, as socketOf does for l.
func datagramSocketOf(g *plan.Datagrams) string {
	if strings.HasSuffix(g.Address, ":0") {
		return g.Name + " " + g.Address
	}
	return g.Address
}

// syncDatagrams gives every relay its part of the plan, starts new ones and ends
// those that are no longer wanted, with their flows: there is nothing in UDP by
// which a client could be told to go elsewhere.
func (p *Proxy) syncDatagrams(next *plan.Plan, s datagramSockets) {
	used := map[*datagram.Relay]bool{}
	for _, g := range next.Datagrams {
		r := s.byName[g.Name]
		used[r] = true
		r.Apply(g)
		if s.fresh[r] {
			p.accepting.Go(g.Name, r.Run)
		}
	}
	for _, r := range p.datagrams {
		if !used[r] {
			r.Close()
		}
	}
	p.datagrams = s.byName
}
