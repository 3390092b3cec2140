// Package outcome says why an exchange ended and all that follows from it: status, flag, blame, and whether to try again.
package outcome

// Reason is why an exchange or one of its attempts ended. Its row in the
// table (see Row) fixes every consequence, so that no other package decides
// one for itself.
type Reason uint8

// The reasons. The order is part of the metrics' handle layout, so new ones
// are added at the end.
const (
	// OK: the upstream answered and the answer was passed on whole.
	OK Reason = iota
	// NoRoute: no route or cluster matches the request.
	NoRoute
	// NoEndpoints: the cluster has no endpoint, or none that may be used.
	NoEndpoints
	// ConnectFailed: the endpoint refused or could not be reached.
	ConnectFailed
	// ConnectTimeout: the connection was not made in time.
	ConnectTimeout
	// PeerIdentity: the upstream's certificate is not one of the expected identities.
	PeerIdentity
	// HandshakeFailed: TLS with the upstream failed for another reason than its identity.
	HandshakeFailed
	// NoIdentity: this proxy has no valid SVID to present.
	NoIdentity
	// StaleConnection: a pooled connection had been closed by the upstream before it read the request.
	StaleConnection
	// UpstreamReset: the upstream closed or reset before the response was complete.
	UpstreamReset
	// UpstreamProtocol: the upstream's response is malformed.
	UpstreamProtocol
	// RequestTimeout: the whole exchange took longer than its deadline.
	RequestTimeout
	// TryTimeout: one attempt took longer than its per-try timeout.
	TryTimeout
	// StreamIdle: no byte moved for the stream's idle time.
	StreamIdle
	// BreakerOpen: the circuit breaker of the cluster, of the route or of all endpoints is open.
	BreakerOpen
	// LimitConnections: the cluster's connection limit is reached.
	LimitConnections
	// LimitPending: the cluster's limit of requests waiting for a connection is reached.
	LimitPending
	// LimitRequests: the cluster's limit of active requests is reached.
	LimitRequests
	// Denied: an authorization rule refused the caller, or none allowed it.
	Denied
	// BadRequest: the downstream's request is malformed or ambiguous.
	BadRequest
	// HeadTooLarge: the downstream's request head is over its limits.
	HeadTooLarge
	// DownstreamTimeout: the downstream did not send its request in time.
	DownstreamTimeout
	// DownstreamGone: the downstream closed or reset before the end.
	DownstreamGone
	// Draining: this proxy is shutting down.
	Draining
	// Unsupported: the request asks for something this listener does not do, such as CONNECT.
	Unsupported
	// UpstreamError: the upstream answered with a status that counts as its failure (5xx); passed on as it is.
	UpstreamError
	// Internal: a defect in this proxy.
	Internal
	// Overload: this proxy is at the end of its memory budget.
	Overload
	// MaxLifetime: a WebSocket was closed because it was as old as it may become.
	MaxLifetime
	// RateLimited: the request is beyond what a rate limit lets pass.
	RateLimited
	// QueueTimeout: the request waited for its turn, under the limit of active requests, longer than the queue allows.
	QueueTimeout
	// FaultInjected: a fault that was ordered on purpose ended it.
	FaultInjected
	// RateUnknown: who counts the requests of a rate limit gave no answer, and the limit then refuses.
	RateUnknown
	// Throttled: admission control held the request back, as the service accepts too few.
	Throttled
	// Superseded: another attempt of the same request answered first. Only an attempt ends so.
	Superseded

	reasonCount
)

// Count is the number of reasons, for tables indexed by Reason.
const Count = int(reasonCount)

// Source is who caused an outcome.
type Source uint8

// The sources.
const (
	SourceNone Source = iota
	SourceDownstream
	SourceUpstream
	SourceLocal
)

// Retryable says when another attempt may be made after a reason.
type Retryable uint8

// The classes of retry safety.
const (
	// RetryNever: another attempt cannot help or must not be made.
	RetryNever Retryable = iota
	// RetryUnsent: no byte of the request can have been processed, so any method may be tried again.
	RetryUnsent
	// RetryIdempotent: the request may have been processed; only idempotent ones may be tried again.
	RetryIdempotent
)

// Row is one line of the table: everything that follows from a reason.
type Row struct {
	Name      string    // the word in logs, metrics, headers and the body of local replies
	Flag      string    // the short flag in access logs; where Envoy has the same case, its letters
	Source    Source    // who caused it
	Status    uint16    // the HTTP status of the local reply; 0 when none is sent
	GRPC      uint8     // the gRPC status code of the local reply
	Retryable Retryable // whether another attempt may be made
	Blame     bool      // whether it counts against the endpoint (outlier detection, breaker)
	Proxy     string    // the error type in the Proxy-Status field of the local reply (RFC 9209 section 2.3); empty when none is sent
	Detail    string    // one sentence for the person who reads the local reply
}

