package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/origin"
	"github.com/outrigger-mesh/outrigger/bench/peers"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// topology is the chain of proxies that a scenario needs.
type topology []peers.Role

var (
	onePlain  = topology{peers.Plain}
	meshPair  = topology{peers.Inbound, peers.Outbound} // started from the origin's side
	oneSecure = topology{peers.Inbound}
)

// course is what stands still in a scenario: what its proxies carry, what is
// behind them and what load they get.
type course struct {
	name      string // of the scenario, in the results
	chain     topology
	protocol  peers.Protocol
	load      load.Protocol
	kind      origin.Kind
	size      int  // bytes of an answer
	endpoints int  // of the origin, at as many addresses
	cores     int  // for each proxy
	guarded   bool // Outrigger with all its guards, against itself with none
	levels    []level
}

// level is how many exchanges are under way at once.
type level struct{ connections, streams int }

func (l level) String() string {
	if l.streams > 1 {
		return fmt.Sprintf("%dx%d", l.connections, l.streams)
	}
	return fmt.Sprint(l.connections)
}

// config is the load of a course at one level.
func (c *course) config(l level) load.Config {
	return load.Config{Protocol: c.load, Connections: l.connections, Streams: l.streams, Message: smallBody}
}

// profileLevel is the level that a profile is taken at: the one with the most
// exchanges under way, up to those that goals are set for.
func (c *course) profileLevel() level {
	best := c.levels[0]
	for _, l := range c.levels {
		if n := l.connections * l.streams; n <= plainConnections && n > best.connections*best.streams {
			best = l
		}
	}
	return best
}

// Names of scenarios on the command line that stand for several in the results.
const (
	bodies    = "bodies"
	endpoints = "endpoints"
	cores2    = "cores"
	guards    = "guards"
)

// Connections of the scenarios that have a fixed number of them.
const (
	latencyConnections   = 16
	handshakeConnections = 4
	bodyConnections      = 16
	plainConnections     = 64 // endpoints, WebSocket, two cores, guards
	guardedEndpoints     = 4
)

// plainCourse is HTTP/1.1 through one proxy.
func (o *options) plainCourse(name string, levels ...level) *course {
	return &course{name: name, chain: onePlain, protocol: peers.HTTP, kind: origin.HTTP1, size: o.size, endpoints: 1, cores: 1, levels: levels}
}

// courses are the closed loops that a scenario of the command line stands for,
// none for those that are measured in another way.
func (o *options) courses(scenario string) []*course {
	var h1 []level
	for _, n := range o.connections {
		h1 = append(h1, level{n, 1})
	}
	streams := []level{{1, 1}, {8, 8}}
	small := func(c *course, protocol peers.Protocol, l load.Protocol, kind origin.Kind) []*course {
		c.protocol, c.load, c.kind, c.size = protocol, l, kind, smallBody
		return []*course{c}
	}
	switch scenario {
	case report.H1Plain:
		return []*course{o.plainCourse(scenario, h1...)}
	case report.MeshHop:
		c := o.plainCourse(scenario, h1...)
		c.chain = meshPair
		return []*course{c}
	case report.MeshGRPC:
		c := o.plainCourse(scenario, streams...)
		c.chain = meshPair
		return small(c, peers.GRPC, load.GRPC, origin.GRPC)
	case report.MeshTCP:
		c := o.plainCourse(scenario, level{16, 1})
		c.chain = meshPair
		return small(c, peers.TCP, load.TCP, origin.Source)
	case report.H2:
		return small(o.plainCourse(scenario, streams...), peers.HTTP2, load.HTTP2, origin.HTTP2)
	case report.GRPCUnary:
		return small(o.plainCourse(scenario, streams...), peers.GRPC, load.GRPC, origin.GRPC)
	case report.GRPCStream:
		return small(o.plainCourse(scenario, level{8, 8}), peers.GRPC, load.GRPCStream, origin.GRPCEcho)
	case report.WebSocket:
		return small(o.plainCourse(scenario, level{plainConnections, 1}), peers.HTTP, load.WebSocket, origin.WebSocket)
	case report.TCP:
		levels := []level{{1, 1}, {16, 1}}
		if o.quick {
			levels = levels[1:]
		}
		return small(o.plainCourse(scenario, levels...), peers.TCP, load.TCP, origin.Source)
	case cores2:
		c := o.plainCourse(report.Cores+"2", level{plainConnections, 1})
		c.cores = 2
		return []*course{c}
	}
	var list []*course
	switch scenario {
	case bodies:
		for _, b := range []struct {
			name  string
			bytes int
			quick bool
		}{{"1k", 1 << 10, false}, {"100k", 100 << 10, true}, {"10m", 10 << 20, true}} {
			if b.quick || !o.quick {
				c := o.plainCourse(report.Body+b.name, level{bodyConnections, 1})
				c.size = b.bytes
				list = append(list, c)
			}
		}
	case endpoints:
		for _, n := range []int{10, 1000, 10_000} {
			if n == 1000 || !o.quick {
				c := o.plainCourse(fmt.Sprintf("%s%d", report.Endpoints, n), level{plainConnections, 1})
				c.endpoints = n
				list = append(list, c)
			}
		}
	case guards:
		list = append(list, o.plainCourse(report.Guards+"h1", level{plainConnections, 1}))
		list = append(list, small(o.plainCourse(report.Guards+"grpc", level{8, 8}), peers.GRPC, load.GRPC, origin.GRPC)...)
		for _, c := range list {
			c.guarded, c.endpoints = true, guardedEndpoints
		}
	}
	return list
}

// upstreams are the addresses of n endpoints that are all the same origin: the
// origin itself, or as many addresses of 127.0.0.0/8 at its port.
func upstreams(at netip.AddrPort, n int) []netip.AddrPort {
	if n == 1 {
		return []netip.AddrPort{at}
	}
	list := make([]netip.AddrPort, n)
	for i := range list {
		list[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i / 250), byte(1 + i%250)}), at.Port())
	}
	return list
}

// errElsewhere says that a program has its row in a scenario under another
// subject's name.
var errElsewhere = errors.New("measured under another name")

// takes says whether a peer that carries some protocols, in some scenarios
// only if any are named, has a place in a course: errElsewhere, or
// errNotOffered with the reason.
func takes(c *course, only []string, carries string) error {
	if c.guarded {
		return errElsewhere
	}
	if len(only) > 0 && !slices.Contains(only, c.name) {
		return errElsewhere
	}
	if slices.Contains(strings.Fields(carries), string(c.protocol)) {
		return nil
	}
	switch c.protocol {
	case peers.TCP:
		return fmt.Errorf("relays no TCP: %w", errNotOffered)
	case peers.HTTP2:
		return fmt.Errorf("speaks HTTP/2 towards an origin for gRPC only: %w", errNotOffered)
	default:
		return fmt.Errorf("does not speak %s: %w", c.protocol, errNotOffered)
	}
}

// oneHop is what takes says for a program that stands under one name for
// HTTP/1.1 between the sidecars and under another for HTTP/2, which gRPC needs.
func oneHop(c *course, hopH2 bool) error {
	if len(c.chain) > 1 && c.protocol == peers.GRPC && !hopH2 {
		return errElsewhere
	}
	return nil
}
