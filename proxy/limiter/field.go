package limiter

import "github.com/outrigger-mesh/outrigger/proxy/http1"

// forbidden are the fields that a limiter must not give an answer: those that
// frame it, belong to the connection, or that the proxy itself writes.
var forbidden = map[string]bool{
	"connection": true, "content-length": true, "content-type": true, "content-encoding": true, "date": true, "grpc-encoding": true,
	"grpc-message": true, "grpc-status": true, "host": true, "keep-alive": true, "proxy-connection": true, "proxy-status": true,
	"ratelimit": true, "ratelimit-policy": true, "retry-after": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "x-outrigger-reason": true, "x-request-id": true,
}

// sound reports whether f may stand in the head of an answer (RFC 9110 section 5).
func (f *field) sound() bool {
	if !http1.IsToken(string(f.name)) || forbidden[string(f.name)] {
		return false
	}
	for _, c := range f.value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
