package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// EndpointSpec is one endpoint as discovery describes it.
type EndpointSpec struct {
	Address netip.AddrPort
	ID      string // the catalog's name for the instance; may be empty
	Weight  uint32 // at least 1
	Healthy bool   // by the catalog
	Health  string // the catalog's word, for the admin API
}

// Endpoint is one address of a cluster with all that is remembered about it.
// It lives as long as discovery lists it, through reloads and pickers.
type Endpoint struct {
	Load    balance.Load
	Outlier outlier.Endpoint

	cluster *Cluster
	address string
	addr    netip.AddrPort
	since   time.Duration
	spec    atomic.Pointer[EndpointSpec]
	pool    pool
	mux     mux
	conns   atomic.Int64
	metrics *telemetry.Endpoint
}

// Address returns the endpoint's address as "host:port".
func (e *Endpoint) Address() string { return e.address }

// AddrPort returns the endpoint's address.
func (e *Endpoint) AddrPort() netip.AddrPort { return e.addr }

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
}

// Get returns a connection to e: a kept one or a new one. It blocks while one
// is made, and while the cluster's connection limit is reached.
func (e *Endpoint) Get(w Want) (*wire.Conn, *outcome.Error) {
	cl := e.cluster
	p := cl.policy.Load()
	if !w.Fresh {
		if c := e.kept(w.Now, p, w.Careful); c != nil {
			return c, nil
		}
	}
	return e.dial(p, w)
}

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

func (e *Endpoint) dial(p *Policy, w Want) (*wire.Conn, *outcome.Error) {
	cl := e.cluster
	timeout := p.ConnectTimeout
	if w.Deadline > 0 {
		timeout = min(timeout, w.Deadline-w.Now)
	}
	if timeout <= 0 {
		return nil, &outcome.Error{Reason: outcome.RequestTimeout, Op: "connect " + e.address}
	}
	until := time.Now().Add(timeout)
	if c, oe := cl.slot(e, p, w, until); c != nil || oe != nil {
		return c, oe
	}
	c, oe := e.connect(until)
	if oe != nil {
		cl.freed(true)
		return nil, oe
	}
	e.conns.Add(1)
	return c, nil
}

// connect makes a new connection with its TLS handshake.
func (e *Endpoint) connect(until time.Time) (*wire.Conn, *outcome.Error) {
	cl := e.cluster
	fail := func(r outcome.Reason, err error) *outcome.Error {
		cl.metrics.ConnectFailed(r)
		return &outcome.Error{Reason: r, Op: "connect " + e.address, Err: err}
	}
	gen := cl.generation.Load()
	spec := cl.spec.Load()
	ctx, cancel := context.WithDeadline(cl.registry.ctx, until)
	defer cancel()
	nc, err := cl.registry.dialer.DialContext(ctx, "tcp", e.address)
	if err != nil {
		switch {
		case isTimeout(err):
			return nil, fail(outcome.ConnectTimeout, err)
		case ownWant(err):
			return nil, fail(outcome.Internal, err)
		}
		return nil, fail(outcome.ConnectFailed, err)
	}
	c, err := wire.New(nc.(*net.TCPConn), cl.registry.sweeper)
	if err != nil {
		_ = nc.Close()
		return nil, fail(outcome.Internal, err)
	}
	c.Generation = gen
	cl.metrics.UpstreamConnections.Inc()
	if spec.TLS == nil {
		return c, nil
	}
	if err := c.Client(spec.TLS, until); err != nil {
		_ = c.Close()
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
