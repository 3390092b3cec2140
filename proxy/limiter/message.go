package limiter

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"time"
	"unicode/utf8"

	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// The messages of envoy.service.ratelimit.v3 are written and read here, as far
// as they are used: their Go package would bring all of Envoy's configuration
// along.

// Wire types of protobuf.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// tag returns the key of a field.
func tag(field, wire int) uint64 { return uint64(field)<<3 | uint64(wire) }

func appendTag(b []byte, field, wire int) []byte { return binary.AppendUvarint(b, tag(field, wire)) }

func appendText(b []byte, field int, text []byte) []byte {
	b = appendTag(b, field, wireBytes)
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

func appendNumber(b []byte, field int, n uint64) []byte {
	if n == 0 {
		return b
	}
	return binary.AppendUvarint(appendTag(b, field, wireVarint), n)
}

// maxValue is the longest value that is told as it is.
const maxValue = 512

// valueText is v as a string of protobuf may be: of a bounded length, and UTF-8.
func valueText(v []byte) []byte {
	if len(v) > maxValue {
		sum := sha256.Sum256(v)
		return append([]byte("sha256:"), hex.EncodeToString(sum[:])...)
	}
	if !utf8.Valid(v) {
		return bytes.ToValidUTF8(v, []byte("\ufffd"))
	}
	return v
}

// question is a RateLimitRequest with one descriptor.
type question struct {
	domain string
	keys   []string
	values [][]byte // one for each of keys
	rate   override
	hits   uint32
}

// override is a RateLimitOverride; none without requests.
type override struct {
	requests uint32
	unit     uint32 // envoy.type.v3.RateLimitUnit
}

// overrideOf returns c as the protocol can say it, and whether it can.
func overrideOf(c *ratelimit.Config) (o override, ok bool) {
	o.requests = uint32(c.Requests)
	switch c.Per {
	case time.Second:
		o.unit = 1
	case time.Minute:
		o.unit = 2
	case time.Hour:
		o.unit = 3
	default:
		return override{}, false
	}
	return o, c.Burst == 0
}

func (q *question) append(b []byte) []byte {
	b = appendText(b, 1, []byte(q.domain))
	var descriptor, inner []byte
	for i, key := range q.keys {
		inner = appendText(inner[:0], 1, []byte(key))
		inner = appendText(inner, 2, valueText(q.values[i]))
		descriptor = appendText(descriptor, 1, inner)
	}
	if q.rate.requests > 0 {
		inner = appendNumber(inner[:0], 1, uint64(q.rate.requests))
		inner = appendNumber(inner, 2, uint64(q.rate.unit))
		descriptor = appendText(descriptor, 2, inner)
	}
	b = appendText(b, 2, descriptor)
	return appendNumber(b, 3, uint64(q.hits))
}

// The codes of RateLimitResponse.
const (
	codeOK        = 1
	codeOverLimit = 2
)

// reply is a RateLimitResponse as far as it is used.
type reply struct {
	bad      error // why it could not be read
	code     uint64
	statuses int
	status   verdict // the first one
	fields   []field
}

// verdict is a DescriptorStatus.
type verdict struct {
	code      uint64
	requests  uint64 // of current_limit
	unit      uint64
	remaining uint64
	hasReset  bool
	reset     time.Duration
}

type field struct{ name, value []byte }

// Bounds of what a reply may make the proxy keep.
const (
	maxReply      = 64 << 10
	maxFields     = 16
	maxFieldBytes = 4 << 10
)

var errTruncated = errors.New("the message is cut off or not protobuf")

// each calls f for every field of a message; of a varint n is the value, else
// data. It knows the wire types that are in use and refuses groups.
func each(b []byte, f func(field int, n uint64, data []byte) error) error {
	for len(b) > 0 {
		key, k := binary.Uvarint(b)
		if k <= 0 || key>>3 == 0 || key>>3 > math.MaxInt32 {
			return errTruncated
		}
		b = b[k:]
		var n uint64
		var data []byte
		switch key & 7 {
		case wireVarint:
			if n, k = binary.Uvarint(b); k <= 0 {
				return errTruncated
			}
			b = b[k:]
		case wireBytes:
			if n, k = binary.Uvarint(b); k <= 0 || n > uint64(len(b)-k) {
				return errTruncated
			}
			data, b, n = b[k:k+int(n)], b[k+int(n):], 0
			if data == nil {
				data = []byte{}
			}
		case wire64, wire32:
			size := 8
			if key&7 == wire32 {
				size = 4
			}
			if len(b) < size {
				return errTruncated
			}
			b = b[size:]
			continue // nothing that is used has it
		default:
			return errTruncated
		}
		if err := f(int(key>>3), n, data); err != nil {
			return err
		}
	}
	return nil
}

// parse reads a RateLimitResponse. What it keeps is a copy.
func (r *reply) parse(b []byte) error {
	*r = reply{}
	return each(b, func(id int, n uint64, data []byte) error {
		switch {
		case id == 1 && data == nil:
			r.code = n
		case id == 2 && data != nil:
			r.statuses++
			if r.statuses == 1 {
				return r.status.parse(data)
			}
		case id == 3 && data != nil && len(r.fields) < maxFields:
			var h field
			err := each(data, func(id int, _ uint64, data []byte) error {
				switch {
				case id == 1 && data != nil:
					h.name = bytes.ToLower(data)
				case (id == 2 || id == 3 && len(data) > 0) && data != nil:
					h.value = bytes.Clone(data)
				}
				return nil
			})
			r.fields = append(r.fields, h)
			return err
		}
		return nil
	})
}

func (s *verdict) parse(b []byte) error {
	return each(b, func(id int, n uint64, data []byte) error {
		switch {
		case id == 1 && data == nil:
			s.code = n
		case id == 2 && data != nil:
			return each(data, func(id int, n uint64, data []byte) error {
				switch {
				case id == 1 && data == nil:
					s.requests = n
				case id == 2 && data == nil:
					s.unit = n
				}
				return nil
			})
		case id == 3 && data == nil:
			s.remaining = n
		case id == 4 && data != nil:
			s.hasReset = true
			var seconds, nanos int64
			err := each(data, func(id int, n uint64, data []byte) error {
				switch {
				case id == 1 && data == nil:
					seconds = int64(n)
				case id == 2 && data == nil:
					nanos = int64(n)
				}
				return nil
			})
			s.reset = duration(seconds, nanos)
			return err
		}
		return nil
	})
}

// duration is a google.protobuf.Duration between 0 and MaxWait.
func duration(seconds, nanos int64) time.Duration {
	const most = int64(ratelimit.MaxWait / time.Second)
	switch {
	case seconds < 0 || nanos < 0:
		return 0
	case seconds >= most:
		return ratelimit.MaxWait
	}
	return time.Duration(seconds)*time.Second + time.Duration(min(nanos, int64(time.Second)-1))
}

// units are the lengths of RateLimitResponse.RateLimit.Unit that have one.
var units = [...]time.Duration{1: time.Second, 2: time.Minute, 3: time.Hour, 4: 24 * time.Hour, 7: 7 * 24 * time.Hour}

var errCode = errors.New("its answer is neither OK nor OVER_LIMIT")

// answer is what the reply means. The overall code decides; the status of the
// descriptor gives the numbers where it does not contradict it.
func (r *reply) answer() (a ratelimit.Answer, err error) {
	if r.code != codeOK && r.code != codeOverLimit {
		return a, errCode
	}
	a.OK, a.Partial = r.code == codeOK, true
	if s := &r.status; r.statuses == 1 && s.code == r.code && s.requests > 0 {
		a.Policy.Requests = int64(min(s.requests, math.MaxUint32))
		if s.unit < uint64(len(units)) {
			a.Policy.Per = units[s.unit]
		}
		a.Remaining, a.Wait, a.Full = int64(min(s.remaining, math.MaxUint32)), s.reset, s.reset
		if !a.OK {
			a.Remaining = 0
		}
		a.Partial = !s.hasReset
	}
	for i := range r.fields {
		f := &r.fields[i]
		if len(a.Fields)+len(f.name)+len(f.value) <= maxFieldBytes && f.sound() {
			a.Fields = append(append(append(append(a.Fields, "\r\n"...), f.name...), ": "...), bytes.Trim(f.value, " \t")...)
		}
	}
	return a, nil
}
