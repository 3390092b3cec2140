package telemetry

import (
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// MaxAttempts is how many attempts a Record keeps; the number of all that
// were made is in Record.AttemptCount.
const MaxAttempts = 8

// Record is everything that is said about one exchange when it ends. The
// access log and the tracer read it during the call and keep nothing of it,
// so byte slices may be views into buffers that are used again afterwards.
// Zero fields are left out of the log line. A Record is large: reuse it, with
// Reset.
type Record struct {
	Start    time.Time     // when the exchange began
	Duration time.Duration // until its last byte

	RequestID  []byte
	Trace      TraceContext // this exchange's trace and server span; zero if there is none
	ParentSpan SpanID       // the caller's span, zero if there is none
	TraceState []byte       // as received

	Direction Direction
	Listener  string
	Route     string
	Cluster   string
	Endpoint  string // the address that served it

	Method    []byte // empty for TCP
	Authority []byte // for TLS that is passed through: the name in the ClientHello
	ALPN      []byte // what the ClientHello of such TLS offers, with commas between
	Path      []byte // with its query
	Protocol  string // "HTTP/1.1", "tcp", "tls", ...

	Status   uint16 // sent downstream; 0 if none
	Reason   outcome.Reason
	Detail   string // the cause in words, such as an error text
	Rule     string // the authorization rule that decided
	Fault    string // the name of the last fault made on purpose that it met
	BytesIn  uint64 // body bytes from downstream, or all bytes for TCP
	BytesOut uint64 // body bytes to downstream, or all bytes for TCP

	ConnectTime   time.Duration // the last attempt's: TCP and TLS; 0 when a kept connection served
	Queued        time.Duration // how long it waited for its turn; 0 where there was room
	FirstByteTime time.Duration // from the start of the exchange to the first byte of the response head

	Attempts     [MaxAttempts]Attempt
	AttemptCount int // made in all; may be more than MaxAttempts

	DownstreamAddr netip.AddrPort
	OriginalDest   netip.AddrPort // where an intercepted connection was going
	UpstreamAddr   netip.AddrPort // the endpoint's
	DownstreamID   string         // the caller's SPIFFE ID
	UpstreamID     string         // the endpoint's SPIFFE ID
	LocalID        string         // this proxy's SPIFFE ID
}

// Attempt is one try against one endpoint.
type Attempt struct {
	Endpoint string
	Cluster  string // whose endpoint it is, where that is not the exchange's: failover
	Span     SpanID // sent upstream in traceparent; zero if there is none
	Reason   outcome.Reason
	Status   uint16        // answered by the endpoint; 0 if none
	Offset   time.Duration // from the start of the exchange
	Duration time.Duration
	Sent     time.Duration // from Offset to when the request was sent; 0 at once, or never
	First    time.Duration // from Offset to the head of the answer; 0 without one
	Fault    string        // the fault made on purpose that it met, in words
	Hedge    bool          // started beside an earlier one that was slow
}

// AddAttempt appends a. When the Record is full the last place is taken over,
// so that the first attempts and the deciding one are kept.
func (r *Record) AddAttempt(a Attempt) {
	r.Attempts[min(r.AttemptCount, MaxAttempts-1)] = a
	r.AttemptCount++
}

// Reset makes r ready for another exchange. Of the attempts, which are most of it,
// it touches those that were made.
func (r *Record) Reset() {
	clear(r.kept())
	r.Start, r.Duration = time.Time{}, 0
	r.RequestID, r.Trace, r.ParentSpan, r.TraceState = nil, TraceContext{}, SpanID{}, nil
	r.Direction, r.Listener, r.Route, r.Cluster, r.Endpoint = 0, "", "", "", ""
	r.Method, r.Authority, r.ALPN, r.Path, r.Protocol = nil, nil, nil, nil, ""
	r.Status, r.Reason, r.Detail, r.Rule, r.Fault = 0, 0, "", "", ""
	r.BytesIn, r.BytesOut = 0, 0
	r.ConnectTime, r.Queued, r.FirstByteTime = 0, 0, 0
	r.AttemptCount = 0
	r.DownstreamAddr, r.OriginalDest, r.UpstreamAddr = netip.AddrPort{}, netip.AddrPort{}, netip.AddrPort{}
	r.DownstreamID, r.UpstreamID, r.LocalID = "", "", ""
}

// kept returns the attempts that r holds.
func (r *Record) kept() []Attempt { return r.Attempts[:min(max(r.AttemptCount, 0), MaxAttempts)] }
