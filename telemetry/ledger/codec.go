package ledger

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// maxText is how much of a text is kept.
const maxText = 512

// The flags of an entry and of an attempt.
const (
	flagInbound = 1 << iota
	flagWouldDeny
	flagGRPC
	flagPanicking
	flagBreaker
)

const (
	flagAsked = 1 << iota
	flagBudget
	flagHedge
)

// encode writes e into its own memory. The id comes first, so that a search
// need not read more.
func (e *Entry) encode() []byte {
	b := text(e.buf[:0], e.ID)
	flags := byte(0)
	for _, f := range [...]struct {
		on  bool
		bit byte
	}{{e.Inbound, flagInbound}, {e.WouldDeny, flagWouldDeny}, {e.IsGRPC, flagGRPC}, {e.Panicking, flagPanicking}, {e.HasBreaker, flagBreaker}} {
		if f.on {
			flags |= f.bit
		}
	}
	b = append(b, flags, byte(e.Reason), e.GRPC, byte(e.DeadlineBy), byte(e.Breaker))
	b = binary.AppendVarint(b, e.Start.UnixNano())
	b = binary.AppendUvarint(b, e.Plan)
	for _, s := range [...]string{e.Listener, e.Route, e.RoutePath, e.RouteWhy, e.Cluster, e.Protocol, e.CallerID, e.Rule, e.Detail, e.UpstreamID, e.Priority} {
		b = text(b, s)
	}
	for _, s := range [...][]byte{e.Method, e.Authority, e.Path} {
		b = text(b, s)
	}
	b = address(address(b, e.Caller), e.Original)
	for _, d := range [...]time.Duration{e.Timeout, e.ConnectTimeout, e.StreamIdle, e.PerTryTimeout, e.Deadline, e.Duration, e.FirstByte, e.Queued} {
		b = binary.AppendVarint(b, int64(d))
	}
	for _, n := range [...]uint64{uint64(e.MaxAttempts), uint64(e.Status), e.BytesIn, e.BytesOut, uint64(e.Usable), uint64(e.Total), uint64(e.AttemptCount)} {
		b = binary.AppendUvarint(b, n)
	}
	b = append(b, byte(len(e.Attempts)))
	for i := range e.Attempts {
		b = e.Attempts[i].encode(b)
	}
	e.buf = b
	return b
}

func (a *Attempt) encode(b []byte) []byte {
	flags := byte(0)
	if a.Asked {
		flags |= flagAsked
	}
	if a.HasBudget {
		flags |= flagBudget
	}
	if a.Hedge {
		flags |= flagHedge
	}
	b = append(b, flags, byte(a.Reason), byte(a.Why), byte(a.Compared))
	b = binary.AppendUvarint(b, uint64(a.Status))
	for _, d := range [...]time.Duration{a.Offset, a.Duration, a.Connect, a.Wait} {
		b = binary.AppendVarint(b, int64(d))
	}
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(a.Budget))
	b = word(word(b, a.Endpoint), a.Algorithm)
	b = text(text(b, a.Fault), a.Cluster)
	for i := range a.Candidates[:a.Compared] {
		c := &a.Candidates[i]
		b = word(word(b, c.Address), c.State)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(c.Score))
	}
	return b
}

