package outcomes

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// Format is the version of what is written.
const Format = 1

// fileHead begins a file; Format follows it.
const fileHead = "outrigger outcomes\n"

// blockMark begins a block. It cannot be taken for text.
const blockMark = "\xc3OR\x00\xe1\x9d\n\x7f"

const (
	headBytes  = len(blockMark) + 8 // mark, length, checksum
	blockBytes = 32 << 10           // a block is written when it has so many
	maxPayload = 4 << 20
	maxText    = 512 // of a text that records name
	maxConfig  = 512 << 10
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Each record begins with a byte that tells what it is: an event, or the head of
// an exchange by what it leaves out.
const (
	recEvent     = 0x80
	recDeadline  = 0x01 // the caller set a deadline
	recPlain     = 0x02 // ended with OK and status 200
	recAttempted = 0x04 // by exactly one attempt
	recRefused   = 0x08 // an attempt was refused
	recWaited    = 0x10 // it waited for its turn
)

// The first byte of an attempt, beside its marks in the low bits.
const (
	attAnswered = 0x10 << iota // First follows
	attSent                    // Sent follows
	attSame                    // reason and status are those of the exchange
	attPlain                   // reason OK, status 200
)

// block collects records until it is written.
type block struct {
	b      []byte // records
	texts  map[string]uint32
	prev   time.Duration
	count  int
	events int
}

func (k *block) reset(now time.Duration) {
	k.b, k.prev, k.count, k.events = k.b[:0], now, 0, 0
	if k.texts == nil {
		k.texts = map[string]uint32{}
	}
	clear(k.texts)
}

// text writes the place of s in the block's table, and s itself the first time.
func (k *block) text(s string) {
	s = s[:min(len(s), maxText)]
	n, ok := k.texts[s]
	if !ok {
		n = uint32(len(k.texts))
		k.texts[s] = n
	}
	k.b = binary.AppendUvarint(k.b, uint64(n))
	if !ok {
		k.b = append(binary.AppendUvarint(k.b, uint64(len(s))), s...)
	}
}

func (k *block) number(n uint64)        { k.b = binary.AppendUvarint(k.b, n) }
func (k *block) signed(d time.Duration) { k.b = binary.AppendVarint(k.b, int64(d)) }

// moment writes a time as its distance from that of the record before.
func (k *block) moment(at time.Duration) {
	k.signed(at - k.prev)
	k.prev = at
}

// exchange adds x with its attempts.
func (k *block) exchange(x *Exchange, attempts []Attempt) {
	plain := x.Reason == 0 && x.Status == 200
	head := byte(0)
	if x.Deadline > 0 {
		head |= recDeadline
	}
	if plain {
		head |= recPlain
	}
	if x.Attempts == 1 && len(attempts) == 1 {
		head |= recAttempted
	}
	if x.Refused > 0 {
		head |= recRefused
	}
	if x.Waited > 0 {
		head |= recWaited
	}
	k.b = append(k.b, head, byte(x.Marks))
	k.moment(x.At)
	k.text(x.Cluster)
	k.text(x.Route)
	k.text(x.Method)
	k.number(uint64(x.Active))
	if !plain {
		k.b = append(k.b, byte(x.Reason))
		k.number(uint64(x.Status))
	}
	if x.Marks&IsGRPC != 0 {
		k.b = append(k.b, x.GRPC)
	}
	if x.Marks&Keyed != 0 {
		k.b = binary.LittleEndian.AppendUint64(k.b, x.Key)
	}
	if x.Deadline > 0 {
		k.number(uint64(x.Deadline))
	}
	if x.Refused > 0 {
		k.number(uint64(x.Refused))
	}
	if x.Waited > 0 {
		k.number(uint64(x.Waited))
	}
	if head&recAttempted == 0 {
		k.number(uint64(x.Attempts))
		k.b = append(k.b, byte(len(attempts)))
	}
	end := time.Duration(0)
	for i := range attempts {
		end = k.attempt(x, &attempts[i], end)
	}
	k.signed(x.Duration - end)
	k.count++
}

// attempt adds one that followed another which ended at before, and returns its
// own end.
func (k *block) attempt(x *Exchange, a *Attempt, before time.Duration) time.Duration {
	plain := a.Reason == 0 && a.Status == 200
	same := a.Reason == x.Reason && a.Status == x.Status
	head := byte(a.Marks)
	if a.First > 0 {
		head |= attAnswered
	}
	if a.Sent > 0 {
		head |= attSent
	}
	if same {
		head |= attSame
	}
	if plain {
		head |= attPlain
	}
	k.b = append(k.b, head)
	k.text(a.Endpoint)
	k.signed(a.Offset - before)
	k.number(uint64(max(a.Duration, 0)))
	if a.First > 0 {
		k.signed(a.Duration - a.First)
	}
	if a.Sent > 0 {
		k.number(uint64(a.Sent))
	}
	if !same && !plain {
		k.b = append(k.b, byte(a.Reason))
		k.number(uint64(a.Status))
	}
	if a.Marks&Asked != 0 {
		k.b = append(k.b, byte(a.Why))
		k.number(uint64(max(a.Wait, 0)))
	}
	return a.Offset + max(a.Duration, 0)
}

// event adds e.
func (k *block) event(e *Event) {
	head := byte(recEvent)
	if e.Inbound {
		head |= 1
	}
	k.b = append(k.b, head, byte(e.Kind))
	k.moment(e.At)
	k.text(e.Cluster)
	k.number(e.Version)
	switch e.Kind {
	case Began, Configured:
		s := e.Text
		if len(s) > maxConfig {
			s = "" // said by the reader as not known
		}
		k.b = append(binary.AppendUvarint(k.b, uint64(len(s))), s...)
	case Endpoints:
		k.number(uint64(len(e.List)))
		for i := range e.List {
			p := &e.List[i]
			k.text(p.Address)
			k.number(uint64(p.Weight))
			state := byte(p.State) << 1
			if p.Usable {
				state |= 1
			}
			k.b = append(k.b, state)
			k.number(uint64(max(p.Until, 0)))
		}
	case Judged:
		k.text(e.Endpoint)
		k.b = append(k.b, byte(e.Verdict), byte(e.Cause))
		k.number(uint64(max(e.Until, 0)))
		k.b = binary.LittleEndian.AppendUint64(k.b, e.Random)
	case Breaker, Panic:
		k.b = append(k.b, byte(e.From), byte(e.To))
	}
	k.count++
	k.events++
}

// blockHead is what a block says of itself.
type blockHead struct {
	epoch   uint64 // of the process that wrote it
	wall    time.Time
	now     time.Duration // the same moment on the clock of its records
	dropped uint64        // records lost before it
}

// seal appends the whole block to dst.
func (k *block) seal(dst []byte, h blockHead) []byte {
	from := len(dst)
	dst = append(dst, blockMark...)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, Format)
	dst = binary.LittleEndian.AppendUint64(dst, h.epoch)
	dst = binary.AppendVarint(dst, h.wall.UnixNano())
	dst = binary.AppendVarint(dst, int64(h.now))
	dst = binary.AppendUvarint(dst, h.dropped)
	dst = binary.AppendUvarint(dst, uint64(k.count))
	dst = append(dst, k.b...)
	payload := dst[from+headBytes:]
	binary.LittleEndian.PutUint32(dst[from+len(blockMark):], uint32(len(payload)))
	binary.LittleEndian.PutUint32(dst[from+len(blockMark)+4:], checksum(payload))
	return dst
}