var table = [Count]Row{
	OK:                {"ok", "-", SourceNone, 0, 0, RetryNever, false, "", "The upstream answered."},
	NoRoute:           {"no_route", "NR", SourceLocal, 404, 12, RetryNever, false, "destination_not_found", "No route matches this request."},
	NoEndpoints:       {"no_endpoints", "UH", SourceLocal, 503, 14, RetryNever, false, "destination_unavailable", "The cluster has no endpoint that may be used."},
	ConnectFailed:     {"connect_failed", "UF", SourceUpstream, 503, 14, RetryUnsent, true, "connection_refused", "The endpoint refused the connection or cannot be reached."},
	ConnectTimeout:    {"connect_timeout", "UT", SourceUpstream, 503, 14, RetryUnsent, true, "connection_timeout", "The connection to the endpoint was not made in time."},
	PeerIdentity:      {"peer_identity", "UI", SourceUpstream, 503, 14, RetryUnsent, true, "tls_certificate_error", "The endpoint's certificate does not carry an expected SPIFFE ID."},
	HandshakeFailed:   {"handshake_failed", "UX", SourceUpstream, 503, 14, RetryUnsent, true, "tls_protocol_error", "The TLS handshake with the endpoint failed."},
	NoIdentity:        {"no_identity", "NI", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_error", "This proxy has no valid SVID."},
	StaleConnection:   {"stale_connection", "US", SourceUpstream, 503, 14, RetryIdempotent, false, "connection_terminated", "A kept-alive connection was closed by the endpoint as the request was sent."},
	UpstreamReset:     {"upstream_reset", "UC", SourceUpstream, 503, 14, RetryIdempotent, true, "connection_terminated", "The endpoint closed the connection before its response was complete."},
	UpstreamProtocol:  {"upstream_protocol", "UPE", SourceUpstream, 502, 13, RetryNever, true, "http_protocol_error", "The endpoint's response is malformed."},
	RequestTimeout:    {"request_timeout", "RT", SourceUpstream, 504, 4, RetryNever, true, "http_response_timeout", "The request was not answered within its timeout."},
	TryTimeout:        {"try_timeout", "TT", SourceUpstream, 504, 4, RetryIdempotent, true, "http_response_timeout", "The attempt was not answered within its per-try timeout."},
	StreamIdle:        {"stream_idle", "SI", SourceUpstream, 504, 4, RetryNever, false, "connection_read_timeout", "No byte moved within the stream's idle timeout."},
	BreakerOpen:       {"breaker_open", "UO", SourceLocal, 503, 14, RetryNever, false, "destination_unavailable", "The circuit breaker of the cluster, of the route or of all endpoints is open."},
	LimitConnections:  {"limit_connections", "LC", SourceLocal, 503, 14, RetryNever, false, "connection_limit_reached", "The cluster's connection limit is reached."},
	LimitPending:      {"limit_pending", "LP", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_response", "The cluster's limit of pending requests is reached."},
	LimitRequests:     {"limit_requests", "LR", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_response", "The cluster's limit of active requests is reached."},
	Denied:            {"denied", "DN", SourceLocal, 403, 7, RetryNever, false, "http_request_denied", "The caller is not allowed to do this."},
	BadRequest:        {"bad_request", "DPE", SourceDownstream, 400, 13, RetryNever, false, "http_request_error", "The request is malformed or ambiguous."},
	HeadTooLarge:      {"head_too_large", "HL", SourceDownstream, 431, 8, RetryNever, false, "http_request_error", "The request head is over the limits."},
	DownstreamTimeout: {"downstream_timeout", "DT", SourceDownstream, 408, 4, RetryNever, false, "http_request_error", "The request was not received in time."},
	DownstreamGone:    {"downstream_gone", "DC", SourceDownstream, 0, 1, RetryNever, false, "", "The caller closed the connection."},
	Draining:          {"draining", "DR", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_response", "This proxy is shutting down."},
	Unsupported:       {"unsupported", "NS", SourceDownstream, 501, 12, RetryNever, false, "http_request_error", "This listener does not support what the request asks for."},
	UpstreamError:     {"upstream_error", "U5", SourceUpstream, 0, 0, RetryIdempotent, true, "", "The endpoint answered with an error status."},
	Overload:          {"overload", "OM", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_response", "This proxy is short of memory."},
	Internal:          {"internal", "IE", SourceLocal, 500, 13, RetryNever, false, "proxy_internal_error", "The proxy failed."},
	MaxLifetime:       {"max_lifetime", "ML", SourceLocal, 0, 14, RetryNever, false, "", "The WebSocket was as old as it may become."},
	QueueTimeout:      {"queue_timeout", "QT", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_response", "The request waited for its turn longer than the queue allows."},
	Throttled:         {"throttled", "TH", SourceLocal, 503, 14, RetryNever, false, "destination_unavailable", "Held back, as the service accepted too few of the requests before."},
	RateLimited:       {"rate_limited", "RL", SourceLocal, 429, 8, RetryNever, false, "http_request_denied", "More requests came than a rate limit lets pass."},
	FaultInjected:     {"fault_injected", "FI", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_response", "A fault was made on purpose."},
	RateUnknown:       {"rate_unknown", "RU", SourceLocal, 503, 14, RetryNever, false, "proxy_internal_response", "Who counts the requests of a rate limit gave no answer."},
	Superseded:        {"superseded", "SP", SourceLocal, 0, 1, RetryNever, false, "", "Another attempt of the same request answered first."},
}

// Row returns the consequences of r.
func (r Reason) Row() *Row {
	if int(r) >= Count {
		return &table[Internal]
	}
	return &table[r]
}

// String returns the reason's word.
func (r Reason) String() string { return r.Row().Name }

// Error is a cause with its reason. Op says what was being done, such as
// "dial 127.0.0.1:8080".
type Error struct {
	Reason Reason
	Op     string
	Err    error
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Reason.String()
	if e.Op != "" {
		s += ": " + e.Op
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClosedBy says who ended an exchange or attempt before its end: the caller, the
// endpoint or this proxy; nobody when it came to it.
func (r Reason) ClosedBy() string {
	switch r {
	case OK, UpstreamError:
		return "nobody"
	case DownstreamGone:
		return "the caller"
	case ConnectFailed, HandshakeFailed, StaleConnection, UpstreamReset:
		return "the endpoint"
	}
	return "this proxy"
}