func text[T string | []byte](b []byte, s T) []byte {
	s = s[:min(len(s), maxText)]
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// maxWord is how much is kept of a text that is an address, of which those of Unix
// sockets are the longest, or a word of ours.
const maxWord = 128

func word(b []byte, s string) []byte { return text(b, s[:min(len(s), maxWord)]) }

func address(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	switch {
	case ip.Is4():
		v := ip.As4()
		b = append(append(b, 4), v[:]...)
	case ip.Is6():
		v := ip.As16() // the zone is left out
		b = append(append(b, 16), v[:]...)
	default:
		return append(b, 0)
	}
	return binary.LittleEndian.AppendUint16(b, a.Port())
}

var errDamaged = errors.New("ledger: the record is damaged")

// decode reads what encode wrote. What it returns shares no memory with b.
func decode(b []byte) (Entry, error) {
	r := reader{b: b}
	var e Entry
	e.ID = r.bytes()
	head := r.take(5)
	if head == nil {
		return Entry{}, errDamaged
	}
	flags := head[0]
	e.Inbound, e.WouldDeny = flags&flagInbound != 0, flags&flagWouldDeny != 0
	e.IsGRPC, e.Panicking, e.HasBreaker = flags&flagGRPC != 0, flags&flagPanicking != 0, flags&flagBreaker != 0
	e.Reason, e.GRPC, e.DeadlineBy, e.Breaker = outcome.Reason(head[1]), head[2], Deadline(head[3]), breaker.State(head[4])
	e.Start = time.Unix(0, r.varint()).UTC()
	e.Plan = r.uvarint()
	for _, s := range [...]*string{&e.Listener, &e.Route, &e.RoutePath, &e.RouteWhy, &e.Cluster, &e.Protocol, &e.CallerID, &e.Rule, &e.Detail, &e.UpstreamID, &e.Priority} {
		*s = string(r.text())
	}
	for _, s := range [...]*[]byte{&e.Method, &e.Authority, &e.Path} {
		*s = r.bytes()
	}
	e.Caller, e.Original = r.address(), r.address()
	for _, d := range [...]*time.Duration{&e.Timeout, &e.ConnectTimeout, &e.StreamIdle, &e.PerTryTimeout, &e.Deadline, &e.Duration, &e.FirstByte, &e.Queued} {
		*d = time.Duration(r.varint())
	}
	e.MaxAttempts, e.Status = r.count(), uint16(r.uvarint())
	e.BytesIn, e.BytesOut = r.uvarint(), r.uvarint()
	e.Usable, e.Total, e.AttemptCount = r.count(), r.count(), r.count()
	n := r.take(1)
	if r.bad || n[0] > MaxAttempts || int(e.Reason) >= outcome.Count || e.DeadlineBy >= deadlineCount || e.Breaker > breaker.HalfOpen {
		return Entry{}, errDamaged
	}
	for range n[0] {
		e.Attempts = append(e.Attempts, r.attempt())
	}
	if r.bad || len(r.b) > 0 {
		return Entry{}, errDamaged
	}
	return e, nil
}

// reader takes values off b. Once something is missing it is bad, and all that
// follows is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) attempt() (a Attempt) {
	head := r.take(4)
	if head == nil || int(head[1]) >= outcome.Count || int(head[3]) > len(a.Candidates) || head[2] > byte(retry.Observed) {
		r.bad = true
		return Attempt{}
	}
	a.Asked, a.HasBudget, a.Hedge = head[0]&flagAsked != 0, head[0]&flagBudget != 0, head[0]&flagHedge != 0
	a.Reason, a.Why, a.Compared = outcome.Reason(head[1]), retry.Why(head[2]), int(head[3])
	a.Status = uint16(r.uvarint())
	for _, d := range [...]*time.Duration{&a.Offset, &a.Duration, &a.Connect, &a.Wait} {
		*d = time.Duration(r.varint())
	}
	a.Budget = r.float()
	a.Endpoint, a.Algorithm = string(r.text()), string(r.text())
	a.Fault, a.Cluster = string(r.text()), string(r.text())
	for i := range a.Candidates[:a.Compared] {
		a.Candidates[i] = Candidate{Address: string(r.text()), State: string(r.text()), Score: r.float()}
	}
	return a
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count is a number of things that were in memory.
func (r *reader) count() int {
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.bad = true
		return 0
	}
	return int(v)
}

func (r *reader) float() float64 {
	p := r.take(8)
	if p == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(p))
}

func (r *reader) text() []byte {
	n := r.uvarint()
	if n > maxText {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

func (r *reader) bytes() []byte {
	p := r.text()
	if len(p) == 0 {
		return nil
	}
	return append([]byte(nil), p...)
}

func (r *reader) address() netip.AddrPort {
	kind := r.take(1)
	if kind == nil || kind[0] == 0 {
		return netip.AddrPort{}
	}
	ip, ok := netip.AddrFromSlice(r.take(int(kind[0])))
	port := r.take(2)
	if !ok || port == nil {
		r.bad = true
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, binary.LittleEndian.Uint16(port))
}
