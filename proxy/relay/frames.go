package relay

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/websocket"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// Closed is why a relay had a WebSocket closed.
type Closed uint8

// The reasons.
const (
	NotClosed  Closed = iota // it did not
	ByPeers                  // both sides have sent their close frame
	Idle                     // nothing moved for the idle time
	Lifetime                 // it was as old as one may become
	GoingAway                // Relay.GoAway
	stillGoing               // neither side has been asked
)

var closedReason = [...]string{Idle: "idle", Lifetime: "maximum lifetime", GoingAway: "going away"}

// answerTime is how long each side may take to answer a close frame.
const answerTime = 3 * time.Second

// frames follows the frames of one direction. What is sent in it is sent under
// its lock, so that a close frame gets between two frames.
type frames struct {
	mu       sync.Mutex
	follower websocket.Follower
	said     bool        // a close frame has been sent, the source's or ours
	ours     bool        // it was ours: nothing may follow
	ended    bool        // the direction has ended
	due      atomic.Bool // a close frame is to be sent as soon as there is room
	heard    atomic.Bool // the source has sent its close frame
}

// closing ends a WebSocket with close frames (RFC 6455 section 7.1.2): at its
// time, or when it is told to. The client is asked first, and what it sends until
// its answer still goes on; the answer, passed on, asks the server. A client that
// does not answer is not waited for. Its timer's goroutine sends what nobody else
// is there to send.
type closing struct {
	cfg   websocket.Config
	moved atomic.Int64 // when a byte moved last
	dies  time.Duration
	done  atomic.Bool // both sides have sent their close frame

	mu      sync.Mutex
	timer   *time.Timer
	running sync.WaitGroup // a timer that is set, and what it runs
	over    bool
	why     Closed
	away    bool // GoAway was called
	asked   bool // the server has been sent a close frame
}

