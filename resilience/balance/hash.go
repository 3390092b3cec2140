package balance

import (
	"math/bits"
	"strings"
	"time"
)

// maxHash bounds the sources of a hash.
const maxHash = 16

// HashOn is something that a request may be known by: exactly one of header,
// cookie, query, source_ip and identity.
type HashOn struct {
	// Header is the name of a header field, whose first line counts; host is
	// the authority that the request is for.
	Header string `yaml:"header"`
	// Cookie is one of the client's cookies.
	Cookie *HashCookie `yaml:"cookie"`
	// Query is the name of a query parameter, as it stands in the query.
	Query string `yaml:"query"`
	// SourceIP stands for the address that the connection came from. Beside an
	// application that is the application's own: there a header tells more.
	SourceIP bool `yaml:"source_ip"`
	// Identity stands for the caller's SPIFFE ID, which one without mTLS has not.
	Identity bool `yaml:"identity"`
	// Combine makes this a part of what the request is known by, together with
	// what the next ones find, up to and with the first without it; an Envoy
	// hash policy that is not terminal. Default false: it is enough by itself.
	Combine bool `yaml:"combine"`
}

// Key is the key that a request is known by, as it is found item by item.
type Key struct {
	Value uint64
	Some  bool // there is one
}

// Add takes the key of an item into k, where found says that the request has it,
// and reports whether that is all.
func (k *Key) Add(h *HashOn, key uint64, found bool) (whole bool) {
	if found {
		if k.Some {
			key ^= bits.RotateLeft64(k.Value, 1)
		}
		k.Value, k.Some = key, true
	}
	return k.Some && !h.Combine
}

// HashCookie is a cookie that a request is known by. With ttl or session a
// client without one is given one, with a random value.
type HashCookie struct {
	// Name is the cookie's name. Required.
	Name string `yaml:"name"`
	// TTL is how long the client is to keep a cookie that it is given. 0: none
	// is given, unless session is set.
	TTL time.Duration `yaml:"ttl"`
	// Session gives a cookie that lasts as long as the client's session.
	Session bool `yaml:"session"`
	// Path is the path below which the client is to send it. Default /.
	Path string `yaml:"path"`
	// Insecure leaves out the attribute Secure, for clients that do not come by
	// https. HttpOnly and SameSite=Lax are always there.
	Insecure bool `yaml:"insecure"`
}

// Issued reports whether a client without the cookie is given one.
func (c *HashCookie) Issued() bool { return c.Session || c.TTL > 0 }

// Affinity is a cookie that names the endpoint a client is to stay at. Its value
// tells nothing, and none can be made up: it is a keyed digest of the endpoint.
type Affinity struct {
	// Name is the cookie's name. Required. Services that a client reaches under
	// one host name need cookies of different names.
	Name string `yaml:"name"`
	// TTL is how long the client is to keep the cookie. 0: as long as its session.
	TTL time.Duration `yaml:"ttl"`
	// Path is the path below which the client is to send it. Default /.
	Path string `yaml:"path"`
	// Insecure leaves out the attribute Secure, for clients that do not come by
	// https. HttpOnly and SameSite=Lax are always there.
	Insecure bool `yaml:"insecure"`
	// KeyFile is the file with the secret, at least 32 bytes, that values are
	// made with; proxies that share it know each other's cookies. It is read with
	// the configuration. Default: a random key that lasts as long as the process.
	KeyFile string `yaml:"key_file"`
}

// String says in one word what h is.
func (h HashOn) String() string {
	switch {
	case h.Header != "":
		return "header:" + h.Header
	case h.Cookie != nil:
		return "cookie:" + h.Cookie.Name
	case h.Query != "":
		return "query:" + h.Query
	case h.SourceIP:
		return "source_ip"
	}
	return "identity"
}

// String names the cookie.
func (a *Affinity) String() string {
	if a == nil {
		return "off"
	}
	return "cookie:" + a.Name
}

// Validate calls add once for every mistake, with the field's YAML name.
func (h HashOn) Validate(add func(field, problem string)) {
	given := 0
	for _, is := range [...]bool{h.Header != "", h.Cookie != nil, h.Query != "", h.SourceIP, h.Identity} {
		if is {
			given++
		}
	}
	if given != 1 {
		add("", "must have exactly one of header, cookie, query, source_ip and identity; write one item for each")
	}
	if h.Header != "" && !isToken(h.Header) {
		add("header", "is not the name of a header field; it has letters, digits and '-'")
	}
	if strings.ContainsAny(h.Query, "&=#? ") {
		add("query", "is never found: a parameter's name ends at '&' or '='")
	}
}

// Validate calls add once for every mistake, with the field's YAML name.
func (c HashCookie) Validate(add func(field, problem string)) {
	validateCookie(c.Name, c.Path, c.TTL, add)
	if c.Session && c.TTL > 0 {
		add("session", "says that the cookie ends with the session, but ttl is given; keep one")
	}
}

// Validate calls add once for every mistake, with the field's YAML name.
func (a Affinity) Validate(add func(field, problem string)) {
	validateCookie(a.Name, a.Path, a.TTL, add)
}

// maxTTL is what browsers keep a cookie for at most (RFC 6265bis section 5.5).
const maxTTL = 400 * 24 * time.Hour

func validateCookie(name, path string, ttl time.Duration, add func(field, problem string)) {
	if !isToken(name) || len(name) > 64 {
		add("name", "must name the cookie: letters, digits, '-' and '_', at most 64")
	}
	if path != "" && (path[0] != '/' || len(path) > 256 || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == ';' || r >= 0x7f })) {
		add("path", "must begin with / and have no space and no ';', at most 256 characters")
	}
	if ttl < 0 || ttl > maxTTL || ttl%time.Second != 0 {
		add("ttl", "must be whole seconds, at most 9600h, which is what clients keep")
	}
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// KeyOf is the hash of what a request or an endpoint is known by. It is the same
// in every proxy (FNV-1a, its bits spread).
func KeyOf[T ~string | ~[]byte](b T) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 0x100000001b3
	}
	return mix(h)
}
