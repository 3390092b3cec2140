package mesh

import (
	"fmt"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// found is what has been found of one destination.
type found struct {
	e       *Endpoints
	name    string
	d       *destination
	sink    discovery.Sink
	gate    *gate  // nil where instances are reached directly
	through string // the datacenter of gate

	mu   sync.Mutex
	last *answered
	is   *discovery.Service // what sink has
	warn string
}

// size and warned are what was published last.
func (f *found) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.is == nil {
		return 0
	}
	return len(f.is.Endpoints)
}

// names are those of the services as which the instances are registered, and
// the likely ones, which an answer without instances does not tell.
func (f *found) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []string{f.d.target.Service, f.d.target.Service + "-sidecar-proxy"}
	if f.last != nil {
		list = append(list, f.last.Names...)
	}
	return list
}

func (f *found) warned() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.warn
}

func (f *found) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.e.track.Fail(f.name, err)
	f.sink.Fail(f.name, err)
}

// publish hands over what is known now, with a new answer unless that is nil.
func (f *found) publish(in *answered) {
	f.e.mu.Lock()
	trust := f.e.trust
	f.e.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if in != nil {
		f.last = in
	}
	if f.last == nil {
		return
	}
	t := &f.d.target
	s := &discovery.Service{
		Name: f.name, Endpoints: f.last.Endpoints, Index: f.last.index, Source: "consul", Updated: time.Now(),
	}
	switch {
	case f.d.query != "":
		s.SNI = f.d.query + ".default." + t.Datacenter + ".query." + trust
		for _, p := range f.last.Places {
			s.Identities = append(s.Identities, Identity(trust, p.Service, p.Namespace, p.Partition, p.Datacenter))
		}
	case t.Peer != "":
		s.SNI, s.Identities = f.last.PeerSNI, f.last.PeerIdentities
	default:
		s.SNI = or(t.SNI, ServerName(trust, t))
		s.Identities = []string{Identity(trust, t.Service, t.Namespace, t.Partition, t.Datacenter)}
	}
	f.warn = f.last.warning
	if f.gate != nil {
		eps, known, _, err := f.gate.endpoints()
		if !known {
			if err != nil {
				f.e.track.Fail(f.name, err)
				f.sink.Fail(f.name, err)
			}
			return
		}
		s.Endpoints = throughGateways(eps, f.last.Endpoints)
		if len(eps) == 0 {
			f.warn = fmt.Sprintf("datacenter %q has no mesh gateway through which it could be reached", f.through)
		}
	}
	f.is = s
	f.e.track.Confirm(f.name, s.Index, len(s.Endpoints), f.warn)
	f.sink.Update(s)
}

// throughGateways returns the gateways as the endpoints of a target: all are
// critical when no instance of it is well.
func throughGateways(gateways, instances []discovery.Endpoint) []discovery.Endpoint {
	well := false
	for i := range instances {
		well = well || instances[i].Health != discovery.Critical
	}
	list := append([]discovery.Endpoint(nil), gateways...)
	for i := range list {
		if !well {
			list[i].Health = discovery.Critical
		}
	}
	return list
}
