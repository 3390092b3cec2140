package outcomes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Record is one record of a log. Exchange and Attempts, or Event, are valid until
// the next one is read; their texts stay.
type Record struct {
	Exchange *Exchange // nil for an event
	Attempts []Attempt
	Event    *Event
	// Epoch tells processes apart: times of one are on one clock.
	Epoch uint64
	// Wall is the time of day of the record's At, as far as the process knew.
	Wall time.Time
}

// Damage is what could not be read.
type Damage struct {
	Blocks  int   `json:"blocks"`  // that are damaged or cut off
	Bytes   int64 `json:"bytes"`   // that were skipped
	Dropped int64 `json:"dropped"` // records that had not been written, by the log's own account
}

// Any reports whether something is missing.
func (d Damage) Any() bool { return d != Damage{} }

// ErrNewer is returned for what a newer version of the program has written.
var ErrNewer = errors.New("it was written by a newer version of outrigger; use that one to read it")

// ErrNoLog is returned for a file that does not hold outcomes at all.
var ErrNoLog = errors.New("it is no outcome log: nothing of one is in it")

// Reader reads the records of one file. What is damaged is skipped and counted.
type Reader struct {
	rest   []byte
	names  map[string]string // texts seen, so that equal ones share memory
	damage Damage
	blocks int

	in       decoder // of the present block
	left     uint64
	epoch    uint64
	wall     time.Time
	now      time.Duration
	prev     time.Duration
	texts    []string
	exchange Exchange
	attempts [MaxAttempts]Attempt
	event    Event
}

// NewReader returns a reader of the bytes of a file, which it refers to.
func NewReader(file []byte) *Reader {
	return &Reader{rest: file, names: map[string]string{}}
}

// Next reads another file with what is known of the texts of the one before.
func (r *Reader) Open(file []byte) {
	r.rest, r.blocks, r.left, r.in = file, 0, 0, decoder{}
}

// Damage returns what was missing so far.
func (r *Reader) Damage() Damage { return r.damage }

// Read returns the next record, and io.EOF after the last.
func (r *Reader) Read() (Record, error) {
	for {
		for r.left == 0 {
			if err := r.block(); err != nil {
				return Record{}, err
			}
		}
		r.left--
		rec := Record{Epoch: r.epoch}
		head := r.in.byte()
		if head&recEvent != 0 {
			r.readEvent(head)
			rec.Event = &r.event
			rec.Wall = r.wall.Add(r.event.At - r.now)
		} else {
			n := r.readExchange(head)
			rec.Exchange, rec.Attempts = &r.exchange, r.attempts[:n]
			rec.Wall = r.wall.Add(r.exchange.At - r.now)
		}
		if !r.in.bad {
			return rec, nil
		}
		// Its checksum is right and yet it cannot be read.
		r.damage.Blocks++
		r.damage.Bytes += int64(len(r.in.b))
		r.left = 0
	}
}

// block goes to the next block that is whole.
func (r *Reader) block() error {
	if len(r.in.b) > 0 && !r.in.bad { // left over behind the last record
		r.damage.Bytes += int64(len(r.in.b))
	}
	r.in = decoder{}
	if r.blocks == 0 && bytes.HasPrefix(r.rest, []byte(fileHead)) && len(r.rest) > len(fileHead) {
		if r.rest[len(fileHead)] > Format {
			return ErrNewer
		}
		r.rest = r.rest[len(fileHead)+1:]
		r.blocks = 1
	}
	for len(r.rest) > 0 {
		at := bytes.Index(r.rest, []byte(blockMark))
		if at < 0 {
			if r.blocks == 0 && !bytes.HasPrefix([]byte(fileHead), r.rest[:min(len(r.rest), len(fileHead))]) {
				return ErrNoLog
			}
			r.damage.Bytes += int64(len(r.rest))
			r.damage.Blocks++
			r.rest = nil
			break
		}
		if at > 0 {
			r.damage.Bytes += int64(at)
			r.damage.Blocks++
			r.rest = r.rest[at:]
		}
		r.blocks++
		payload, ok := whole(r.rest)
		if !ok {
			// What follows may begin within it, so only the mark is passed.
			r.damage.Blocks++
			r.damage.Bytes += int64(len(blockMark))
			r.rest = r.rest[len(blockMark):]
			if at := bytes.Index(r.rest, []byte(blockMark)); at >= 0 {
				r.damage.Bytes += int64(at)
				r.rest = r.rest[at:]
			} else {
				r.damage.Bytes += int64(len(r.rest))
				r.rest = nil
			}
			continue
		}
		r.rest = r.rest[headBytes+len(payload):]
		if payload[0] > Format {
			return ErrNewer
		}
		d := decoder{b: payload[1:]}
		r.epoch = d.fixed()
		r.wall = time.Unix(0, d.signed()).UTC()
		r.now = time.Duration(d.signed())
		dropped := d.number()
		r.left = d.number()
		if d.bad || r.left > uint64(len(d.b)) {
			r.damage.Blocks++
			r.damage.Bytes += int64(headBytes + len(payload))
			r.left = 0
			continue
		}
		r.damage.Dropped += int64(min(dropped, 1<<40))
		r.prev, r.texts, r.in = r.now, r.texts[:0], d
		return nil
	}
	return io.EOF
}

