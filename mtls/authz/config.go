// Package authz decides whether an identity may do something, by rules on the caller and the request, and denies unless told otherwise.
package authz

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/mtls/jwt"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Config is the authorization of one service's inbound traffic. With no rules
// everything that passed the handshake is allowed; with any, only what a rule allows.
type Config struct {
	// Mode is enforce (default), or observe: verdicts are counted and logged, and nothing is refused.
	// A percentage, such as 25%, refuses so many of what is not allowed: a way to
	// introduce rules, no protection.
	Mode guard.Mode `yaml:"mode"`
	// Order says how rules are tried. set (default): a matching deny rule wins over every
	// allow rule, whatever their order. first_match: the first rule that matches decides.
	Order Order `yaml:"order" enum:"set,first_match"`
	// Default is what holds for what no rule matches: allow, deny, or auto (default), which is
	// deny where there are rules, and allow where there are none.
	Default Default `yaml:"default" enum:"auto,allow,deny"`
	// EncodedSlashes is what becomes, where rules name paths, of requests whose path has an encoded
	// slash (%2F), which servers read in different ways. refuse (default): they are refused.
	// compare: they are compared, and the slash takes no part in dividing the path.
	EncodedSlashes EncodedSlashes `yaml:"encoded_slashes" enum:"refuse,compare"`
	// JWTProviders are issuers of tokens that rules may ask for.
	JWTProviders []jwt.Provider `yaml:"jwt_providers"`
	// Rules are tried in the order that order says.
	Rules []Rule `yaml:"rules"`
}

// Rule allows or denies a set of identities a set of requests. A rule matches
// when From and all other conditions match. Whatever conditions on requests it has,
// it lets no connection pass that is not HTTP.
type Rule struct {
	// Name appears in refusals, logs and metrics; default rules[N]. It must be unique.
	Name string `yaml:"name"`
	// Action is allow (default), deny, or require: what the rule matches is refused unless jwt is met,
	// and else left to the rules behind it. In a set, rules that deny or require come first.
	Action Action `yaml:"action"`
	// From lists who: a SPIFFE ID, everything below a path ("spiffe://td/ns/*"), a trust
	// domain ("spiffe://td/*"), any authenticated peer ("*"), or peers without identity
	// ("anonymous", which occur with inbound mTLS permissive or off). At least one is needed.
	// With a * in the middle ("spiffe://td/ns/*/svc/web") each * stands for one segment, one at the end too.
	From []string `yaml:"from"`
	// Methods lists HTTP methods, case-sensitive as in RFC 9110 section 9.1; empty means all.
	Methods []string `yaml:"methods"`
	// Paths lists URL paths without query: exact ("/login"), or a path and everything
	// below it ("/admin/*" matches /admin and /admin/users, not /administrator); empty means all.
	// Requests are compared in normal form: percent-encoding undone, repeated slashes joined.
	// Paths that servers read in different ways, such as those with ".." or an encoded slash,
	// are refused where any rule names paths.
	Paths []string `yaml:"paths"`
	// PathPrefix is what the path begins with, letter by letter ("/adm" matches /administrator),
	// in the same normal form.
	PathPrefix string `yaml:"path_prefix"`
	// PathRegex is a regular expression (RE2) that the whole path matches, in the same normal form.
	PathRegex string `yaml:"path_regex"`
	// Headers are conditions on header fields, of which all must be met.
	Headers []Header `yaml:"headers"`
	// JWT asks for a verified token. A request without one does not match a rule that allows or denies.
	JWT *JWT `yaml:"jwt"`
}

// JWT asks for a token of one of several providers.
type JWT struct {
	// The providers, of which one is enough. Required.
	Providers []JWTProvider `yaml:"providers"`
}

// JWTProvider asks for a token of one provider.
type JWTProvider struct {
	// One of jwt_providers. Required.
	Name string `yaml:"name"`
	// Claims that the token must have, all of them.
	Claims []JWTClaim `yaml:"claims"`
}

// JWTClaim asks for a claim.
type JWTClaim struct {
	// Where it stands in the payload: names from the outside to the inside. Required.
	Path []string `yaml:"path"`
	// What it is: a text.
	Value string `yaml:"value"`
}

// Order is how rules are tried.
type Order string

// The orders. The empty one means SetOrder.
const (
	SetOrder   Order = "set"
	FirstMatch Order = "first_match"
)

// Default is what holds for what no rule matches.
type Default string

