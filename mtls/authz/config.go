// Package authz decides whether an identity may do something: deny rules first, then allow rules, and deny when nothing allows.
package authz

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config is the authorization of one service's inbound traffic. With no rules
// everything that passed the handshake is allowed; with any, only what a rule allows.
type Config struct {
	// Mode is enforce (default), or observe: verdicts are counted and logged, and nothing is refused.
	// A percentage, such as 25%, refuses so many of what is not allowed: a way to
	// introduce rules, no protection.
	Mode guard.Mode `yaml:"mode"`
	// Rules are tried as a set: a matching deny rule wins over every allow rule, whatever their order.
	Rules []Rule `yaml:"rules"`
}

// Rule allows or denies a set of identities a set of requests. A rule matches
// when From, Methods and Paths all match.
type Rule struct {
	// Name appears in refusals, logs and metrics; default rules[N]. It must be unique.
	Name string `yaml:"name"`
	// Action is allow (default) or deny.
	Action Action `yaml:"action"`
	// From lists who: a SPIFFE ID, everything below a path ("spiffe://td/ns/*"), a trust
	// domain ("spiffe://td/*"), any authenticated peer ("*"), or peers without identity
	// ("anonymous", which occur with inbound mTLS permissive or off). At least one is needed.
	From []string `yaml:"from"`
	// Methods lists HTTP methods, case-sensitive as in RFC 9110 section 9.1; empty means all.
	Methods []string `yaml:"methods"`
	// Paths lists URL paths without query: exact ("/login"), or a path and everything
	// below it ("/admin/*" matches /admin and /admin/users, not /administrator); empty means all.
	// Requests are compared in normal form: percent-encoding undone, repeated slashes joined.
	// Paths that servers read in different ways, such as those with ".." or an encoded slash,
	// are refused where any rule names paths.
	Paths []string `yaml:"paths"`
}

// Action is what a matching rule does.
type Action uint8

const (
	// Allow permits what the rule matches, unless a deny rule matches too.
	Allow Action = iota
	// Deny refuses what the rule matches.
	Deny
)

// String returns the name used in configuration.
func (a Action) String() string {
	if a == Deny {
		return "deny"
	}
	return "allow"
}

// MarshalText implements encoding.TextMarshaler.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text means allow.
func (a *Action) UnmarshalText(b []byte) error {
	switch string(b) {
	case "allow", "":
		*a = Allow
	case "deny":
		*a = Deny
	default:
		return fmt.Errorf("unknown action %q; use allow or deny", b)
	}
	return nil
}

// Rule names that verdicts use when no configured rule decided.
const (
	// NoRules: there are no rules, so everything is allowed.
	NoRules = "no-rules"
	// DefaultDeny: there are rules and none matched.
	DefaultDeny = "default-deny"
	// AmbiguousPath: the request's path can be read in more than one way.
	AmbiguousPath = "ambiguous-path"
)

// Default returns the configuration without rules, enforced.
func Default() Config { return Config{} }

// Validate calls add for every mistake, with the field as written in YAML.
func (c Config) Validate(add func(field, problem string)) {
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	names := make(map[string]int, len(c.Rules))
	for i, r := range c.Rules {
		at := fmt.Sprintf("rules[%d].", i)
		switch r.Name {
		case "":
		case NoRules, DefaultDeny, AmbiguousPath:
			add(at+"name", fmt.Sprintf("%q is reserved for built-in verdicts; choose another", r.Name))
		default:
			if first, ok := names[r.Name]; ok {
				add(at+"name", fmt.Sprintf("%q is the name of rules[%d] already", r.Name, first))
			} else {
				names[r.Name] = i
			}
		}
		if r.Action > Deny {
			add(at+"action", "unknown action; use allow or deny")
		}
		if len(r.From) == 0 {
			add(at+"from", `is empty; name identities, or "*" for every authenticated peer`)
		}
		for j, from := range r.From {
			if _, err := parseFrom(from); err != nil {
				add(fmt.Sprintf("%sfrom[%d]", at, j), err.Error())
			}
		}
		for j, m := range r.Methods {
			if m == "*" || !isToken(m) {
				add(fmt.Sprintf("%smethods[%d]", at, j), fmt.Sprintf("%q is not an HTTP method; leave methods empty for all", m))
			}
		}
		for j, p := range r.Paths {
			if _, err := parsePath(p); err != nil {
				add(fmt.Sprintf("%spaths[%d]", at, j), err.Error())
			}
		}
	}
}

// fromKind says how an entry of From matches.
type fromKind uint8

const (
	fromExact fromKind = iota + 1
	fromPrefix
	fromDomain
	fromAuthenticated
	fromAnonymous
)

type fromPattern struct {
	kind fromKind
	// text is the ID, the ID prefix with its final slash, or the trust domain.
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
		return fromPattern{}, fmt.Errorf(`%q: "*" stands alone or after the last slash`, s)
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
	case fromDomain:
		return !id.IsZero() && id.TrustDomain() == f.text
	case fromAuthenticated:
		return !id.IsZero()
	case fromAnonymous:
		return id.IsZero()
	}
	return false
}

type pathPattern struct {
	// text is in normal form; for a subtree without its final slash.
	text    string
	subtree bool
}

func parsePath(s string) (pathPattern, error) {
	base, wild := strings.CutSuffix(s, "/*")
	switch {
	case !strings.HasPrefix(s, "/"):
		return pathPattern{}, fmt.Errorf("%q does not begin with a slash", s)
	case strings.ContainsAny(s, "?#"):
		return pathPattern{}, fmt.Errorf("%q: a query or fragment plays no part in paths; leave it out", s)
	case strings.Contains(base, "*"):
		return pathPattern{}, fmt.Errorf(`%q: "*" is allowed after the last slash only; write %%2A for the character itself`, s)
	}
	if base == "" {
		return pathPattern{subtree: true}, nil
	}
	normal, ok := normalize(nil, []byte(base))
	if !ok {
		return pathPattern{}, fmt.Errorf("%q: a dot segment, a backslash, an encoded slash or backslash, a control character or a broken escape matches no request", s)
	}
	if string(decoded(base)) != string(normal) || wild && strings.HasSuffix(base, "/") {
		return pathPattern{}, fmt.Errorf("%q is not in normal form; requests are compared with repeated slashes joined", s)
	}
	return pathPattern{text: string(normal), subtree: wild}, nil
}

func (p pathPattern) matches(path []byte) bool {
	if !p.subtree {
		return string(path) == p.text
	}
	n := len(p.text)
	return len(path) >= n && string(path[:n]) == p.text && (len(path) == n || path[n] == '/')
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return true
}
