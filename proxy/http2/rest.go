package http2

import "time"

// askRestLocked has the goroutine that reads an idle server's connection leave
// it: its stack is most of what such a connection holds.
func (c *conn) askRestLocked() {
	if c.cfg.Rests && !c.restAsked && !c.rests && c.writer == writerNone {
		c.restAsked = true
		_ = c.w.Socket().SetReadDeadline(time.Unix(1, 0))
	}
}

// stayLocked takes that back, for something has come.
func (c *conn) stayLocked() {
	if c.rests = false; c.restAsked {
		c.restAsked = false
		c.w.KeepReading()
	}
}

// leaving is what a reader does whose read has failed.
type leaving uint8

const (
	fails leaving = iota // the connection has ended
	stays                // it was asked to leave, but has to do something
	leaves
)

// leave says whether the failure of a read was but a request to leave.
func (c *conn) leave() leaving {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.restAsked || c.ending || c.dead != nil || c.w.Expired() {
		return fails
	}
	c.stayLocked()
	if len(c.w.Buffered()) > 0 || c.blockID != 0 || c.open > 0 || c.running > 0 || len(c.pend) > 0 || c.writer != writerNone {
		return stays
	}
	c.rests = true
	c.standUpLocked()
	return leaves
}

// desk is what a connection works with while it does not rest. It is not kept for
// the next: where many connections go to rest, few begin.
type desk struct {
	// The goroutine that reads owns these.
	dec     decoder
	in      section
	emit    func(name, value []byte) // in.field, bound once
	known   func(*entry)             // in.entry, too
	block   []byte                   // of HEADERS and the CONTINUATION frames behind it
	pieces  int                      // frames in block
	blockID uint32                   // 0: no section is incomplete
	blockFl uint8
	fresh   []*Stream
	wakes   []chan struct{}

	// Under the connection's lock.
	enc      encoder
	lines    []line
	lower    []byte
	idle     []*worker
	ready    queue      // streams with data that may be sent
	canceled []canceled // owners to be told
	spare    []byte     // memory for conn.pend
	withheld int64      // not given back because too much waits to be read
	buffered int64      // bytes that wait to be read
}

// laidBy is what a connection at rest keeps of its desk.
type laidBy struct {
	fields    []byte // of the decoder's table, which the peer counts on
	decLimit  uint16 // at most tableSize
	encLimit  uint16
	encResize bool // the next section has to tell the peer's decoder what is
}

// sitDown takes a desk. Nobody else may know the connection, or its lock is held. It
// returns an error if what was laid by is not understood, which cannot be.
func (c *conn) sitDown() error {
	d := new(desk)
	d.in.conn = c
	d.emit, d.known = d.in.field, d.in.entry
	k := &c.laid
	d.dec.limit, d.enc.limit, d.enc.resize = int(k.decLimit), int(k.encLimit), k.encResize
	c.desk, c.streams = d, make(map[uint32]*Stream)
	if c.closed == nil {
		c.closed = new(closedStreams)
	}
	fields := k.fields
	k.fields = nil
	return d.dec.section(fields, func([]byte, []byte) {}, nil)
}

// standUpLocked gives up what a connection at rest does not need. There is no stream,
// no writer and nothing to be written. The goroutine that reads calls it.
//
// The encoder's table is emptied: without what it remembers of the fields it would
// not find them again. The next section says so.
func (c *conn) standUpLocked() {
	c.dismissLocked()
	c.giveBack()
	c.laid = laidBy{c.dec.asSection(), uint16(c.dec.limit), uint16(c.enc.limit), c.enc.resize || c.enc.count > 0}
	c.desk, c.streams, c.kick = nil, nil, nil
	if !c.closed.anyReset() {
		c.closed = nil
	}
}

// anyReset reports whether a stream was reset, so that frames may yet cross that.
// Those that ended in order need not be remembered for long.
func (k *closedStreams) anyReset() bool {
	for _, s := range k {
		if s&1 != 0 {
			return true
		}
	}
	return false
}
