package http2

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// conn is what both sides of a connection have in common.
type conn struct {
	w      *wire.Conn
	cfg    *Config // filled, and perhaps of many connections
	client bool
	handle func(*Stream) // servers

	*desk // nil while the connection rests
	laid  laidBy

	// The goroutine that reads owns these.
	greeted       bool        // the preface has come, or none is expected
	settled       bool        // the first SETTINGS have come
	heardSettings atomic.Bool // the peer's first SETTINGS are in force
	credit        [Floods]int32
	ticked        [Floods]uint32 // of watch.ticks, what has been earned
	frames        atomic.Uint64  // received; the sweeper looks whether it moves

	// mu guards all below and the streams' state.
	mu      sync.Mutex
	streams map[uint32]*Stream
	open    int // streams in use: reserved by Open, or opened by the peer
	running int // handlers of a server that have not returned
	opened  uint64
	lastID  atomic.Uint32 // the highest stream that the peer opened, or that was opened to it
	closed  *closedStreams

	err         error // why no stream may be opened anymore
	dead        *Error
	drain       drainState
	ending      bool   // Serve returns when it is woken
	lastSaid    uint32 // the last stream that a GOAWAY of ours allows
	lastHeard   uint32 // the last stream that the peer's GOAWAY allows
	handled     sync.WaitGroup
	pend        []byte // frames to be written
	handed      uint64 // bytes given to the socket, or being given
	writer      writerState
	writerRests bool // it ends when nothing is pending, and comes back when needed
	kicked      bool // the writer has been told
	flushing    bool // it is at work
	quit        bool // the writer ends when nothing is pending
	// The reader is asked to leave the connection, and has left it.
	restAsked, rests bool
	kick             chan struct{} // nil before there is a writer, and at rest
	writerDone       chan struct{} // closed when it has ended, after quit

	sendLeft   int64 // the peer's window for the connection
	recvLeft   int64 // ours for the peer
	owed       int64 // to be given back to it
	peerWindow int64 // of a new stream
	peerLimit  uint32
	peerSpeaks bool // extended CONNECT
	ackedOwn   bool // our SETTINGS are acknowledged

	settling chan struct{} // closed when settled or dead; nil while nobody waits
	watch    watch
}

// canceled is a stream whose owner is to be told of its end before its time.
type canceled struct {
	s   *Stream
	gen uint32
}

// closedStream remembers how a stream ended, so that what still arrives for it
// can be told from an error: its number, which is odd, plus one, and in the
// lowest bit whether we reset it. Frames that crossed a reset are no fault.
type closedStream uint32

const closedKept = 128 // a power of two

// closedStreams are those that ended last, by number.
type closedStreams [closedKept]closedStream

func newConn(w *wire.Conn, cfg *Config, client bool) *conn {
	c := &conn{w: w, cfg: cfg.Filled(), client: client}
	c.laid.decLimit, c.laid.encLimit = tableSize, tableSize
	c.sendLeft, c.recvLeft, c.peerWindow = initialWindow, int64(c.cfg.ConnWindow), initialWindow
	c.lastSaid, c.lastHeard = maxStreamID, maxStreamID
	c.peerLimit = math.MaxUint32
	if client {
		c.peerLimit = assumedLimit
		c.greeted = true
	}
	for k := range c.credit {
		c.credit[k] = int32(c.cfg.FloodFrames)
	}
	_ = c.sitDown() // nothing is laid by
	c.pend = c.hello()
	return c
}

// assumedLimit is how many streams a client opens before it knows the peer's
// limit. RFC 9113 section 6.5.2 knows none but recommends this as the least.
const assumedLimit = 100

// hello is what is sent first.
func (c *conn) hello() []byte {
	b := wire.GetLarge()[:0]
	if c.client {
		b = append(b, preface...)
	}
	at := len(b)
	b = appendFrameHead(b, 0, frameSettings, 0, 0)
	if c.client {
		b = appendSetting(b, settingEnablePush, 0)
	} else {
		b = appendSetting(b, settingMaxStreams, uint32(c.cfg.Streams))
		if c.cfg.ExtendedConnect {
			b = appendSetting(b, settingConnectProtocol, 1)
		}
	}
	b = appendSetting(b, settingInitialWindow, uint32(c.cfg.Window))
	b = appendSetting(b, settingMaxHeaderList, uint32(min(c.cfg.HeaderBytes, math.MaxInt32)))
	putLength(b[at:], len(b)-at-frameHead)
	if more := c.cfg.ConnWindow - initialWindow; more > 0 {
		b = appendWord(b, frameWindowUpdate, 0, 0, uint32(more))
	}
	return b
}

// run reads until the connection ends, and then waits for all that it started.
func (c *conn) run() error {
	c.mu.Lock()
	begins := c.writer == writerUnborn
	if begins {
		c.writer = writerNone
		c.kickLocked()
	}
	if c.desk == nil { // after a rest
		if err := c.sitDown(); err != nil {
			c.failLocked(&Error{Code: CompressionError, Cause: err})
		}
	}
	c.mu.Unlock()
	if begins {
		c.cfg.Sweeper.add(c)
	}
	err := c.readLoop()
	if err == wire.ErrResting {
		return err
	}
	err = c.finish(err)
	c.cfg.Sweeper.remove(c)
	return err
}

// remember notes how the stream ended that has just been taken out of streams.
func (c *conn) remember(id uint32, reset bool) {
	k := closedStream(id + 1)
	if reset {
		k |= 1
	}
	c.closed[id>>1%closedKept] = k
}

// fate says whether a stream that is not open is known to have been, and whether
// we reset it.
func (c *conn) fate(id uint32) (known, reset bool) {
	k := c.closed[id>>1%closedKept]
	return uint32(k&^1) == id+1, k&1 != 0
}

// wakeLater notes a goroutine to be woken when all that has been read is
// understood, so that it finds all of it.
func (c *conn) wakeLater(ch chan struct{}) { c.wakes = append(c.wakes, ch) }

func (c *conn) noteCanceled(s *Stream) { c.canceled = append(c.canceled, canceled{s, s.gen.Load()}) }

// callCanceled tells the owners of streams that have failed. No lock may be held.
func (c *conn) callCanceled() {
	for {
		c.mu.Lock()
		n := 0
		if c.desk != nil {
			n = len(c.canceled)
		}
		if n == 0 {
			c.mu.Unlock()
			return
		}
		k := c.canceled[n-1]
		c.canceled[n-1] = canceled{}
		c.canceled = c.canceled[:n-1]
		c.mu.Unlock()
		k.s.canceled(k.gen)
	}
}
