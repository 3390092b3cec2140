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

// Spoken is what a connection speaks, as far as its listener knows.
type Spoken uint8

// What is spoken.
const (
	// SpokenHTTP: HTTP of any version, as declared.
	SpokenHTTP Spoken = iota
	SpokenHTTP1
	SpokenHTTP2
	// SpokenTLS: TLS of the application's own, passed through.
	SpokenTLS
	// SpokenTCP: anything else.
	SpokenTCP
	// SpokenMesh: the transport between sidecars, in which each stream says
	// what it is.
	SpokenMesh

	spokenCount
)

var spokenNames = [spokenCount]string{"http", "http1", "http2", "tls", "tcp", "mesh"}

// String returns the label value.
func (p Spoken) String() string { return nameOf(spokenNames[:], int(p)) }

// FoundBy is how it was found what a connection speaks.
type FoundBy uint8

// The ways.
const (
	// FoundDeclared: by configuration or by ALPN.
	FoundDeclared FoundBy = iota
	// FoundDetected: from the downstream's first bytes.
	FoundDetected
	// FoundServerFirst: the endpoint spoke first.
	FoundServerFirst
	// FoundRemembered: the endpoint spoke first, as expected from earlier
	// connections, so that nobody had to wait.
	FoundRemembered
	// FoundTimeout: neither side said enough in time.
	FoundTimeout

	foundCount
)

var foundNames = [foundCount]string{"declared", "detected", "server_first", "remembered", "timeout"}

// String returns the label value.
func (f FoundBy) String() string { return nameOf(foundNames[:], int(f)) }

func nameOf(names []string, i int) string {
	if i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// Intercepted is what became of a connection that the kernel redirected.
type Intercepted uint8

// What became of it.
const (
	// InterceptedVirtual: it went to the upstream that has the address.
	InterceptedVirtual Intercepted = iota
	// InterceptedDirect: it went to the instance that has the address.
	InterceptedDirect
	// InterceptedService: it was for the service itself.
	InterceptedService
	// InterceptedPassthrough: it was passed through to where it was going.
	InterceptedPassthrough
	// InterceptedRefused: it was reset, as nothing is known of the address.
	InterceptedRefused
	// InterceptedLoop: it was going to this proxy itself.
	InterceptedLoop
	// InterceptedLost: the kernel does not say where it was going.
	InterceptedLost
	// EarlyPassthrough: it was passed through before there was a plan.
	EarlyPassthrough
	// EarlyRefused: it was reset before there was a plan.
	EarlyRefused
	// HoldFull: it was reset, as too many were held.
	HoldFull
	// HoldExpired: it was held and then reset.
	HoldExpired

	interceptedCount
)

var interceptedNames = [interceptedCount]string{
	"virtual", "direct", "service", "passthrough", "refused", "loop", "no_destination", "early_passthrough", "early_refused", "hold_full", "hold_expired",
}

// String returns the label value.
func (k Intercepted) String() string { return nameOf(interceptedNames[:], int(k)) }

// Listener holds the metrics of one listener.
type Listener struct {
	handle

	Connections  Counter // accepted
	Active       UpDown  // open now
	Plaintext    Counter // accepted without TLS on a permissive listener
	AcceptErrors Counter // accept failed, for example for want of file descriptors
	Refused      Counter // closed at once: connection limit, or draining
	failures     [handshakeFailureCount]Counter
	spoken       [spokenCount][foundCount]Counter
	intercepted  [interceptedCount]Counter
	Held         Counter // redirected here before there was a plan, and kept
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

// Speaks counts a connection of which is known what it speaks.
func (l *Listener) Speaks(p Spoken, by FoundBy) {
	if p < spokenCount && by < foundCount {
		l.spoken[p][by].Inc()
	}
}

// Intercept counts a connection that the kernel redirected.
func (l *Listener) Intercept(k Intercepted) {
	if k < interceptedCount {
		l.intercepted[k].Inc()
	}
}

// Intercepted returns how many connections came to that.
func (l *Listener) Intercepted(k Intercepted) uint64 {
	return l.intercepted[min(k, interceptedCount-1)].Value()
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
	for k := range l.intercepted {
		s.cell(mListenerIntercepted, uint16(k), l.intercepted[k].Value(), Intercepted(k).String(), "")
	}
	s.cell(mListenerHeld, 0, l.Held.Value(), "", "")
	for p := range l.spoken {
		for by := range l.spoken[p] {
			s.cell(mListenerProtocols, uint16(p)*uint16(foundCount)+uint16(by), l.spoken[p][by].Value(), Spoken(p).String(), FoundBy(by).String())
		}
	}
}
