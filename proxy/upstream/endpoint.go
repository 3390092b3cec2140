package upstream

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// EndpointSpec is one endpoint as discovery describes it.
type EndpointSpec struct {
	Address netip.AddrPort
	Socket  string // the path of a Unix socket, which has no Address
	ID      string // the catalog's name for the instance; may be empty
	Weight  uint32 // at least 1
	Healthy bool   // by the catalog
	Health  string // the catalog's word, for the admin API

	Region, Zone string // where it runs; empty where that is not known
	Priority     uint16 // its level; 0 is used first
	// Draining is why it gets nothing new; empty when it does.
	Draining string
	Labels   balance.Labels // the catalog's metadata
}

// Endpoint is one address of a cluster with all that is remembered about it.
// It lives as long as discovery lists it, through reloads and pickers. In a large
// mesh most endpoints are never used by one caller: what only use or a setting
// asks for is made then.
type Endpoint struct {
	Load    balance.Load // first, see there
	Outlier outlier.Endpoint

	places   atomic.Pointer[limit.Gauge] // taken of max_requests_per_endpoint; nil before the first
	cluster  *Cluster
	address  string
	since    time.Duration
	spec     atomic.Pointer[EndpointSpec]
	pool     pool
	mux      mux
	alone    atomic.Bool   // the handshake said last that it does not take the mesh transport
	noALPN   atomic.Bool   // it ended a handshake for the names that were offered
	standing atomic.Uint32 // what orders by hand make of it, a hand.Standing
	check    check
	conns    atomic.Int64
	suspect  *outlier.Suspect // under Cluster.mu; nil before caution looks at it
	reported reported
	key      uint64                // of address, for picks by hash
	stamp    atomic.Pointer[stamp] // nil before the first affinity
	metrics  *telemetry.Endpoint
	breaker  atomic.Pointer[breaker.Breaker] // nil unless each endpoint has one
}

// text is the address as it is shown.
func (s *EndpointSpec) text() string {
	if s.Socket != "" {
		return wire.Unix + s.Socket
	}
	return s.Address.String()
}

// place puts endpoints into the order of their addresses.
func (s *EndpointSpec) place(o *EndpointSpec) int {
	return cmp.Or(s.Address.Compare(o.Address), cmp.Compare(s.Socket, o.Socket))
}

// Address returns the endpoint's address as "host:port", or "unix:/path".
func (e *Endpoint) Address() string { return e.address }

// AddrPort returns the endpoint's address. That of a Unix socket is not valid.
func (e *Endpoint) AddrPort() netip.AddrPort { return e.spec.Load().Address }

// drop closes a connection of e and gives its slot back.
func (e *Endpoint) drop(c *wire.Conn) {
	_ = c.Close()
	e.conns.Add(-1)
	e.cluster.freed(true)
}

// Put keeps c for the next exchange. Call it only when the exchange has ended
// cleanly and nothing is buffered.
func (e *Endpoint) Put(c *wire.Conn, now time.Duration) {
	p := e.cluster.policy.Load()
	if p.Keepalive <= 0 || c.Generation != e.cluster.generation.Load() || !c.SetDeadline(0) || !e.pool.put(c, now) {
		e.drop(c)
		return
	}
	e.cluster.freed(false)
}

// Drop closes c, which has failed or must not be used again.
func (e *Endpoint) Drop(c *wire.Conn) { e.drop(c) }

// Want says what kind of connection Get shall give.
type Want struct {
	Now      time.Duration // on the sweeper's clock
	Deadline time.Duration // of the exchange; 0 none
	Fresh    bool          // never a kept one
	Careful  bool          // check a kept one before giving it
	HTTP2    bool          // with SameHTTP: the downstream speaks HTTP/2
	TCP      bool          // with SameHTTP: it does not speak HTTP
	Draw     guard.Draw    // of the exchange
}

// Leg is what an attempt is carried on: a connection of its own, to be given
// back with Put or Drop, or a stream of a shared one, to be closed.
type Leg struct {
	Conn   *wire.Conn
	Stream *http2.Stream
	PeerID string // the endpoint's SPIFFE ID, empty without mTLS
	Reused bool   // the connection was there already
}

// Get returns a way to e: a stream where the cluster speaks HTTP/2 or the
// endpoint has taken the mesh transport, else a connection, kept or new. It
// blocks while a connection is made, and while the cluster's connection limit is
// reached.
func (e *Endpoint) Get(w Want) (Leg, *outcome.Error) {
	cl := e.cluster
	p := cl.policy.Load()
	if p.http2(w) || p.Mesh && !e.alone.Load() {
		return e.stream(p, w)
	}
	if !w.Fresh {
		if c := e.kept(w.Now, p, w.Careful); c != nil {
			return alone(c), nil
		}
	}
	return e.dial(p, w)
}

func alone(c *wire.Conn) Leg { return Leg{Conn: c, PeerID: c.PeerID, Reused: c.Reused} }

// kept returns a kept connection that may be used, or nil. The transport may
// have changed while one was being put back.
func (e *Endpoint) kept(now time.Duration, p *Policy, careful bool) *wire.Conn {
	for {
		c := e.pool.take(now, p.Keepalive, careful, e.drop)
		if c == nil || c.Generation == e.cluster.generation.Load() {
			return c
		}
		e.drop(c)
	}
}

// dial makes a connection, or takes one that becomes free while it waits.
func (e *Endpoint) dial(p *Policy, w Want) (Leg, *outcome.Error) {
	timeout, _ := p.connectTime(w)
	if timeout <= 0 {
		return Leg{}, &outcome.Error{Reason: outcome.RequestTimeout, Op: "connect " + e.address}
	}
	until := time.Now().Add(timeout)
	c, oe := e.cluster.slot(e, p, w, until)
	switch {
	case oe != nil:
		return Leg{}, oe
	case c != nil:
		return alone(c), nil
	}
	return e.join(p, w, until)
}

