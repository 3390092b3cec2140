package http1

import "errors"

// Error is a refusal by the codec. Every value is a sentinel of this package:
// compare with errors.Is or ==.
type Error struct {
	reason string
	status int
}

// Error returns the reason with the package's name before it.
func (e *Error) Error() string { return "http1: " + e.reason }

func refuse(status int, reason string) *Error { return &Error{reason: reason, status: status} }

// The start line.
var (
	// ErrStream is for what a head on a stream between two sidecars leaves open:
	// more or less than one head, or another body than it says.
	ErrStream         error = refuse(400, "the stream does not hold what its head says")
	ErrEmptyLines     error = refuse(400, "more than one empty line before the request")
	ErrBadRequestLine error = refuse(400, "malformed request line")
	ErrBadMethod      error = refuse(400, "method is not a token")
	ErrBadTarget      error = refuse(400, "malformed request target")
	ErrBadVersion     error = refuse(505, "HTTP version is neither 1.0 nor 1.1")
	ErrBadStatusLine  error = refuse(400, "malformed status line")
)

// The bytes and lines of a head or of a trailer section.
var (
	ErrBareCR           error = refuse(400, "CR without LF")
	ErrBareLF           error = refuse(400, "LF without CR")
	ErrControlByte      error = refuse(400, "control byte")
	ErrObsFold          error = refuse(400, "folded field line")
	ErrSpaceBeforeField error = refuse(400, "whitespace before the first field")
	ErrSpaceBeforeColon error = refuse(400, "whitespace in a field name or before its colon")
	ErrEmptyName        error = refuse(400, "empty field name")
	ErrBadFieldName     error = refuse(400, "field name is not a token")
	ErrMissingColon     error = refuse(400, "field line without a colon")
	ErrHeadTooLong      error = refuse(431, "head is too long")
	ErrTooManyFields    error = refuse(431, "too many fields")
	ErrTooManyOptions   error = refuse(431, "too many connection options")
)

// Framing and host.
var (
	ErrBadLength             error = refuse(400, "malformed Content-Length")
	ErrDuplicateLength       error = refuse(400, "more than one Content-Length")
	ErrLengthAndChunked      error = refuse(400, "both Content-Length and Transfer-Encoding")
	ErrBadTransferEncoding   error = refuse(400, "malformed Transfer-Encoding")
	ErrUnknownTransferCoding error = refuse(501, "transfer coding other than chunked")
	ErrTransferEncodingInOld error = refuse(400, "Transfer-Encoding in an HTTP/1.0 message")
	ErrMissingHost           error = refuse(400, "no Host")
	ErrDuplicateHost         error = refuse(400, "more than one Host")
	ErrBadHost               error = refuse(400, "malformed Host")
)

// What a Normalization refuses.
var (
	ErrEscapedSlash error = refuse(400, "the path has an escaped slash or backslash, which this listener refuses")
	ErrEscapedNUL   error = refuse(400, "the path has an escaped NUL")
	ErrUnderscore   error = refuse(400, "a field name has an underscore, which this listener refuses")
)

// The chunked transfer coding.
var (
	ErrBadChunkSize      error = refuse(400, "malformed chunk size")
	ErrBadChunkExtension error = refuse(400, "malformed chunk extension")
	ErrChunkLineTooLong  error = refuse(400, "chunk extensions are too long")
	ErrBadChunkEnd       error = refuse(400, "no CRLF after the chunk's data")
	ErrTrailerTooLong    error = refuse(431, "trailer section is too long")
)

// Reason returns the short, stable text of an error of this package, for logs
// and counters; "" for nil and "malformed message" for any other error.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.reason
	}
	return "malformed message"
}

// Status returns the status with which a server refuses a request that failed
// with err: 400, 431 (RFC 6585 section 5), 501 (RFC 9112 section 6.1) or 505;
// 400 for any error that is not of this package. A response that fails to parse
// is the gateway's 502 whatever Status says.
func Status(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.status
	}
	return 400
}