// The defaults. The empty one means DefaultAuto.
const (
	DefaultAuto   Default = "auto"
	DefaultAllows Default = "allow"
	DefaultDenies Default = "deny"
)

// EncodedSlashes is what becomes of paths with an encoded slash.
type EncodedSlashes string

// The ways. The empty one means RefuseSlashes.
const (
	RefuseSlashes  EncodedSlashes = "refuse"
	CompareSlashes EncodedSlashes = "compare"
)

// Action is what a matching rule does.
type Action uint8

const (
	// Allow permits what the rule matches, unless a deny rule matches too.
	Allow Action = iota
	// Deny refuses what the rule matches.
	Deny
	// Require refuses what the rule matches and has no token as asked for.
	Require
)

// String returns the name used in configuration.
func (a Action) String() string {
	switch a {
	case Deny:
		return "deny"
	case Require:
		return "require"
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
	case "require":
		*a = Require
	default:
		return fmt.Errorf("unknown action %q; use allow, deny or require", b)
	}
	return nil
}

// Rule names that verdicts use when no configured rule decided.
const (
	// NoRules: there are no rules, so everything is allowed.
	NoRules = "no-rules"
	// DefaultDeny: none matched, and that means deny.
	DefaultDeny = "default-deny"
	// DefaultAllow: none matched, and that means allow.
	DefaultAllow = "default-allow"
	// AmbiguousPath: the request's path can be read in more than one way.
	AmbiguousPath = "ambiguous-path"
)

// Defaults returns the configuration without rules, enforced.
func Defaults() Config {
	return Config{Order: SetOrder, Default: DefaultAuto, EncodedSlashes: RefuseSlashes}
}

// Validate calls add for every mistake, with the field as written in YAML.
func (c Config) Validate(add func(field, problem string)) {
	if !c.Mode.Known() {
		add("mode", guard.Unknown)
	}
	if c.Order != "" && c.Order != SetOrder && c.Order != FirstMatch {
		add("order", fmt.Sprintf("unknown order %q; use set or first_match", c.Order))
	}
	if c.Default != "" && c.Default != DefaultAuto && c.Default != DefaultAllows && c.Default != DefaultDenies {
		add("default", fmt.Sprintf("unknown default %q; use auto, allow or deny", c.Default))
	}
	if c.EncodedSlashes != "" && c.EncodedSlashes != RefuseSlashes && c.EncodedSlashes != CompareSlashes {
		add("encoded_slashes", fmt.Sprintf("unknown choice %q; use refuse or compare", c.EncodedSlashes))
	}
	providers := make(map[string]bool, len(c.JWTProviders))
	for i := range c.JWTProviders {
		p, at := &c.JWTProviders[i], fmt.Sprintf("jwt_providers[%d].", i)
		p.Validate(func(field, problem string) { add(at+field, problem) })
		if p.Name != "" && providers[p.Name] {
			add(at+"name", fmt.Sprintf("%q is the name of another provider already", p.Name))
		}
		providers[p.Name] = true
	}
	names := make(map[string]int, len(c.Rules))
	for i, r := range c.Rules {
		at := fmt.Sprintf("rules[%d].", i)
		switch r.Name {
		case "":
		case NoRules, DefaultDeny, DefaultAllow, AmbiguousPath:
			add(at+"name", fmt.Sprintf("%q is reserved for built-in verdicts; choose another", r.Name))
		default:
			if first, ok := names[r.Name]; ok {
				add(at+"name", fmt.Sprintf("%q is the name of rules[%d] already", r.Name, first))
			} else {
				names[r.Name] = i
			}
		}
		if r.Action > Require {
			add(at+"action", "unknown action; use allow, deny or require")
		}
		if r.Action == Require && r.JWT == nil {
			add(at+"action", "require asks for a token; write jwt, or deny")
		}
		if r.JWT != nil {
			r.JWT.validate(providers, func(field, problem string) { add(at+"jwt."+field, problem) })
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
		if r.PathPrefix != "" {
			if _, err := parsePrefix(r.PathPrefix); err != nil {
				add(at+"path_prefix", err.Error())
			}
		}
		if r.PathRegex != "" {
			if _, err := wholly(r.PathRegex); err != nil {
				add(at+"path_regex", err.Error())
			}
		}
		for j, h := range r.Headers {
			h.validate(func(field, problem string) { add(fmt.Sprintf("%sheaders[%d].%s", at, j, field), problem) })
		}
	}
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
