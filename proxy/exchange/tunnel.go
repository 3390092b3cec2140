package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/relay"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// tunnelable reports whether an upgrade to proto may be passed on. The protocols
// that carry further requests, or hide them, may not: they would go past what
// is decided for each request. Such an upgrade is not made, as any server is
// free to do (RFC 9110 section 7.8).
func tunnelable(proto []byte) bool {
	for len(proto) > 0 {
		var name []byte
		name, proto, _ = bytes.Cut(proto, comma)
		name, _, _ = bytes.Cut(bytes.TrimSpace(name), slash)
		for _, no := range [...][]byte{[]byte("h2c"), []byte("h2"), []byte("h3"), []byte("http"), []byte("tls")} {
			if bytes.EqualFold(name, no) {
				return false
			}
		}
	}
	return true
}

// offered reports whether proto, to which an endpoint has switched, is one of
// those that the request offered.
func offered(offers, proto []byte) bool {
	for len(offers) > 0 {
		var one []byte
		one, offers, _ = bytes.Cut(offers, comma)
		if bytes.EqualFold(bytes.TrimSpace(one), proto) {
			return true
		}
	}
	return false
}

var comma, slash = []byte(","), []byte("/")

var webSocket = []byte("websocket")

// NoConnect says why a CONNECT is refused.
const NoConnect = "CONNECT is not offered; a listener with protocol: tcp carries any protocol"

// tunnelRefused refuses what asks for a tunnel that is not made. CONNECT is not:
// whatever went through would go past what is decided for each request, and a
// route leads to one cluster, which TCP reaches where that is wanted.
func (x *exchange) tunnelRefused() outcome.Reason {
	switch {
	case x.req.Method == http1.MethodConnect:
		x.close = true // what follows may be meant for the tunnel
		x.detail = NoConnect
	case x.st != nil && x.req.Upgrade && !tunnelable(x.req.UpgradeProto.Of(x.raw)):
		x.detail = "no tunnel is made for a protocol that carries or hides further requests"
	default:
		return outcome.OK
	}
	return outcome.Unsupported
}

// extended reports whether the request is an extended CONNECT (RFC 8441).
func (x *exchange) extended() bool { return x.st != nil && len(x.st.Protocol) > 0 }

// mayTunnel decides about an upgrade towards a stream. An offer that cannot be
// made there is left out, as any server is free to ignore it (RFC 9110 section
// 7.8): extended CONNECT names one protocol, and no stream carries a body and
// then a tunnel.
func (x *exchange) mayTunnel() outcome.Reason {
	proto := x.req.UpgradeProto.Of(x.raw)
	if x.hasBody() || !x.ust.Raw() && (x.req.Method != http1.MethodGet || bytes.ContainsAny(proto, ", /")) {
		x.req.Upgrade = false
		return outcome.OK
	}
	most := x.pol.ConnectTimeout
	if end := sooner(x.deadline, x.attemptEnd); end > 0 {
		most = min(most, end-x.now())
	}
	err := x.ust.MayTunnel(most)
	switch {
	case err == nil:
		return outcome.OK
	case err != http2.ErrNoConnectProtocol && !errors.Is(err, wire.ErrExpired):
		return x.streamFailed(err)
	case err == http2.ErrNoConnectProtocol && !x.extended() && !bytes.EqualFold(proto, webSocket):
		x.req.Upgrade = false // who offers another protocol can mostly do without
		return outcome.OK
	}
	x.cause = err
	x.dropUpstream()
	switch {
	case err == http2.ErrNoConnectProtocol:
		x.detail = "the endpoint's HTTP/2 does not offer extended CONNECT (RFC 8441); write protocol: http for it"
		return outcome.Unsupported
	case x.deadline > 0 && x.now() >= x.deadline:
		return outcome.RequestTimeout
	}
	return outcome.ConnectTimeout
}

// switched reports whether a 101, whose spans refer to b, answers what the
// request offers.
func (x *exchange) switched(b []byte) bool {
	return x.req.Upgrade && x.res.Upgrade && offered(x.req.UpgradeProto.Of(x.raw), x.res.UpgradeProto.Of(b))
}

// notSwitched ends an extended CONNECT that an HTTP/1.1 endpoint has answered
// with success but no 101: passed on it would say that there is a tunnel.
func (x *exchange) notSwitched() outcome.Reason {
	x.detail = fmt.Sprintf("the endpoint does not switch protocols; it answers %d", x.status)
	x.dropUpstream()
	x.status = 0
	return outcome.Unsupported
}

