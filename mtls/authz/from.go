package authz

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/mtls"
)

// fromKind says how an entry of From matches.
type fromKind uint8

const (
	fromExact fromKind = iota + 1
	fromPrefix
	fromSegments
	fromDomain
	fromAuthenticated
	fromAnonymous
)

type fromPattern struct {
	kind fromKind
	// text is the ID, the ID prefix with its final slash, the trust domain, or
	// the pattern of segments.
	text string
}

func parseFrom(s string) (fromPattern, error) {
	switch s {
	case "*":
		return fromPattern{kind: fromAuthenticated}, nil
	case "anonymous":
		return fromPattern{kind: fromAnonymous}, nil
	}
	base, wild := strings.CutSuffix(s, "/*")
	if strings.Contains(base, "*") {
		return parseSegments(s)
	}
	id, err := mtls.ParseID(base)
	switch {
	case err != nil:
		return fromPattern{}, fmt.Errorf(`%w; or "*", or "anonymous"`, err)
	case wild && id.Path() == "":
		return fromPattern{kind: fromDomain, text: id.TrustDomain()}, nil
	case wild:
		return fromPattern{kind: fromPrefix, text: base + "/"}, nil
	case id.Path() == "":
		return fromPattern{}, fmt.Errorf("%q is a trust domain; write %s/* for all its identities", s, s)
	}
	return fromPattern{kind: fromExact, text: base}, nil
}

func (f fromPattern) matches(id mtls.ID) bool {
	switch f.kind {
	case fromExact:
		return id.String() == f.text
	case fromPrefix:
		return strings.HasPrefix(id.String(), f.text)
	case fromSegments:
		return segmentsMatch(f.text, id.String())
	case fromDomain:
		return !id.IsZero() && id.TrustDomain() == f.text
	case fromAuthenticated:
		return !id.IsZero()
	case fromAnonymous:
		return id.IsZero()
	}
	return false
}

// parseSegments reads a pattern of which each * stands for a segment of the path.
func parseSegments(s string) (fromPattern, error) {
	const scheme = "spiffe://"
	rest, ok := strings.CutPrefix(s, scheme)
	domain, path, _ := strings.Cut(rest, "/")
	if !ok || strings.Contains(domain, "*") {
		return fromPattern{}, fmt.Errorf(`%q: "*" stands alone or for whole segments behind the trust domain, such as spiffe://td/ns/*/svc/web`, s)
	}
	plain := strings.Split(path, "/")
	for i, p := range plain {
		switch {
		case p == "*":
			plain[i] = "x"
		case strings.Contains(p, "*"):
			return fromPattern{}, fmt.Errorf(`%q: "*" stands for whole segments only`, s)
		}
	}
	if _, err := mtls.ParseID(scheme + domain + "/" + strings.Join(plain, "/")); err != nil {
		return fromPattern{}, fmt.Errorf("%q: %w", s, err)
	}
	return fromPattern{kind: fromSegments, text: s}, nil
}

// segmentsMatch compares an ID with a pattern, segment by segment.
func segmentsMatch(pattern, id string) bool {
	for {
		p, moreP := cutSegment(&pattern)
		s, moreS := cutSegment(&id)
		if p != s && (p != "*" || s == "") || moreP != moreS {
			return false
		}
		if !moreP {
			return true
		}
	}
}

// cutSegment takes what stands before the first slash off s.
func cutSegment(s *string) (segment string, more bool) {
	segment, *s, more = strings.Cut(*s, "/")
	return segment, more
}
