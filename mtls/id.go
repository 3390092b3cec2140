// Package mtls says who is who: SPIFFE identities, the sources that keep certificates and trust bundles fresh, and the TLS configurations made from them.
package mtls

import (
	"errors"
	"fmt"
	"strings"
)

const (
	schemePrefix = "spiffe://"
	// MaxIDLength is the longest SPIFFE ID accepted, in bytes (SPIFFE-ID §2.3).
	MaxIDLength = 2048
	// MaxTrustDomainLength is the longest trust domain name accepted, in bytes (SPIFFE-ID §2.1).
	MaxTrustDomainLength = 255
)

// ID is a SPIFFE ID such as spiffe://example.org/ns/prod/web. It is comparable
// with == and can be a map key. The zero value is no identity.
type ID struct {
	text string
	// path is where the path begins in text; len(text) when there is none.
	path int
}

// ParseID reads a SPIFFE ID in the strict form of the SPIFFE-ID standard,
// section 2: lower-case scheme and trust domain, no port, user, query or
// fragment, no percent-encoding, no empty or dot segments and no trailing
// slash. The path may be empty, which names the trust domain itself.
func ParseID(s string) (ID, error) {
	switch {
	case s == "":
		return ID{}, errors.New("SPIFFE ID is empty; write spiffe://<trust domain>/<path>")
	case len(s) > MaxIDLength:
		return ID{}, fmt.Errorf("SPIFFE ID has %d bytes; at most %d are allowed", len(s), MaxIDLength)
	case !strings.HasPrefix(s, schemePrefix):
		return ID{}, fmt.Errorf("SPIFFE ID %q does not begin with %s", s, schemePrefix)
	}
	end := strings.IndexByte(s[len(schemePrefix):], '/')
	if end < 0 {
		end = len(s)
	} else {
		end += len(schemePrefix)
	}
	if _, err := ParseTrustDomain(s[len(schemePrefix):end]); err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %q: %w", s, err)
	}
	if err := checkPath(s[end:]); err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %q: %w", s, err)
	}
	return ID{text: s, path: end}, nil
}

// ParseTrustDomain checks the name of a trust domain (SPIFFE-ID §2.1: lower-case
// letters, digits, dot, dash and underscore, at most 255 bytes) and returns it.
func ParseTrustDomain(s string) (string, error) {
	if s == "" {
		return "", errors.New("trust domain is empty")
	}
	if len(s) > MaxTrustDomainLength {
		return "", fmt.Errorf("trust domain has %d bytes; at most %d are allowed", len(s), MaxTrustDomainLength)
	}
	for i := 0; i < len(s); i++ {
		if !trustDomainByte(s[i]) {
			return "", fmt.Errorf("trust domain %q: byte %q is not allowed; use lower-case letters, digits, '.', '-' and '_'", s, s[i])
		}
	}
	return s, nil
}

func checkPath(p string) error {
	for len(p) > 0 {
		// p begins with a slash: it was cut at one.
		p = p[1:]
		segment := p
		if i := strings.IndexByte(p, '/'); i >= 0 {
			segment, p = p[:i], p[i:]
		} else {
			p = ""
		}
		switch segment {
		case "":
			return errors.New("path has an empty segment or a trailing slash")
		case ".", "..":
			return errors.New("path has a dot segment")
		}
		for i := 0; i < len(segment); i++ {
			if c := segment[i]; !trustDomainByte(c) && (c < 'A' || c > 'Z') {
				return fmt.Errorf("path: byte %q is not allowed; use letters, digits, '.', '-' and '_'", c)
			}
		}
	}
	return nil
}

func trustDomainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
}

// String returns the ID as it was parsed, "" for the zero value.
func (id ID) String() string { return id.text }

// TrustDomain returns the name of the trust domain, "" for the zero value.
func (id ID) TrustDomain() string {
	if id.text == "" {
		return ""
	}
	return id.text[len(schemePrefix):id.path]
}

// Path returns the path with its leading slash, "" when there is none.
func (id ID) Path() string { return id.text[id.path:] }

// IsZero reports whether id is no identity.
func (id ID) IsZero() bool { return id.text == "" }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.text), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text gives the zero value.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
