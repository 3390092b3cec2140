package exchange

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// GRPCTimeout is the caller's deadline as gRPC says it: at most eight digits
// and a unit (gRPC over HTTP2, Requests).
func GRPCTimeout(r *http1.Request, raw []byte) (time.Duration, bool) {
	v, ok := r.Get(http1.GRPCTimeout)
	if !ok || v.Len() < 2 || v.Len() > 9 {
		return 0, false
	}
	b := v.Of(raw)
	n := time.Duration(0)
	for _, c := range b[:len(b)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + time.Duration(c-'0')
	}
	unit, ok := grpcUnit(b[len(b)-1])
	if !ok {
		return 0, false
	}
	if n > farAway/unit {
		return farAway, true
	}
	return n * unit, true
}

// farAway is as good as no deadline, and far from the end of the clock.
const farAway = 100 * 365 * 24 * time.Hour

func grpcUnit(c byte) (time.Duration, bool) {
	switch c {
	case 'n':
		return time.Nanosecond, true
	case 'u':
		return time.Microsecond, true
	case 'm':
		return time.Millisecond, true
	case 'S':
		return time.Second, true
	case 'M':
		return time.Minute, true
	case 'H':
		return time.Hour, true
	}
	return 0, false
}

// appendGRPCTimeout appends what is left of the deadline.
func appendGRPCTimeout(b []byte, left time.Duration) []byte {
	b = append(b, "grpc-timeout: "...)
	switch us := max(left, 0) / time.Microsecond; {
	case us < 1e8:
		b = append(http1.AppendInt(b, max(int64(us), 1)), 'u')
	case us/1000 < 1e8:
		b = append(http1.AppendInt(b, int64(us/1000)), 'm')
	default:
		b = append(http1.AppendInt(b, min(int64(us/1e6), 1e8-1)), 'S')
	}
	return append(b, "\r\n"...)
}

// replyGRPC answers a gRPC call in place of an endpoint, by headers alone
// (gRPC over HTTP2, Trailers-Only).
func (x *exchange) replyGRPC(row *outcome.Row, cause error) {
	x.status, x.call.status = 200, row.GRPC
	b := append(x.out[:0], "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\ngrpc-status: "...)
	b = http1.AppendInt(b, int64(row.GRPC))
	b = append(b, "\r\ngrpc-message: outrigger: "...)
	b = append(b, row.Name...)
	if x.l.Direction == telemetry.Outbound || row == outcome.Denied.Row() {
		b = append(b, ": "...)
		b = append(b, row.Detail...)
	}
	if row == outcome.Denied.Row() {
		b = append(b, " Rule: "...)
		b = appendPrintable(b, x.rule)
	}
	if l := x.over.limit; l != nil {
		b = append(b, " Limit: "...)
		b = append(b, l.Name...)
	}
	b = append(b, "\r\nx-outrigger-reason: "...)
	b = append(b, row.Name...)
	b = x.appendExceeded(b)
	b = x.appendHeldBack(b)
	b = append(b, "\r\nx-request-id: "...)
	b = append(b, x.id...)
	b = x.appendProxyStatus(b, row, cause)
	if x.close && x.st == nil {
		b = append(b, "\r\nconnection: close"...)
	}
	x.out = append(b, "\r\n\r\n"...)
	x.say(len(x.out))
}

// appendPrintable appends s less what a grpc-message must not hold unescaped.
func appendPrintable(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c < 0x7f && c != '%' {
			b = append(b, c)
		}
	}
	return b
}