// tunnel says that the protocol is switched and relays both ways until both
// have ended.
func (x *exchange) tunnel() outcome.Reason {
	if x.upload == uploadRunning {
		// The new protocol begins behind the request (RFC 9110 section 7.8).
		x.waitUpload()
		if !x.uploader.hadWhole() {
			x.status, x.cause = 0, x.uploader.err
			x.dropUpstream()
			if r := x.uploader.failed(); r != outcome.OK {
				return r
			}
			return outcome.UpstreamReset
		}
	}
	b := x.answer()
	o := relay.Options{Now: x.s.srv.Sweeper.Now, Idle: x.pol.StreamIdle}
	if bytes.EqualFold(x.res.UpgradeProto.Of(b), webSocket) {
		o.WebSocket = &x.pol.WebSocket
	}
	x.grow(x.headLen + ownFields + x.route.Response.Size())
	out := x.appendResponseHead(x.out[:0], b[:x.headLen])
	out = append(out, "connection: upgrade\r\nupgrade: "...)
	out = append(out, x.res.UpgradeProto.Of(b)...)
	x.out = append(out, "\r\n\r\n"...)
	x.close = true
	if r := x.respond(x.out, len(x.out), false); r != outcome.OK {
		x.dropUpstream()
		if x.cause == http2.ErrBadAccept {
			x.status = 0
			return outcome.UpstreamProtocol
		}
		x.began = true
		return r
	}
	x.began = true
	wire.Put(x.out)
	x.out = nil
	down := relay.Conn(x.s.conn)
	if x.st != nil {
		x.caller.watch(nil)
		if x.extended() {
			x.status = 200
		}
		down = relay.Stream(x.st)
	}
	var up relay.Leg
	if x.ust != nil {
		up = relay.Stream(x.ust)
	} else {
		x.up.Consume(x.headLen)
		x.inexact()
		up = relay.Conn(x.up)
	}
	up.SetDeadline(0)
	down.SetDeadline(0)
	t := &tunnelled{
		relay: relay.New(down, up, o), leg: down,
		asked: x.keepAsked(),
	}
	x.s.tunnels.add(t)
	x.cl.Metrics().TunnelOpened()
	if x.refusedNow(t) {
		down.Expire() // the rules changed before the tunnel could be found
	}
	res := t.relay.Run()
	x.s.tunnels.remove(t)
	x.rec.BytesIn, x.rec.BytesOut = res.Sent, res.Received
	x.dropUpstream()
	r := x.relayed(t, res)
	x.cl.Metrics().TunnelEnded(r)
	return r
}

// relayed says what the end of a relay means.
func (x *exchange) relayed(t *tunnelled, res relay.Result) outcome.Reason {
	expired := errors.Is(res.Err, wire.ErrExpired)
	if expired && x.refusedNow(t) {
		return outcome.Denied
	}
	switch res.Closed {
	case relay.ByPeers:
		return outcome.OK
	case relay.Idle:
		return outcome.StreamIdle
	case relay.Lifetime:
		return outcome.MaxLifetime
	case relay.GoingAway:
		return outcome.Draining
	}
	x.cause = res.Err
	switch {
	case res.Broke == relay.Nobody:
		return outcome.OK
	case expired:
		return x.expired(outcome.StreamIdle)
	case res.Broke == relay.Downstream:
		return outcome.DownstreamGone
	}
	return outcome.UpstreamReset
}

// tunnelled is a tunnel with the request that opened it, or a TCP connection.
type tunnelled struct {
	relay *relay.Relay
	leg   relay.Leg      // downstream
	asked *authz.Request // that opened it, in memory of its own; nil for TCP
}

// tunnels are those of a session: one on an HTTP/1.1 connection, any number on
// one of HTTP/2.
type tunnels struct {
	mu      sync.Mutex
	open    map[*tunnelled]struct{}
	leaving bool // WebSockets are closed
}

func (t *tunnels) add(n *tunnelled) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = make(map[*tunnelled]struct{}, 1)
	}
	t.open[n] = struct{}{}
	if t.leaving {
		n.relay.GoAway()
	}
}

// remove is called before the legs are anybody else's.
func (t *tunnels) any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open) > 0
}

func (t *tunnels) remove(n *tunnelled) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, n)
}

// GoAway has the session's WebSockets closed in order, those too that are opened
// from now on.
func (s *Session) GoAway() {
	t := &s.tunnels
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leaving {
		return
	}
	t.leaving = true
	for n := range t.open {
		n.relay.GoAway()
	}
}

// Recheck ends the session's tunnels that p would not allow to be opened now.
// Other exchanges on the same connection go on.
func (s *Session) Recheck(p *authz.Policy) (ended int) {
	s.rules.Store(nil) // an idle session keeps no old policy
	s.tunnels.mu.Lock()
	defer s.tunnels.mu.Unlock()
	for t := range s.tunnels.open {
		if s.asks(t, p).Refuse(0) {
			t.leg.Expire()
			ended++
		}
	}
	return ended
}