// join makes a connection, for which there is a slot, and returns the first
// stream on it where streams share it.
func (e *Endpoint) join(p *Policy, w Want, until time.Time) (Leg, *outcome.Error) {
	c, oe := e.connect(w, until)
	if oe != nil {
		e.cluster.freed(true)
		return Leg{}, oe
	}
	proto := ""
	if t := c.TLS(); t != nil {
		proto = t.ConnectionState().NegotiatedProtocol
	}
	mesh := proto == http2.MeshHTTP || proto == http2.MeshTCP
	e.alone.Store(!mesh)
	h2 := p.http2(w)
	if !mesh && h2 && c.TLS() != nil && proto != "h2" && !(p.SameHTTP && proto == "") {
		_ = c.Close()
		e.cluster.freed(true)
		return Leg{}, &outcome.Error{Reason: outcome.HandshakeFailed, Op: "connect " + e.address, Err: errNoHTTP2}
	}
	e.conns.Add(1)
	if mesh || h2 {
		return e.share(p, c, mesh)
	}
	return alone(c), nil
}

// connect makes a new connection with its TLS handshake.
func (e *Endpoint) connect(w Want, until time.Time) (*wire.Conn, *outcome.Error) {
	cl := e.cluster
	version := ""
	if cl.policy.Load().SameHTTP && !w.TCP {
		if version = "http/1.1"; w.HTTP2 {
			version = "h2"
		}
	}
	c, oe := e.open(cl.registry.ctx, until, nil, version, cl.metrics.UpstreamConnections.Inc)
	if oe != nil {
		cl.metrics.ConnectFailed(oe.Reason)
	}
	return c, oe
}

// dial makes a connection; without one the reason is what its attempt ends by.
func (r *Registry) dial(ctx context.Context, d *net.Dialer, address string) (*wire.Conn, outcome.Reason, error) {
	var nc net.Conn
	var err error
	if path, unix := strings.CutPrefix(address, wire.Unix); unix {
		nc, err = dialUnix(ctx, d, path)
	} else {
		nc, err = d.DialContext(ctx, "tcp", address)
	}
	if err != nil {
		switch {
		case isTimeout(err):
			return nil, outcome.ConnectTimeout, err
		case ownWant(err):
			return nil, outcome.Internal, err
		}
		return nil, outcome.ConnectFailed, err
	}
	c, err := wire.New(nc.(wire.Socket), r.sweeper)
	if err != nil {
		_ = nc.Close()
		return nil, outcome.Internal, err
	}
	return c, outcome.OK, nil
}

// open makes a connection and calls opened, when that is given, before the TLS
// handshake. It offers protos by ALPN in place of the cluster's own, unless
// they are nil; then version, when that is given, behind them.
func (e *Endpoint) open(ctx context.Context, until time.Time, protos []string, version string, opened func()) (*wire.Conn, *outcome.Error) {
	cl := e.cluster
	fail := func(r outcome.Reason, err error) *outcome.Error {
		return &outcome.Error{Reason: r, Op: "connect " + e.address, Err: err}
	}
	gen := cl.generation.Load()
	spec := cl.spec.Load()
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	c, r, err := cl.registry.dial(ctx, &cl.registry.dialer, e.address)
	if err != nil {
		return nil, fail(r, err)
	}
	c.Generation = gen
	if opened != nil {
		opened()
	}
	if spec.TLS == nil {
		return c, nil
	}
	tlsConfig := mtls.ForPeer(spec.TLS, e.address)
	own := protos == nil
	switch {
	case own && e.noALPN.Load():
		protos = []string{}
	case own && version != "":
		protos = append(slices.Clip(tlsConfig.NextProtos), version)
	}
	if protos != nil && !slices.Equal(protos, tlsConfig.NextProtos) {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.NextProtos = protos
	}
	if err := c.Client(tlsConfig, until); err != nil {
		_ = c.Close()
		if own && (spec.Protocol == "tcp" || spec.Policy.SameHTTP) && refusesALPN(err) && !e.noALPN.Swap(true) {
			return e.open(ctx, until, nil, version, opened)
		}
		var ve *mtls.VerifyError
		switch {
		case errors.As(err, &ve):
			return nil, fail(outcome.PeerIdentity, err)
		case errors.Is(err, mtls.ErrNoMaterial):
			return nil, fail(outcome.NoIdentity, err)
		case errors.Is(err, wire.ErrExpired):
			return nil, fail(outcome.ConnectTimeout, err)
		}
		return nil, fail(outcome.HandshakeFailed, err)
	}
	state := c.TLS().ConnectionState()
	if id, err := mtls.PeerID(&state); err == nil {
		c.PeerID = id.String()
	}
	return c, nil
}

// refusesALPN reports whether a peer ended the handshake because it knows none of
// the protocols that were offered (RFC 7301 section 3.2), for which crypto/tls has
// no type. Servers that know of no protocol mostly go on without.
func refusesALPN(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" && op.Err.Error() == "tls: no application protocol"
}

// ownWant reports whether no connection could be made for a reason that lies in
// this process or machine: no descriptor, memory or port was left. No endpoint
// must be ejected for that.
func ownWant(err error) bool {
	for _, e := range [...]syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// usable reports whether an attempt may go to e now: always while healthy; for
// exactly one attempt while on probation.
func (e *Endpoint) usable(mode guard.Mode) bool {
	return mode == guard.Observe || e.Outlier.State() != outlier.Probation || e.Outlier.TryProbe()
}