// whole returns the payload of the block at the start of b if all of it is there
// and as it was written.
func whole(b []byte) ([]byte, bool) {
	if len(b) < headBytes {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(b[len(blockMark):])
	if n == 0 || n > maxPayload || int(n) > len(b)-headBytes {
		return nil, false
	}
	payload := b[headBytes : headBytes+int(n)]
	return payload, checksum(payload) == binary.LittleEndian.Uint32(b[len(blockMark)+4:])
}

func (r *Reader) text() string {
	n := r.in.number()
	switch {
	case n < uint64(len(r.texts)):
		return r.texts[n]
	case n > uint64(len(r.texts)):
		r.in.bad = true
		return ""
	}
	b := r.in.take(r.in.number(), maxText)
	s, ok := r.names[string(b)]
	if !ok {
		s = string(b)
		r.names[s] = s
	}
	r.texts = append(r.texts, s)
	return s
}

func (r *Reader) moment() time.Duration {
	r.prev += time.Duration(r.in.signed())
	return r.prev
}

func (r *Reader) readExchange(head byte) int {
	d, x := &r.in, &r.exchange
	*x = Exchange{Marks: Marks(d.byte()), At: r.moment()}
	x.Cluster, x.Route, x.Method = r.text(), r.text(), r.text()
	x.Active = uint32(d.number())
	if x.Status = 200; head&recPlain == 0 {
		x.Reason = d.reason()
		x.Status = uint16(d.number())
	}
	if x.Marks&IsGRPC != 0 {
		x.GRPC = d.byte()
	}
	if x.Marks&Keyed != 0 {
		x.Key = d.fixed()
	}
	if head&recDeadline != 0 {
		x.Deadline = d.duration()
	}
	if head&recRefused != 0 {
		x.Refused = d.duration()
	}
	if head&recWaited != 0 {
		x.Waited = d.duration()
	}
	n := 1
	if x.Attempts = 1; head&recAttempted == 0 {
		x.Attempts = int(d.number() & 0xffff)
		if n = int(d.byte()); n > MaxAttempts {
			d.bad = true
			return 0
		}
	}
	end := time.Duration(0)
	for i := range n {
		end = r.readAttempt(x, &r.attempts[i], end)
	}
	x.Duration = end + time.Duration(d.signed())
	return n
}

func (r *Reader) readAttempt(x *Exchange, a *Attempt, before time.Duration) time.Duration {
	d := &r.in
	head := d.byte()
	*a = Attempt{Marks: AttemptMarks(head & 0x0f), Endpoint: r.text()}
	a.Offset = before + time.Duration(d.signed())
	a.Duration = d.duration()
	if head&attAnswered != 0 {
		a.First = a.Duration - time.Duration(d.signed())
	}
	if head&attSent != 0 {
		a.Sent = d.duration()
	}
	switch {
	case head&attSame != 0:
		a.Reason, a.Status = x.Reason, x.Status
	case head&attPlain != 0:
		a.Status = 200
	default:
		a.Reason = d.reason()
		a.Status = uint16(d.number())
	}
	if a.Marks&Asked != 0 {
		a.Why = retry.Why(d.byte())
		a.Wait = d.duration()
	}
	return a.Offset + a.Duration
}

func (r *Reader) readEvent(head byte) {
	d := &r.in
	kind := Kind(d.byte())
	r.event = Event{Kind: kind, Inbound: head&1 != 0, At: r.moment(), Cluster: r.text(), Version: d.number()}
	e := &r.event
	switch kind {
	case Began, Configured:
		e.Text = string(d.take(d.number(), maxConfig))
	case Endpoints:
		n := d.number()
		if n > uint64(len(d.b)) {
			d.bad = true
			return
		}
		e.List = make([]Endpoint, 0, n)
		for range n {
			p := Endpoint{Address: r.text(), Weight: uint32(d.number())}
			state := d.byte()
			p.Usable, p.State = state&1 != 0, outlier.State(state>>1)
			p.Until = d.duration()
			e.List = append(e.List, p)
		}
	case Judged:
		e.Endpoint = r.text()
		e.Verdict, e.Cause = outlier.Kind(d.byte()), outlier.Cause(d.byte())
		e.Until = d.duration()
		e.Random = d.fixed()
	case Breaker, Panic:
		e.From, e.To = breaker.State(d.byte()), breaker.State(d.byte())
	case Ended:
	default:
		d.bad = true
	}
}

// decoder takes values from b until one is not there.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) number() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 {
		v := d.b[0]
		d.b = d.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) signed() int64 {
	v := d.number()
	return int64(v>>1) ^ -int64(v&1)
}

// duration is one that is not negative.
func (d *decoder) duration() time.Duration {
	v := d.number()
	if v > 1<<62 {
		d.bad = true
		return 0
	}
	return time.Duration(v)
}

func (d *decoder) reason() outcome.Reason {
	v := d.byte()
	if int(v) >= outcome.Count {
		d.bad = true
	}
	return outcome.Reason(v)
}

func (d *decoder) fixed() uint64 {
	b := d.take(8, 8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (d *decoder) take(n uint64, most int) []byte {
	if n > uint64(most) || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

// String says what is missing.
func (d Damage) String() string {
	return fmt.Sprintf("%d blocks damaged or cut off (%d bytes skipped), %d records never written", d.Blocks, d.Bytes, d.Dropped)
}
