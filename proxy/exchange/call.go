package exchange

import (
	"bytes"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// call is what is known of the answer to a gRPC call.
type call struct {
	status   uint8 // noStatus while there is none
	bare     bool  // the status is all of the answer: nothing has to be passed on yet
	held     bool  // no failure of the endpoint's, but retried by policy; of a call, bare
	limited  bool  // the answer says that a rate limit has refused the request
	pushback retry.Pushback
	wait     time.Duration // of the pushback
}

const (
	noStatus      = 0xff
	statusOK      = 0
	statusUnknown = 2
)

func (c *call) reset() { *c = call{status: noStatus} }

// parseStatus reads the value of grpc-status. What is no number is UNKNOWN.
func parseStatus(b []byte) uint8 {
	if len(b) == 0 || len(b) > 2 {
		return statusUnknown
	}
	n := uint8(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return statusUnknown
		}
		n = n*10 + c - '0'
	}
	return n
}

// statusOfHTTP is what a gRPC client makes of an answer that has no grpc-status
// (gRPC, HTTP to gRPC Status Code Mapping).
func statusOfHTTP(status int) uint8 {
	switch status {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return uint8(retry.GRPCUnavailable)
	}
	return statusUnknown
}

// blamesEndpoint reports whether a gRPC status counts against the endpoint
// that answered it: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL,
// UNAVAILABLE and DATA_LOSS. The others are about the request.
func blamesEndpoint(status uint8) bool {
	switch status {
	case 2, 4, 8, 13, 14, 15:
		return true
	}
	return false
}

const (
	statusField   = "grpc-status"
	pushbackField = "grpc-retry-pushback-ms"
	earlierField  = "grpc-previous-rpc-attempts"
)

// callAnswered is what the final response head, which begins b, says of a call.
// Its status may be in the head, or in trailers that came with it.
func (x *exchange) callAnswered(b []byte) outcome.Reason {
	c := &x.call
	r := statusReason(x.status)
	switch v, ok := x.res.Get(http1.GRPCStatus); {
	case ok:
		c.status = parseStatus(v.Of(b))
		c.bare = x.res.Framing == http1.FramingNone || x.res.Framing == http1.FramingLength && x.res.Length == 0
		if x.ust != nil {
			c.bare = x.ust.Ended
		}
		if v, ok := x.res.Lookup(b, pushbackField); ok && c.bare {
			c.wait, c.pushback = retry.ParsePushback(v.Of(b))
		}
	case x.ust != nil && !x.ust.Ended:
		if n, whole := x.ust.Readable(); n == 0 && whole {
			x.callTrailers(x.ust.Trailers())
			c.bare = c.status != noStatus
		}
	}
	switch {
	case r != outcome.OK || c.status == noStatus:
		return r
	case blamesEndpoint(c.status) && !x.limitedThere(b):
		return outcome.UpstreamError
	}
	p := x.pol.Retry
	c.held = c.bare && c.status != statusOK && p != nil && slices.Contains(p.GRPCStatuses, retry.GRPCStatus(c.status))
	return r
}

// callTrailers notes the status that is in trailers, which are field lines.
func (x *exchange) callTrailers(lines []byte) {
	for line := range bytes.Lines(lines) {
		name, v, _ := bytes.Cut(line, colon)
		switch {
		case len(name) == len(statusField) && bytes.EqualFold(name, []byte(statusField)):
			x.call.status = parseStatus(bytes.TrimSpace(v))
		case len(name) == len(pushbackField) && bytes.EqualFold(name, []byte(pushbackField)):
			x.call.wait, x.call.pushback = retry.ParsePushback(bytes.TrimSpace(v))
		}
	}
}

var colon = []byte(":")

// callOutcome is what the trailers say of a call whose response was passed on.
func (x *exchange) callOutcome(trailers []byte) outcome.Reason {
	x.callTrailers(trailers)
	if x.call.status != noStatus && blamesEndpoint(x.call.status) {
		return outcome.UpstreamError
	}
	return outcome.OK
}

// callFailed is how an attempt that ended with r looks to a gRPC client: as the
// status of the answer if that is all of it, as that of the local reply where
// there is no answer and the endpoint may have processed the call.
func (x *exchange) callFailed(r outcome.Reason) retry.GRPCStatus {
	switch row := r.Row(); {
	case !x.grpc:
	case x.call.status != noStatus:
		if x.call.bare {
			return retry.GRPCStatus(x.call.status)
		}
	case x.status != 0:
		return retry.GRPCStatus(statusOfHTTP(x.status))
	case row.Retryable == outcome.RetryIdempotent:
		return retry.GRPCStatus(row.GRPC)
	}
	return 0
}

// callStatus is what the caller makes of an exchange that has ended with r.
func (x *exchange) callStatus(r outcome.Reason) uint8 {
	switch {
	case x.call.status != noStatus:
		return x.call.status
	case r != outcome.OK && r != outcome.UpstreamError:
		return r.Row().GRPC
	}
	return statusOfHTTP(x.status)
}

// appendCall appends the fields that each attempt of a call has anew: what is
// left of the deadline, and how many attempts were made before (gRFC A6).
func (x *exchange) appendCall(b []byte) []byte {
	if x.deadline > 0 {
		b = appendGRPCTimeout(b, x.deadline-x.at)
	}
	if x.earlier > 0 {
		n := x.earlier + x.callersAttempts()
		b = append(b, earlierField...)
		b = append(b, ": "...)
		b = append(http1.AppendInt(b, int64(n)), "\r\n"...)
	}
	return b
}

// dropEarlier keeps the caller's own count out of the head that is built.
func (x *exchange) dropEarlier() {
	for i := range x.req.Fields {
		if f := &x.req.Fields[i]; f.ID == http1.Other && bytes.EqualFold(f.Name.Of(x.raw), []byte(earlierField)) {
			f.Drop = true
		}
	}
}

// callersAttempts is how many attempts the caller says that it has made before.
func (x *exchange) callersAttempts() int {
	v, ok := x.req.Lookup(x.raw, earlierField)
	if !ok || v.Len() == 0 || v.Len() > 6 {
		return 0
	}
	n := 0
	for _, c := range v.Of(x.raw) {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}
