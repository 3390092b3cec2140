package exchange

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/detect"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// ahead is a connection to an endpoint that is made before it is known what
// for.
type ahead struct {
	t    *tcpExchange // made it; nil before there is one
	done chan struct{}

	mu       sync.Mutex
	decided  bool // nobody waits for a word any more
	useless  bool // and nobody needs the connection
	keep     bool // but HTTP/1.1 may
	finished bool // whoever decides now has the connection
	heard    bool // the endpoint has spoken or ended, or there is none
	learn    bool // and it speaks a protocol in which it does so first
	up       upstream.Leg
	reason   outcome.Reason
	err      error // of the first read
}

// run makes the connection, waits for a first word, and then wakes the reader
// of down.
func (a *ahead) run(down *wire.Conn) {
	up, reason := a.t.connect()
	a.mu.Lock()
	a.up, a.reason = up, reason
	silent := reason != outcome.OK || a.decided
	a.mu.Unlock()
	var word []byte
	var err error
	if !silent {
		word, err = a.listen(up)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	switch {
	case reason != outcome.OK:
		a.heard = true
	case silent || errors.Is(err, wire.ErrExpired) || err == http2.ErrInterrupted:
	case err != nil:
		e, ok := errors.AsType[*http2.Error](err)
		a.heard = !ok || e.Code != noTCP // where only HTTP is taken, the client speaks first
		if err != io.EOF {
			a.err = err
		}
	default:
		k := detect.ServerKind(word)
		a.learn = k == detect.Opaque
		a.heard = k != detect.HTTP2 // else the client goes on to speak first
	}
	switch {
	case a.useless:
		a.giveBack()
	case a.heard && !a.decided:
		down.SetExact(passed())
	}
}

// listen waits for the first bytes from an endpoint and leaves them where they
// are.
func (a *ahead) listen(up upstream.Leg) ([]byte, error) {
	if up.Stream == nil {
		err := up.Conn.Fill()
		return up.Conn.Buffered(), err
	}
	if err := a.t.announce(up.Stream); err != nil {
		return nil, err
	}
	return up.Stream.Peek()
}

// hush makes listen return at once, and with on unset the leg fit for use.
func hush(up upstream.Leg, on bool) {
	switch {
	case up.Stream != nil:
		up.Stream.Interrupt(on)
	case on:
		up.Conn.SetExact(passed())
	default:
		up.Conn.SetExact(time.Time{})
	}
}

func (a *ahead) has() bool { return a.up.Conn != nil || a.up.Stream != nil }

// passed is a time that ends a wait at once.
func passed() time.Time { return time.Unix(1, 0) }

// word reports whether the endpoint has been heard, and whether that is to be
// remembered.
func (a *ahead) word() (heard, learn bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heard, a.learn
}

// decide ends the wait for a word. It reports false when no endpoint was
// called.
func (a *ahead) decide() bool {
	if a.t == nil {
		return false
	}
	a.decided = true
	if a.has() && !a.finished {
		hush(a.up, true)
	}
	return true
}

// need waits for the connection, to be had by take. It reports false when no
// endpoint was called.
func (a *ahead) need() bool {
	a.mu.Lock()
	called := a.decide()
	a.mu.Unlock()
	if called {
		<-a.done
	}
	return called
}

// take returns the connection.
func (a *ahead) take() (upstream.Leg, outcome.Reason, error) {
	if !a.has() {
		return upstream.Leg{}, a.reason, nil
	}
	if a.err != nil {
		return upstream.Leg{}, outcome.UpstreamReset, a.err
	}
	up := a.up
	a.up = upstream.Leg{}
	hush(up, false)
	return up, outcome.OK, nil
}

// giveBack is called with a.mu held.
func (a *ahead) giveBack() {
	if !a.has() {
		return
	}
	up := a.up
	a.up = upstream.Leg{}
	a.t.tried.Vacate()
	if up.Stream != nil {
		up.Stream.Close()
		return
	}
	hush(up, false)
	if a.keep && !a.heard && len(up.Conn.Buffered()) == 0 {
		a.t.ep.Put(up.Conn, a.t.srv.Sweeper.Now())
		return
	}
	a.t.ep.Drop(up.Conn)
}

// waits is how long is waited for what.
type waits struct {
	l           *plan.Listener
	start       time.Time
	ask         time.Time // when an endpoint is called
	asked       bool
	refused     bool // no endpoint may be called
	seen        int  // bytes from the downstream
	first, last time.Time
	clientFirst bool // downstreams of the destination have spoken first before
	http        bool // and it was HTTP
}

// saw notes that the downstream has sent n bytes so far.
func (w *waits) saw(n int, now time.Time) {
	if w.seen == 0 {
		w.first = now
	}
	w.seen, w.last = n, now
}

// end is when nothing more is waited for; zero means never.
func (w *waits) end() time.Time {
	head := w.l.HTTP.HeadTimeout
	switch {
	case w.seen == 0 && w.refused:
		return w.start.Add(max(head, detect.Patience))
	case w.seen == 0 && w.l.HTTP.IdleTimeout == 0:
		return time.Time{}
	case w.seen == 0:
		return w.start.Add(w.l.HTTP.IdleTimeout)
	}
	end := w.first.Add(max(head, detect.Patience))
	if pause := w.last.Add(detect.Patience); !w.http && pause.Before(end) {
		return pause
	}
	return end
}

func (w *waits) over(now time.Time) bool {
	end := w.end()
	return !end.IsZero() && !now.Before(end)
}

// next is the time of the next decision.
func (w *waits) next() time.Time {
	end := w.end()
	if w.asked || !end.IsZero() && end.Before(w.ask) {
		return end
	}
	return w.ask
}

// asks reports whether an endpoint is to be called now.
func (w *waits) asks(now time.Time) bool {
	if w.asked || now.Before(w.ask) {
		return false
	}
	w.asked = true
	return true
}
