package listener

import (
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Directory is where an intercepting Listener hands connections to: what the
// plan says, with the Listeners of that plan by their places in it.
type Directory struct {
	Interception *plan.Interception
	Listeners    []*Listener
}

// Direct has the Listener hand intercepted connections on as d says, or with nil
// serve what arrives itself. Connections that were held until there is a plan are
// handed on with the first one.
func (l *Listener) Direct(d *Directory) {
	l.directory.Store(d)
	if d != nil && d.Interception != nil && !d.Interception.Unready {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.directed {
			l.directed = true
			close(l.ready)
		}
	}
}

// virtualAddr is the address of a Listener without a socket.
type virtualAddr struct{}

func (virtualAddr) Network() string { return "tcp" }
func (virtualAddr) String() string  { return "intercepted" }

// arrived is an accepted connection of which it is not decided yet who serves
// it.
type arrived struct {
	wire *wire.Conn
	peer netip.AddrPort
	dst  netip.AddrPort
	only netip.AddrPort // the endpoint that is meant; the zero value leaves the choice
}

// intercept decides about a connection that the kernel has brought here. It is
// called by the goroutine that accepts.
func (l *Listener) intercept(sock wire.Socket, d *Directory) {
	m := l.Plan().Metrics
	m.Connections.Inc()
	w, err := wire.New(sock, l.srv.Sweeper)
	if err != nil {
		_ = sock.Close()
		return
	}
	a := arrived{wire: w, peer: w.RemoteAddr()}
	own := w.LocalAddr()
	if d.Interception.Socket {
		a.dst = own
	} else {
		dst, known := l.originals.Of(w, a.peer)
		if a.dst = dst; !known {
			m.Intercept(telemetry.InterceptedLost)
			reset(w)
			return
		}
	}
	if a.dst == own && !d.Interception.Socket || a.dst == l.bound || d.Interception.OwnAddress(a.dst) {
		m.Intercept(telemetry.InterceptedLoop)
		l.loops.say(l.log, l.Plan().Name, a)
		reset(w)
		return
	}
	if d.Interception.Unready {
		l.early(a, d.Interception)
		return
	}
	l.route(a)
}

// byPort decides about a connection that may have been going to another port of
// the application. It is called by the goroutine that accepts.
func (l *Listener) byPort(sock wire.Socket, p *plan.Listener) {
	m := p.Metrics
	w, err := wire.New(sock, l.srv.Sweeper)
	if err != nil {
		_ = sock.Close()
		return
	}
	a := arrived{wire: w, peer: w.RemoteAddr()}
	own, known := w.LocalAddr(), true
	if p.Ports.Socket {
		a.dst = own
	} else {
		a.dst, known = l.originals.Of(w, a.peer)
	}
	what := telemetry.InterceptedService
	switch {
	case !known || a.dst == own && own.Port() == l.bound.Port():
		a.dst = netip.AddrPort{} // it was not redirected
		if !l.take(a) {
			m.Refused.Inc()
			reset(w)
		}
		return
	case a.dst.Port() == p.Ports.Service || a.dst.Port() == l.bound.Port() || p.Ports.All:
		if l.take(a) {
			m.Intercept(what)
			return
		}
	case p.Ports.Others != nil:
		what = telemetry.InterceptedPassthrough
		if d := l.directory.Load(); d != nil && d.Listeners[p.Ports.Others.Index].take(a) {
			m.Intercept(what)
			return
		}
	default:
		m.Intercept(telemetry.InterceptedRefused)
		reset(w)
		return
	}
	m.Refused.Inc()
	reset(w)
}

// plaintext reports whether the connection may do without mTLS where p permits
// that.
func (c *conn) plaintext(p *plan.Listener) bool {
	return p.Ports == nil || c.peer.Original.IsValid() && c.peer.Original.Port() == p.Ports.Service
}

// route hands a on to the Listener that is found at its destination.
func (l *Listener) route(a arrived) {
	m := l.Plan().Metrics
	// Once more where the plan changes meanwhile and the first one is gone.
	for range 2 {
		d := l.directory.Load()
		if d == nil {
			break // the socket serves something else from now on
		}
		p, what := d.Interception.Find(a.dst), telemetry.InterceptedVirtual
		if p == nil {
			p, a.only = d.Interception.Instance(a.dst)
			what = telemetry.InterceptedDirect
		}
		if p == nil {
			p, what = d.Interception.Unknown, telemetry.InterceptedPassthrough
		}
		if p == nil {
			m.Intercept(telemetry.InterceptedRefused)
			reset(a.wire)
			return
		}
		if d.Listeners[p.Index].take(a) {
			m.Intercept(what)
			return
		}
		if l.directory.Load() == d {
			break
		}
	}
	m.Refused.Inc()
	reset(a.wire)
}

// early decides about a connection that comes before the first plan.
func (l *Listener) early(a arrived, i *plan.Interception) {
	m := l.Plan().Metrics
	switch {
	case i.Early == plan.EarlyRefuse:
		m.Intercept(telemetry.EarlyRefused)
		reset(a.wire)
	case i.Early == plan.EarlyAllow:
		if d := l.directory.Load(); d != nil && i.Unknown != nil && d.Listeners[i.Unknown.Index].take(a) {
			m.Intercept(telemetry.EarlyPassthrough)
			return
		}
		m.Intercept(telemetry.EarlyRefused)
		reset(a.wire)
	case l.srv.Memory.At(memory.Refuse) || !l.keep(i.MaxHeld):
		m.Intercept(telemetry.HoldFull)
		reset(a.wire)
	default:
		m.Held.Inc()
		go l.hold(a, i.HoldTime)
	}
}

// keep counts one more connection that is held, unless there are most.
func (l *Listener) keep(most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.held >= most {
		return false
	}
	l.held++
	l.wg.Add(1)
	return true
}

// hold keeps a until there is a plan.
func (l *Listener) hold(a arrived, most time.Duration) {
	defer l.wg.Done()
	end := time.NewTimer(most)
	defer end.Stop()
	ready := false
	select {
	case <-l.ready:
		ready = true
	case <-end.C:
		l.Plan().Metrics.Intercept(telemetry.HoldExpired)
	case <-l.accept:
		l.Plan().Metrics.Intercept(telemetry.EarlyRefused)
	}
	l.mu.Lock()
	l.held--
	l.mu.Unlock()
	if ready {
		l.route(a)
		return
	}
	reset(a.wire)
}

// reset ends a connection that nobody serves.
func reset(w *wire.Conn) {
	w.ResetOnClose()
	_ = w.Close()
}
