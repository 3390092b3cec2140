package exchange

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/detect"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/relay"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Destination is what lessons about protocols are remembered for.
type Destination struct {
	Direction telemetry.Direction
	Cluster   string
}

// Detection is one downstream connection of which it must be found out what it
// speaks, and what it is carried as from then on. The downstream alone is
// waited for at first, and then an endpoint as well: whichever speaks first
// decides.
type Detection struct {
	srv    *Server
	conn   *wire.Conn
	peer   Peer
	source *atomic.Pointer[plan.Listener]
	t      *tcpExchange // what carries the connection unless it is HTTP
	ahead  ahead

	// What others may ask for while the connection is served.
	begun   atomic.Bool   // the downstream has sent something
	found   atomic.Uint32 // the kind and one; 0 before it is known
	session atomic.Pointer[Session]
}

// NewDetection returns the detection of an accepted connection. source holds
// the listener as the plan in force has it.
func (s *Server) NewDetection(conn *wire.Conn, peer Peer, source *atomic.Pointer[plan.Listener]) *Detection {
	return &Detection{srv: s, conn: conn, peer: peer, source: source, t: s.newTCP(relay.Conn(conn), peer, source)}
}

// Found returns what the connection speaks; ok is false before it is known.
func (d *Detection) Found() (k detect.Kind, ok bool) {
	n := d.found.Load()
	return detect.Kind(max(n, 1) - 1), n > 0
}

// Idle reports whether nothing has come from the downstream yet.
func (d *Detection) Idle() bool { return !d.begun.Load() && d.found.Load() == 0 }

// Session returns what carries a connection that speaks HTTP, else nil.
func (d *Detection) Session() *Session { return d.session.Load() }

// spoken are the words of telemetry for what was found.
var spoken = [...]telemetry.Spoken{
	detect.Opaque: telemetry.SpokenTCP, detect.HTTP1: telemetry.SpokenHTTP1, detect.HTTP2: telemetry.SpokenHTTP2, detect.TLS: telemetry.SpokenTLS,
}

// Serve finds out what the connection speaks and carries it to its end, or until
// it rests as a session. It does not close it.
func (d *Detection) Serve() (resting bool) {
	defer d.settle()
	kind, by, ok := d.decide()
	if !ok {
		return false
	}
	d.found.Store(uint32(kind) + 1)
	if m := d.t.l.Metrics; m != nil {
		m.Speaks(spoken[kind], by)
	}
	if !kind.HTTP() {
		d.carry(kind)
		return false
	}
	// The connection to an endpoint has not been written to, and one without
	// ALPN may serve HTTP/1.1.
	d.dismiss(kind == detect.HTTP1)
	d.conn.SetExact(time.Time{})
	peer := d.peer
	s := d.srv.NewSession(d.conn, &peer, d.source)
	d.session.Store(s)
	return s.Serve()
}

// decide waits until it is known what the connection speaks, and how; ok is
// false when it has ended before.
func (d *Detection) decide() (k detect.Kind, by telemetry.FoundBy, ok bool) {
	l, key := d.t.l, Destination{d.t.l.Direction, d.t.cl.Name()}
	lesson, known := d.srv.Lessons.Lookup(key, d.t.start)
	w := waits{l: l, start: time.Now(), clientFirst: known && !lesson.ServerFirst, http: known && lesson.Client.HTTP()}
	w.ask = w.start.Add(l.DetectWait)
	switch {
	case lesson.ServerFirst:
		w.ask = w.start
	case w.clientFirst:
		w.ask = w.start.Add(max(l.DetectWait, detect.Patience))
	}
	for {
		if b := d.conn.Buffered(); len(b) > w.seen {
			d.begun.Store(true)
			kind, more := detect.Classify(b)
			if !more {
				d.srv.Lessons.Learn(key, detect.Lesson{Client: kind}, d.srv.Sweeper.Now())
				return kind, telemetry.FoundDetected, true
			}
			w.saw(len(b), time.Now())
		}
		d.conn.SetExact(w.next())
		if heard, learn := d.ahead.word(); heard {
			switch {
			case learn && lesson.ServerFirst:
				by = telemetry.FoundRemembered
			case d.ahead.reason == outcome.OK:
				by = telemetry.FoundServerFirst
			default:
				by = telemetry.FoundTimeout // there is no endpoint to hear
			}
			if learn {
				d.srv.Lessons.Learn(key, detect.Lesson{ServerFirst: true}, d.srv.Sweeper.Now())
			}
			return detect.Opaque, by, true
		}
		err := d.conn.Fill()
		switch {
		case err == nil:
		case err == io.EOF:
			// The downstream may still listen. Where HTTP is spoken it was a
			// probe that only connects.
			return detect.Opaque, telemetry.FoundDetected, w.seen > 0 || !w.clientFirst || !w.http
		case !errors.Is(err, wire.ErrExpired) || d.conn.Expired():
			return detect.Opaque, by, false
		case w.over(time.Now()):
			return detect.Opaque, telemetry.FoundTimeout, true
		case w.asks(time.Now()):
			w.refused = !d.dial()
		}
	}
}

// carry relays a connection that is not HTTP.
func (d *Detection) carry(kind detect.Kind) {
	called := d.ahead.need()
	d.conn.SetExact(time.Time{})
	d.current()
	t := d.t
	if kind == detect.TLS {
		var h detect.Hello
		if detect.ReadHello(d.conn.Buffered(), &h) {
			t.rec.Authority, t.rec.ALPN = h.ServerName(), h.Protocols()
		}
		t.rec.Protocol = kind.String()
	}
	if !called || d.ahead.t != t {
		t.serve(t.connect)
		return
	}
	t.serve(func() (upstream.Leg, outcome.Reason) {
		up, reason, err := d.ahead.take()
		if err != nil {
			t.cause = err
		}
		return up, reason
	})
}

// dial starts to call an endpoint, unless the rules or a rate limit refuse
// that; then false.
func (d *Detection) dial() bool {
	d.current()
	if p := d.t.l.Route.Authz; p != nil && p.CheckConn(d.peer.ID).Refuse(d.t.tried.Draw) {
		return false
	}
	if d.t.overRate() {
		return false
	}
	d.ahead.t, d.ahead.done = d.t, make(chan struct{})
	go func() {
		defer close(d.ahead.done)
		d.ahead.run(d.conn)
	}()
	return true
}

// current has the connection carried as the plan in force says, which may have
// changed while nobody spoke.
func (d *Detection) current() {
	l := d.source.Load()
	if l.Route.Cluster != d.t.cl {
		start := d.t.start
		d.t = d.srv.newTCP(d.t.down, d.peer, d.source)
		d.t.start = start
		return
	}
	d.t.l, d.t.pol = l, d.t.cl.Policy()
}

// dismiss gives the connection back, to be used for HTTP/1.1 if keep is set.
// One that is still being made is given back once it is there.
func (d *Detection) dismiss(keep bool) {
	a := &d.ahead
	a.mu.Lock()
	if !a.decide() {
		a.mu.Unlock()
		return
	}
	a.useless, a.keep = true, keep
	if a.finished {
		a.giveBack()
	}
	soon := a.has()
	a.mu.Unlock()
	if soon {
		<-a.done
	}
}

// settle waits for what was started.
func (d *Detection) settle() {
	d.dismiss(false)
	if d.ahead.t != nil {
		<-d.ahead.done
	}
}
