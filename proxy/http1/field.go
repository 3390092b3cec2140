package http1

// FieldID is a field name that the proxy knows, or Other.
type FieldID uint8

// The known field names.
const (
	Other                FieldID = iota
	Host                         // host
	ContentLength                // content-length
	TransferEncoding             // transfer-encoding
	Connection                   // connection
	KeepAlive                    // keep-alive
	ProxyConnection              // proxy-connection
	TE                           // te
	Trailer                      // trailer
	Upgrade                      // upgrade
	Expect                       // expect
	XForwardedFor                // x-forwarded-for
	XForwardedProto              // x-forwarded-proto
	XForwardedHost               // x-forwarded-host
	XForwardedClientCert         // x-forwarded-client-cert
	XRequestID                   // x-request-id
	Traceparent                  // traceparent
	Tracestate                   // tracestate
	XDeadline                    // x-outrigger-deadline
	XRetries                     // x-outrigger-retries
	RetryAfter                   // retry-after
	ContentType                  // content-type
	ContentEncoding              // content-encoding
	ContentRange                 // content-range
	Authorization                // authorization
	ProxyAuthorization           // proxy-authorization
	ProxyAuthenticate            // proxy-authenticate
	WWWAuthenticate              // www-authenticate
	Cookie                       // cookie
	SetCookie                    // set-cookie
	CacheControl                 // cache-control
	Pragma                       // pragma
	Date                         // date
	Via                          // via
	Forwarded                    // forwarded
	Server                       // server
	UserAgent                    // user-agent
	MaxForwards                  // max-forwards
	Range                        // range
	Age                          // age
	Expires                      // expires
	Location                     // location
	Vary                         // vary
	Accept                       // accept
	AcceptEncoding               // accept-encoding
	AcceptLanguage               // accept-language
	Origin                       // origin
	Referer                      // referer
	GRPCStatus                   // grpc-status
	GRPCMessage                  // grpc-message
	GRPCTimeout                  // grpc-timeout

	fieldIDs // their number; fewer than 64, for they are kept as bits of a word
)

// fieldNames is read only.
var fieldNames = [fieldIDs]string{
	Host:                 "host",
	ContentLength:        "content-length",
	TransferEncoding:     "transfer-encoding",
	Connection:           "connection",
	KeepAlive:            "keep-alive",
	ProxyConnection:      "proxy-connection",
	TE:                   "te",
	Trailer:              "trailer",
	Upgrade:              "upgrade",
	Expect:               "expect",
	XForwardedFor:        "x-forwarded-for",
	XForwardedProto:      "x-forwarded-proto",
	XForwardedHost:       "x-forwarded-host",
	XForwardedClientCert: "x-forwarded-client-cert",
	XRequestID:           "x-request-id",
	Traceparent:          "traceparent",
	Tracestate:           "tracestate",
	XDeadline:            "x-outrigger-deadline",
	XRetries:             "x-outrigger-retries",
	RetryAfter:           "retry-after",
	ContentType:          "content-type",
	ContentEncoding:      "content-encoding",
	ContentRange:         "content-range",
	Authorization:        "authorization",
	ProxyAuthorization:   "proxy-authorization",
	ProxyAuthenticate:    "proxy-authenticate",
	WWWAuthenticate:      "www-authenticate",
	Cookie:               "cookie",
	SetCookie:            "set-cookie",
	CacheControl:         "cache-control",
	Pragma:               "pragma",
	Date:                 "date",
	Via:                  "via",
	Forwarded:            "forwarded",
	Server:               "server",
	UserAgent:            "user-agent",
	MaxForwards:          "max-forwards",
	Range:                "range",
	Age:                  "age",
	Expires:              "expires",
	Location:             "location",
	Vary:                 "vary",
	Accept:               "accept",
	AcceptEncoding:       "accept-encoding",
	AcceptLanguage:       "accept-language",
	Origin:               "origin",
	Referer:              "referer",
	GRPCStatus:           "grpc-status",
	GRPCMessage:          "grpc-message",
	GRPCTimeout:          "grpc-timeout",
}

// String returns the name in lower case, "other" for Other.
func (id FieldID) String() string {
	if id == Other || id >= fieldIDs {
		return "other"
	}
	return fieldNames[id]
}

// fieldSlot hashes length, first and last letter of a name without regard to
// case. The factors were chosen by trial so that no two known names share a slot.
func fieldSlot(name []byte) uint8 {
	return uint8(len(name))*186 + (name[0]|0x20)*11 + (name[len(name)-1]|0x20)*22
}

// fieldSlots holds the known name of each slot. It is read only.
var fieldSlots = [256]FieldID{
	7:   Age,
	12:  XForwardedProto,
	17:  Authorization,
	18:  ProxyAuthorization,
	25:  Server,
	29:  GRPCTimeout,
	30:  TE,
	48:  TransferEncoding,
	54:  Range,
	67:  UserAgent,
	73:  MaxForwards,
	75:  Cookie,
	77:  GRPCStatus,
	79:  Expires,
	88:  Host,
	93:  ContentLength,
	94:  XDeadline,
	96:  Vary,
	97:  ContentRange,
	107: WWWAuthenticate,
	120: XRequestID,
	127: Accept,
	130: Pragma,
	132: Forwarded,
	139: KeepAlive,
	146: ProxyAuthenticate,
	149: Origin,
	150: Via,
	167: ContentType,
	171: Expect,
	176: RetryAfter,
	187: ContentEncoding,
	191: AcceptLanguage,
	192: XForwardedHost,
	200: Referer,
	203: Upgrade,
	211: GRPCMessage,
	214: XForwardedClientCert,
	216: XRetries,
	218: XForwardedFor,
	222: Trailer,
	226: Date,
	227: SetCookie,
	228: ProxyConnection,
	232: Location,
	235: AcceptEncoding,
	238: Tracestate,
	242: Traceparent,
	249: Connection,
	251: CacheControl,
}

// lookupField recognizes a name without control bytes; a known name is thereby a
// token.
func lookupField(name []byte) FieldID {
	if len(name) == 0 {
		return Other
	}
	id := fieldSlots[fieldSlot(name)]
	if id != Other && equalFold(name, fieldNames[id]) {
		return id
	}
	return Other
}
