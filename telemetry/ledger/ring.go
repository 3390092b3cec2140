package ledger

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// segmentBytes is the piece in which memory is taken, and given up when all is
// in use. The longest record fits.
const segmentBytes = 32 << 10

// lengthBytes stand before every record.
const lengthBytes = 2

// Ring holds the records of the last exchanges that were kept. A nil Ring keeps
// nothing. It is safe for concurrent use.
type Ring struct {
	sample float64
	slow   time.Duration
	most   int // segments

	drafts  sync.Pool
	records atomic.Uint64

	mu       sync.Mutex
	segments []segment // by sequence number modulo most
	next     uint64    // the sequence number after the last segment
}

// segment holds whole records, each behind its length.
type segment struct {
	seq uint64
	b   []byte
}

// New returns an empty ring, or nil where cfg keeps nothing. most bounds
// its bytes beside the configured size; 0 does not.
func New(cfg Config, most int64) *Ring {
	size := int64(cfg.SizeBytes)
	if most > 0 {
		size = min(size, most)
	}
	if size < LeastBytes {
		return nil
	}
	return &Ring{
		sample: cfg.SamplePercent / 100, slow: cfg.Slow, most: int(size / segmentBytes),
		drafts: sync.Pool{New: func() any { return &Entry{Attempts: make([]Attempt, 0, MaxAttempts)} }},
	}
}

// Keeps decides whether an exchange is kept that ended for r after so many
// attempts and whose answer began after first. failed says that it ended badly
// in another way. It does not allocate.
func (r *Ring) Keeps(reason outcome.Reason, failed bool, attempts int, first time.Duration) bool {
	switch {
	case r == nil:
		return false
	case reason != outcome.OK, failed, attempts > 1, r.slow > 0 && first >= r.slow:
		return true
	}
	return r.sample >= 1 || r.sample > 0 && rand.Float64() < r.sample
}

// Draft returns an empty entry to be filled, which Put or Discard takes back.
// It must not be called on a nil Ring.
func (r *Ring) Draft() *Entry { return r.drafts.Get().(*Entry) }

// Discard takes back an entry that is not kept.
func (r *Ring) Discard(e *Entry) {
	e.reset()
	r.drafts.Put(e)
}

// Put keeps e in place of the oldest ones and takes it back. Once the ring is
// full it does not allocate.
func (r *Ring) Put(e *Entry) {
	b := e.encode()
	r.mu.Lock()
	s := r.room(lengthBytes + len(b))
	s.b = append(binary.LittleEndian.AppendUint16(s.b, uint16(len(b))), b...)
	r.mu.Unlock()
	r.records.Add(1)
	r.Discard(e)
}

// room returns a segment with so many bytes left. r.mu is held.
func (r *Ring) room(n int) *segment {
	if r.next > 0 {
		if s := r.at(r.next - 1); cap(s.b)-len(s.b) >= n {
			return s
		}
	}
	if len(r.segments) < r.most {
		r.segments = append(r.segments, segment{b: make([]byte, 0, segmentBytes)})
	}
	s := r.at(r.next)
	s.seq, s.b = r.next, s.b[:0]
	r.next++
	return s
}

func (r *Ring) at(seq uint64) *segment { return &r.segments[seq%uint64(r.most)] }

// Records returns how many exchanges have been kept since the start.
func (r *Ring) Records() uint64 {
	if r == nil {
		return 0
	}
	return r.records.Load()
}

// Bytes returns the memory that the records take.
func (r *Ring) Bytes() int64 {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.segments)) * segmentBytes
}

// Find returns up to n records with that request id, the last one first.
func (r *Ring) Find(id []byte, n int) []Entry {
	id = id[:min(len(id), maxText)]
	if len(id) == 0 {
		return nil
	}
	want := text(nil, id)
	return r.search(n, func(b []byte) bool { return bytes.HasPrefix(b, want) }, nil)
}

// Last returns up to n records, the last one first; with failures only of
// exchanges that ended badly.
func (r *Ring) Last(n int, failures bool) []Entry {
	if !failures {
		return r.search(n, nil, nil)
	}
	return r.search(n, nil, (*Entry).Failed)
}

// search looks at the records from the last one back. Each segment is copied,
// so that exchanges that end meanwhile wait for no more than that.
func (r *Ring) search(n int, raw func([]byte) bool, match func(*Entry) bool) []Entry {
	if r == nil || n <= 0 {
		return nil
	}
	var found []Entry
	buf := make([]byte, 0, segmentBytes)
	r.mu.Lock()
	seq := r.next
	r.mu.Unlock()
	for seq > 0 {
		seq--
		r.mu.Lock()
		s := r.at(seq)
		there := s.seq == seq
		buf = append(buf[:0], s.b...)
		r.mu.Unlock()
		if !there {
			break
		}
		for _, b := range slices.Backward(records(buf)) {
			if raw != nil && !raw(b) {
				continue
			}
			e, err := decode(b)
			if err != nil || match != nil && !match(&e) {
				continue
			}
			if found = append(found, e); len(found) == n {
				return found
			}
		}
	}
	return found
}

// records takes a segment apart.
func records(b []byte) (list [][]byte) {
	for len(b) >= lengthBytes {
		n := int(binary.LittleEndian.Uint16(b))
		if n > len(b)-lengthBytes {
			break
		}
		list = append(list, b[lengthBytes:lengthBytes+n])
		b = b[lengthBytes+n:]
	}
	return list
}
