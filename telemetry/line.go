package telemetry

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// timeLayout is RFC 3339 in UTC with microseconds.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// appendRecord appends r as one JSON object and a line feed.
func appendRecord(b []byte, r *Record, query bool) []byte {
	b = append(b, `{"time":"`...)
	b = r.Start.UTC().AppendFormat(b, timeLayout)
	b = append(b, '"')
	b = appendText(b, "request_id", r.RequestID)
	if !r.Trace.IsZero() {
		b = append(b, `,"trace_id":"`...)
		b = appendHex(b, r.Trace.Trace[:])
		b = append(b, `","span_id":"`...)
		b = appendHex(b, r.Trace.Span[:])
		b = append(b, '"')
	}
	b = appendText(b, "direction", r.Direction.String())
	b = appendText(b, "listener", r.Listener)
	b = appendText(b, "route", r.Route)
	b = appendText(b, "cluster", r.Cluster)
	b = appendText(b, "endpoint", r.Endpoint)
	b = appendText(b, "method", r.Method)
	b = appendText(b, "authority", r.Authority)
	b = appendText(b, "path", pathOf(r.Path, query))
	b = appendText(b, "protocol", r.Protocol)
	b = appendText(b, "alpn", r.ALPN)
	if r.Status != 0 {
		b = appendNumber(b, "status", int64(r.Status))
	}
	row := r.Reason.Row()
	b = appendText(b, "flag", row.Flag)
	b = appendText(b, "reason", row.Name)
	b = appendText(b, "detail", r.Detail)
	b = appendText(b, "rule", r.Rule)
	b = appendText(b, "fault", r.Fault)
	b = appendUnsigned(b, "bytes_in", r.BytesIn)
	b = appendUnsigned(b, "bytes_out", r.BytesOut)
	b = appendNumber(b, "duration_us", r.Duration.Microseconds())
	if r.ConnectTime != 0 {
		b = appendNumber(b, "connect_us", r.ConnectTime.Microseconds())
	}
	if r.Queued != 0 {
		b = appendNumber(b, "queue_us", r.Queued.Microseconds())
	}
	if r.FirstByteTime != 0 {
		b = appendNumber(b, "first_byte_us", r.FirstByteTime.Microseconds())
	}
	if r.AttemptCount > 0 {
		b = appendAttempts(b, r)
	}
	b = appendAddr(b, "downstream_addr", r.DownstreamAddr)
	b = appendAddr(b, "original_destination", r.OriginalDest)
	b = appendAddr(b, "upstream_addr", r.UpstreamAddr)
	b = appendText(b, "downstream_id", r.DownstreamID)
	b = appendText(b, "upstream_id", r.UpstreamID)
	b = appendText(b, "local_id", r.LocalID)
	return append(b, "}\n"...)
}

func appendAttempts(b []byte, r *Record) []byte {
	b = appendNumber(b, "attempt_count", int64(r.AttemptCount))
	b = append(b, `,"attempts":[`...)
	for i := range r.kept() {
		a := &r.Attempts[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"endpoint":`...)
		b = appendJSON(b, a.Endpoint)
		b = appendText(b, "cluster", a.Cluster)
		b = appendText(b, "reason", a.Reason.String())
		if a.Status != 0 {
			b = appendNumber(b, "status", int64(a.Status))
		}
		b = appendNumber(b, "start_us", a.Offset.Microseconds())
		b = appendNumber(b, "duration_us", a.Duration.Microseconds())
		if a.Hedge {
			b = append(b, `,"hedge":true`...)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendDropped appends the line that says how many records are missing.
func appendDropped(b []byte, now time.Time, n uint64) []byte {
	b = append(b, `{"time":"`...)
	b = now.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","message":"access-log records were dropped: the sink was too slow or failed"`...)
	b = appendUnsigned(b, "dropped", n)
	return append(b, "}\n"...)
}

// pathOf cuts the query off, unless it is wanted.
func pathOf(path []byte, query bool) []byte {
	if !query {
		if i := bytes.IndexByte(path, '?'); i >= 0 {
			return path[:i]
		}
	}
	return path
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

// appendText appends a member, unless it is empty.
func appendText[T string | []byte](b []byte, key string, value T) []byte {
	if len(value) == 0 {
		return b
	}
	return appendJSON(appendKey(b, key), value)
}

func appendNumber(b []byte, key string, n int64) []byte {
	return strconv.AppendInt(appendKey(b, key), n, 10)
}

func appendUnsigned(b []byte, key string, n uint64) []byte {
	return strconv.AppendUint(appendKey(b, key), n, 10)
}

func appendAddr(b []byte, key string, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	// A zone, as in fe80::1%eth0, is dropped: it is the one part of an
	// address that could hold any text.
	a = netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
	b = append(appendKey(b, key), '"')
	b = a.AppendTo(b)
	return append(b, '"')
}

// appendJSON appends a string of RFC 8259. Bytes that are not UTF-8 become
// U+FFFD, so that the line is always valid; text over fieldBytes is cut and
// ends in U+2026.
func appendJSON[T string | []byte](b []byte, s T) []byte {
	cut := len(s) > fieldBytes
	if cut {
		s = s[:fieldBytes]
	}
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, size := decodeRune(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[start:i]...)
			if cut && len(s)-i < utf8.UTFMax {
				start = len(s) // a rune that the cut went through
				break
			}
			b = append(b, `\ufffd`...)
			start = i + 1
		}
		i += size
	}
	b = append(b, s[start:]...)
	if cut {
		b = append(b, `…`...)
	}
	return append(b, '"')
}

func decodeRune[T string | []byte](s T) (rune, int) {
	var head [utf8.UTFMax]byte
	return utf8.DecodeRune(head[:copy(head[:], s)])
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0x0f])
}
