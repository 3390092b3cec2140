package mesh

import (
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// overrides are what the caller's registration changes in a chain.
type overrides struct {
	OverrideProtocol       string       `json:",omitempty"`
	OverrideConnectTimeout string       `json:",omitempty"`
	OverrideMeshGateway    *MeshGateway `json:",omitempty"`
}

// chainWatches returns the queries for the chains of the upstreams, and forgets
// those that are no longer wanted. f.mu is held.
func (f *Follower) chainWatches(reg *Registration) []*watch {
	wanted := map[string]bool{}
	var list []*watch
	for i := range reg.Proxy.Upstreams {
		u := &reg.Proxy.Upstreams[i]
		if u.DestinationName == "" || u.DestinationName == "*" || u.DestinationType == "prepared_query" {
			continue
		}
		name := UpstreamName(u, reg)
		if wanted[name] {
			continue
		}
		wanted[name] = true
		list = append(list, f.chainOf(name, u, reg, false))
	}
	for _, service := range f.state.implied() {
		u := reg.unnamed(service)
		name := UpstreamName(u, reg)
		if wanted[name] {
			continue
		}
		wanted[name] = true
		list = append(list, f.chainOf(name, u, reg, true))
	}
	for name := range f.state.chains {
		if !wanted[name] {
			delete(f.state.chains, name)
		}
	}
	return list
}

// chainOf is chainWatch with a place for what comes of it. f.mu is held.
func (f *Follower) chainOf(name string, u *Upstream, reg *Registration, implied bool) *watch {
	w := f.chainWatch(name, u, reg)
	c := f.state.chains[name]
	if c == nil {
		c = &chainState{}
		f.state.chains[name] = c
	}
	c.key, c.implied = w.key, implied
	return w
}

// chainDetectors are queries whose answer changes when a chain may have.
func (f *Follower) chainDetectors() []detector {
	var list []detector
	for _, kind := range []string{"service-router", "service-splitter", "service-resolver", "service-defaults", "proxy-defaults"} {
		list = append(list, detector{query: consul.Query{Path: "/v1/config/" + kind, Params: f.dc(), Need: "service:read"}})
	}
	return list
}

// chainWatch follows the chain of one upstream.
func (f *Follower) chainWatch(name string, u *Upstream, reg *Registration) *watch {
	o := overrides{OverrideProtocol: text(u.Config, "protocol")}
	if ms := number(u.Config, "connect_timeout_ms"); ms > 0 {
		o.OverrideConnectTimeout = (time.Duration(ms) * time.Millisecond).String()
	}
	switch {
	case u.MeshGateway.Mode != "":
		o.OverrideMeshGateway = &u.MeshGateway
	case reg.Proxy.MeshGateway.Mode != "":
		o.OverrideMeshGateway = &reg.Proxy.MeshGateway
	}
	q := consul.Query{
		Path: "/v1/discovery-chain/" + url.PathEscape(u.DestinationName), Body: o,
		Params: reg.in(u.DestinationNamespace, u.DestinationPartition, "compile-dc", or(u.Datacenter, reg.Datacenter)),
		Need:   "service:read on " + u.DestinationName,
	}
	take := func(r consul.Reply) (*Chain, error) {
		var answer struct{ Chain *Chain }
		if err := json.Unmarshal(r.Body, &answer); err != nil {
			return nil, err
		}
		if answer.Chain == nil || answer.Chain.Nodes[answer.Chain.StartNode] == nil {
			return nil, errors.New("the answer has no chain")
		}
		return answer.Chain, nil
	}
	if u.DestinationPeer != "" {
		q = consul.Query{
			Path:   "/v1/health/connect/" + url.PathEscape(u.DestinationName),
			Params: reg.in(u.DestinationNamespace, u.DestinationPartition, "peer", u.DestinationPeer),
			Need:   "service:read on " + u.DestinationName + " and node:read",
		}
		take = func(r consul.Reply) (*Chain, error) {
			in, err := consul.DecodeInstances(r.Body, consul.Reading{})
			if err != nil {
				return nil, err
			}
			return peerChain(u, reg, in.PeerProtocol), nil
		}
	}
	sent, _ := json.Marshal([]any{q.Path, q.Params, q.Body}) // plain values, which cannot fail
	w := &watch{name: "sidecar/chain " + name, key: string(sent), query: q, many: true}
	w.take = func(r consul.Reply) (int, error) {
		chain, err := take(r)
		if err == nil {
			f.setChain(name, w.key, chain, "")
		}
		return 0, err
	}
	w.fail = func(err error) { f.setChain(name, w.key, nil, err.Error()) }
	return w
}

// in returns the parameters of a query about something in a namespace and
// partition, the sidecar's own when empty, with more of them. Consul's free
// edition refuses to be told of any, even of the only ones that it has.
func (r *Registration) in(namespace, partition string, more ...string) map[string]string {
	p := map[string]string{}
	if ns := or(namespace, r.Namespace); orDefault(ns) != "default" || orDefault(r.Namespace) != "default" {
		p["ns"] = ns
	}
	if ap := or(partition, r.Partition); orDefault(ap) != "default" || orDefault(r.Partition) != "default" {
		p["partition"] = ap
	}
	for i := 0; i+1 < len(more); i += 2 {
		p[more[i]] = more[i+1]
	}
	return p
}

// setChain takes over the chain of an upstream, or why there is none; a chain
// that was good before stays.
func (f *Follower) setChain(name, key string, chain *Chain, failure string) {
	f.change(func(s *state) {
		c := s.chains[name]
		if c == nil || c.key != key {
			return
		}
		if chain != nil {
			c.chain, c.failure = chain, ""
		} else {
			c.failure = failure
		}
	})
}

// peerChain is the chain of an upstream of a peer: Consul compiles none, because
// the peer's own sidecars and gateways do what its entries ask for.
func peerChain(u *Upstream, reg *Registration, protocol string) *Chain {
	ns, ap := orDefault(or(u.DestinationNamespace, reg.Namespace)), orDefault(or(u.DestinationPartition, reg.Partition))
	id := strings.Join([]string{u.DestinationName, ns, ap, "external", u.DestinationPeer}, ".")
	t := &Target{
		ID: id, Name: id, Service: u.DestinationName, Namespace: ns, Partition: ap, Peer: u.DestinationPeer,
		MeshGateway: u.MeshGateway,
	}
	if t.MeshGateway.Mode == "" {
		t.MeshGateway = reg.Proxy.MeshGateway
	}
	if ms := number(u.Config, "connect_timeout_ms"); ms > 0 {
		t.ConnectTimeout = Duration(time.Duration(ms) * time.Millisecond)
	}
	start := "resolver:" + id
	return &Chain{
		ServiceName: u.DestinationName, Namespace: ns, Partition: ap, Datacenter: reg.Datacenter,
		Protocol: or(protocol, "tcp"), Default: true, StartNode: start,
		Nodes: map[string]*Node{start: {
			Type: "resolver", Name: id,
			Resolver: &Resolver{Default: true, ConnectTimeout: t.ConnectTimeout, Target: id},
		}},
		Targets: map[string]*Target{id: t},
	}
}

// text and number read opaque configuration, in which Consul writes keys as the
// user did and numbers as JSON or as text.
func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

func number(m map[string]any, key string) int64 {
	switch v := m[key].(type) {
	case float64:
		return int64(v)
	case string:
		n, _ := strconv.ParseInt(v, 10, 64)
		return n
	}
	return 0
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
