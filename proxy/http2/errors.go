package http2

import (
	"errors"
	"os"
	"strconv"
)

// Code is an error code of RFC 9113 section 7.
type Code uint32

// The codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

// String returns the code's name as the RFC writes it.
func (c Code) String() string {
	names := [...]string{
		"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
		"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// Error is the end of a stream or of a connection before its time.
type Error struct {
	Code   Code
	Reason string // what was wrong; empty where the peer gave only a code
	Remote bool   // the peer said so
	Conn   bool   // all of the connection ended, not one stream
	// Unsent says that the peer certainly did not process the request, so that
	// any request may be sent again (RFC 9113 section 8.7).
	Unsent bool
	// Cause is the error of the transport, where it was one.
	Cause error
}

// Error names the code, the side that raised it and the reason.
func (e *Error) Error() string {
	s := "http2: "
	if e.Conn {
		s += "connection"
	} else {
		s += "stream"
	}
	if e.Remote {
		s += " ended by the peer: "
	} else {
		s += " ended: "
	}
	s += e.Code.String()
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns Cause.
func (e *Error) Unwrap() error { return e.Cause }

// Unsent reports whether err says that the peer did not process the request.
func Unsent(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Unsent || err == ErrGoingAway || err == ErrTooManyStreams || err == ErrClosed || err == ErrNoConnectProtocol
}

// Errors of opening and using a stream.
var (
	// ErrTooManyStreams: the peer allows no further stream now.
	ErrTooManyStreams = errors.New("http2: the peer allows no further stream on this connection now; use another")
	// ErrGoingAway: the connection ends when its streams have.
	ErrGoingAway = errors.New("http2: the connection takes no further stream; use another")
	// ErrClosed: the connection has ended.
	ErrClosed = errors.New("http2: the connection has ended")
	// ErrNoConnectProtocol: an upgrade was asked for, which the peer does not
	// offer (RFC 8441 section 3).
	ErrNoConnectProtocol = errors.New("http2: the peer does not take extended CONNECT; use an HTTP/1.1 connection")
	// ErrExpired: the stream's deadline has passed or Expire was called.
	ErrExpired = os.ErrDeadlineExceeded
	// ErrInterrupted: Interrupt has kept a Peek from waiting.
	ErrInterrupted = errors.New("http2: a wait was interrupted")
	// ErrEnded: a write after the end of the sending side, or after Close.
	ErrEnded = errors.New("http2: write after the stream's end")
	// ErrBadHead: the head to be sent is not one, or has what HTTP/2 cannot say.
	ErrBadHead = errors.New("http2: the head to send is malformed")
	// ErrBadAccept: a 101 whose Sec-WebSocket-Accept does not fit the key.
	ErrBadAccept = errors.New("http2: Sec-WebSocket-Accept does not answer the key")
	// ErrPreface: the peer speaks something else.
	ErrPreface = errors.New("http2: the connection does not begin with the HTTP/2 preface")
)