// begin sets the timer for the first time.
func (r *Relay) begin() {
	c := r.closing
	c.moved.Store(int64(r.o.Now()))
	if d := c.cfg.MaxLifetime; d > 0 {
		c.dies = r.o.Now() + d - d/10 + rand.N(d/5+1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = stillGoing
	if wait, any := r.wait(r.o.Now()); c.away || any {
		if c.away {
			wait = 0
		}
		r.set(wait)
	}
}

// wait is how long the WebSocket may go on if nothing moves.
func (r *Relay) wait(now time.Duration) (d time.Duration, any bool) {
	c := r.closing
	if c.dies > 0 {
		d, any = c.dies-now, true
	}
	if t := c.cfg.IdleTimeout; t > 0 {
		if idle := time.Duration(c.moved.Load()) + t - now; !any || idle < d {
			d, any = idle, true
		}
	}
	return max(d, 0), any
}

// set has tick run after d. The lock is held.
func (r *Relay) set(d time.Duration) {
	c := r.closing
	if c.over {
		return
	}
	c.running.Add(1)
	switch {
	case c.timer == nil:
		c.timer = time.AfterFunc(d, r.tick)
	case c.timer.Reset(d):
		c.running.Done() // in place of the one that was set
	}
}

// finish waits for what the timer runs, after both directions have ended.
func (r *Relay) finish() Closed {
	c := r.closing
	c.mu.Lock()
	c.over = true
	if c.timer != nil && c.timer.Stop() {
		c.running.Done()
	}
	c.mu.Unlock()
	c.running.Wait()
	if c.why == stillGoing {
		return NotClosed
	}
	return c.why
}

// GoAway has a WebSocket closed in order, with close frames to both sides. It
// does nothing for other relays, and does not wait.
func (r *Relay) GoAway() {
	c := r.closing
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.away {
		c.away = true
		if c.why == stillGoing {
			r.set(0)
		}
	}
}

// tick does what is due.
func (r *Relay) tick() {
	c := r.closing
	defer c.running.Done()
	c.mu.Lock()
	now := r.o.Now()
	switch {
	case c.over, c.why == ByPeers:
		c.mu.Unlock()
	case c.why == stillGoing:
		wait, any := r.wait(now)
		switch {
		case c.away:
			c.why = GoingAway
		case any && wait > 0:
			r.set(wait)
			c.mu.Unlock()
			return
		case c.dies > 0 && now >= c.dies:
			c.why = Lifetime
		default:
			c.why = Idle
		}
		r.limit(now)
		r.set(answerTime)
		c.mu.Unlock()
		if !r.ways[0].frames.heard.Load() { // else the peers are at it
			r.ways[1].say()
		}
	case !c.asked:
		c.asked = true
		c.mu.Unlock()
		r.ways[0].say()
	default:
		c.mu.Unlock()
	}
}

// limit bounds what is left once the WebSocket is being closed.
func (r *Relay) limit(now time.Duration) {
	r.down.SetDeadline(now + 2*answerTime)
	r.up.SetDeadline(now + 2*answerTime)
}

// say sends a close frame, or has whoever is sending do it, at the end of the
// present frame.
func (w *way) say() {
	w.frames.due.Store(true)
	w.saySoon()
}

// saySoon sends a close frame if that is due and possible. Who finds the lock
// held can rely on the holder, who calls this once it is free.
func (w *way) saySoon() {
	f := w.frames
	if !f.due.Load() || !f.mu.TryLock() {
		return
	}
	if !f.said && !f.ended && f.follower.Between() {
		w.sayLocked()
	}
	f.mu.Unlock()
}

// sayLocked sends the close frame, which is masked on its way to the server. A
// failure is for the direction that reads from dst to see.
func (w *way) sayLocked() {
	var key *[4]byte
	if w.from == Downstream {
		key = new([4]byte)
		binary.NativeEndian.PutUint32(key[:], rand.Uint32())
	}
	w.frames.said, w.frames.ours = true, true
	_ = w.dst.Put(websocket.AppendClose(nil, websocket.GoingAway, closedReason[w.r.closing.why], key))
}

// putFrames is put where frames are followed.
func (w *way) putFrames(b []byte) error {
	err := w.passFrames(b)
	w.saySoon()
	return err
}

func (w *way) passFrames(b []byte) error {
	f := w.frames
	f.mu.Lock()
	defer f.mu.Unlock()
	pass, due := len(b), false
	if f.ours {
		pass = 0
	}
	for n := 0; n < len(b); {
		k, op, ended := f.follower.Next(b[n:])
		n += k
		if ended && op == websocket.Close {
			f.heard.Store(true)
			f.said = true
		}
		if ended && !f.said && f.due.Load() {
			pass, due, f.said = n, true, true
		}
	}
	if pass > 0 {
		if err := w.dst.Put(b[:pass]); err != nil {
			return err
		}
	}
	w.count.Add(uint64(pass))
	if due {
		w.sayLocked()
	}
	w.r.answered()
	return nil
}

// answered notes when both sides have sent their close frame. Whoever of them
// does not end its connection then is not waited for long.
func (r *Relay) answered() {
	c := r.closing
	if !r.ways[0].frames.heard.Load() || !r.ways[1].frames.heard.Load() || c.done.Swap(true) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == stillGoing {
		c.why = ByPeers
		r.limit(r.o.Now())
	}
}

// over reports whether the direction has nothing left to do because a WebSocket
// was closed from here, and both sides have answered.
func (w *way) over() bool {
	c := w.r.closing
	return c != nil && c.done.Load() && c.fromHere()
}

// fromHere reports whether the WebSocket is being closed from here.
func (c *closing) fromHere() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why != stillGoing && c.why != ByPeers
}

// finished reports whether src, which has failed with err, had ended in order
// before: whole, or by saying goodbye, or being told to. Many a WebSocket's peer
// then resets its stream or connection.
func (w *way) finished(err error, whole bool) bool {
	f := w.frames
	return whole || f != nil && !errors.Is(err, wire.ErrExpired) && (f.heard.Load() || w.r.closing.fromHere())
}

// hurry bounds what is left to do for a WebSocket of which one side has gone.
func (r *Relay) hurry() {
	if r.closing != nil {
		r.limit(r.o.Now())
	}
}

// end ends the direction. A source that has gone without a close frame while the
// WebSocket is being closed leaves that to be said.
func (w *way) end() error {
	if f := w.frames; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.said && f.follower.Between() && w.r.closing.fromHere() {
			w.sayLocked()
		}
		f.ended = true
	}
	return w.dst.End()
}
