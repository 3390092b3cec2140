package telemetry

import "go.opentelemetry.io/otel/attribute"

// HandshakeFailure is why a TLS handshake with a downstream failed.
type HandshakeFailure uint8

// The kinds of handshake failure.
const (
	// HandshakeTimeout: not finished within its deadline.
	HandshakeTimeout HandshakeFailure = iota
	// HandshakeProtocol: not TLS, or no common version or cipher suite.
	HandshakeProtocol
	// HandshakeNoCertificate: the peer presented no certificate.
	HandshakeNoCertificate
	// HandshakeUntrusted: the chain does not lead to a trusted root.
	HandshakeUntrusted
	// HandshakeExpired: the peer's certificate is expired or not yet valid.
	HandshakeExpired
	// HandshakeIdentity: the certificate carries no valid or no accepted SPIFFE ID.
	HandshakeIdentity
	// HandshakeClosed: the peer went away or sent an alert.
	HandshakeClosed
	// HandshakeLimit: too many handshakes at once.
	HandshakeLimit
	// HandshakeNoIdentity: this proxy has no valid SVID to present.
	HandshakeNoIdentity

	handshakeFailureCount
)

var handshakeFailureNames = [handshakeFailureCount]string{
	"timeout", "protocol", "no_certificate", "untrusted", "expired", "identity", "closed", "limit", "no_identity",
}

// String returns the label value.
func (k HandshakeFailure) String() string { return nameOf(handshakeFailureNames[:], int(k)) }

func nameOf(names []string, i int) string {
	if i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// Listener holds the metrics of one listener.
type Listener struct {
	handle

	Connections  Counter // accepted
	Active       UpDown  // open now
	Plaintext    Counter // accepted without TLS on a permissive listener
	AcceptErrors Counter // accept failed, for example for want of file descriptors
	Refused      Counter // closed at once: connection limit, or draining
	failures     [handshakeFailureCount]Counter
	_            pad
	BytesIn      Counter // received from downstreams
	_            pad
	BytesOut     Counter // sent to downstreams
}

// Listener returns the handle of a listener; Release it when the listener is
// gone.
func (m *Metrics) Listener(direction Direction, name string) *Listener {
	name = label(name)
	labels := []attribute.KeyValue{attribute.String("direction", direction.String()), attribute.String("listener", name)}
	return acquire(m, handleKey{kindListener, direction, name, ""}, labels, func(h handle) *Listener { return &Listener{handle: h} })
}

// HandshakeFailed counts a failed handshake.
func (l *Listener) HandshakeFailed(k HandshakeFailure) {
	if k < handshakeFailureCount {
		l.failures[k].Inc()
	}
}

func (l *Listener) collect(s *scrape) {
	s.counter(mListenerConnections, l.Connections.Value())
	s.gauge(mListenerActive, float64(l.Active.Value()))
	s.counter(mListenerBytesIn, l.BytesIn.Value())
	s.counter(mListenerBytesOut, l.BytesOut.Value())
	s.counter(mListenerPlaintext, l.Plaintext.Value())
	s.counter(mListenerAcceptErrors, l.AcceptErrors.Value())
	s.counter(mListenerRefused, l.Refused.Value())
	for k := range l.failures {
		s.cell(mListenerHandshakeFailures, uint16(k), l.failures[k].Value(), HandshakeFailure(k).String(), "")
	}
}
