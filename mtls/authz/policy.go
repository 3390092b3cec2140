package authz

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/jwt"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Verdict is a decision and who took it.
type Verdict struct {
	// Allowed is what the rules say, whatever the mode.
	Allowed bool
	// Rule is the name of the deciding rule, or NoRules, DefaultDeny, DefaultAllow or AmbiguousPath.
	Rule string
	// Detail says why, where the rule's name does not; most often empty.
	Detail string
	// Mode is the policy's mode.
	Mode guard.Mode
}

// Refuse reports whether the request, of the exchange of d, must be refused: not
// allowed, and the mode acts for it.
func (v Verdict) Refuse(d guard.Draw) bool { return !v.Allowed && v.Mode.Acts(d) }

// Err returns the detail as an error, nil without one.
func (v Verdict) Err() error {
	if v.Detail == "" {
		return nil
	}
	return errors.New(v.Detail)
}

// Request is what rules look at of a request.
type Request struct {
	Method []byte
	// Resource is the path and query of the request target, as received.
	Resource []byte
	// Host is the authority that the request is for; empty for none.
	Host []byte
	// Head has the fields, as spans of Raw; nil where they are not known.
	Head *http1.Head
	Raw  []byte
	// Query is that of the target, in which tokens may be; Now is by what time they
	// must be valid.
	Query []byte
	Now   time.Time
	// Tokens is what the rules have found of tokens, one for each of Policy.Verifiers.
	// With memory of its own Check does not allocate; see Policy.Tokens.
	Tokens Tokens
}

// Policy is the compiled form of a Config. It is immutable and may be used concurrently.
type Policy struct {
	mode guard.Mode
	// rules are in the order in which they are tried, so that the first match,
	// and with it the name in the verdict, is the same every time. As a set of
	// rules those that deny stand first.
	rules []*rule
	// unmatched is the verdict where none matches.
	unmatched Verdict
	// set says that a rule for requests that allows is no answer to a connection,
	// but the rules behind it may be.
	set bool
	// byPath says that some rule looks at the path; slashes that encoded ones are compared.
	byPath, slashes bool
	verifiers       []*jwt.Verifier
	// scratch holds *[]byte for paths that are not in normal form already.
	scratch sync.Pool

	mu      sync.RWMutex
	callers map[string]*Caller
}

// maxCallers is for how many identities a policy remembers which rules are for them.
const maxCallers = 4096

// Caller is a policy as it is for one identity. It is immutable.
type Caller struct {
	policy *Policy
	rules  []*rule
}

type rule struct {
	name    string
	action  Action
	from    []fromPattern
	methods [][]byte
	paths   []pathPattern
	prefix  string
	regex   *regexp.Regexp
	fields  []fieldCondition
	// byPath says that it looks at the path, http at anything that only requests have.
	byPath, http bool
	jwt          []asked
}

// Compile is CompileWith where nobody fetches keys: tokens of providers whose keys
// are not inline are refused.
func Compile(cfg Config) (*Policy, error) {
	return CompileWith(cfg, func(p *jwt.Provider) (*jwt.Verifier, error) { return jwt.NewVerifier(*p), nil })
}

// CompileWith checks the configuration as Validate does and returns the policy, or
// all mistakes joined. verifier gives what verifies the tokens of a provider.
func CompileWith(cfg Config, verifier func(*jwt.Provider) (*jwt.Verifier, error)) (*Policy, error) {
	var errs []error
	cfg.Validate(func(field, problem string) {
		errs = append(errs, fmt.Errorf("authorization.%s: %s", field, problem))
	})
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p := &Policy{mode: cfg.Mode, set: cfg.Order != FirstMatch, slashes: cfg.EncodedSlashes == CompareSlashes}
	p.unmatched = Verdict{Rule: DefaultDeny, Mode: p.mode}
	switch {
	case (cfg.Default == "" || cfg.Default == DefaultAuto) && len(cfg.Rules) == 0:
		p.unmatched = Verdict{Allowed: true, Rule: NoRules, Mode: p.mode}
	case cfg.Default == DefaultAllows:
		p.unmatched = Verdict{Allowed: true, Rule: DefaultAllow, Mode: p.mode}
	}
	p.scratch.New = func() any { return new([]byte) }
	for i := range cfg.JWTProviders {
		v, err := verifier(&cfg.JWTProviders[i])
		if err != nil {
			return nil, fmt.Errorf("authorization.jwt_providers[%d].%w", i, err)
		}
		p.verifiers = append(p.verifiers, v)
	}
	for i := range cfg.Rules {
		r, err := cfg.Rules[i].compile(i)
		if err != nil {
			return nil, err
		}
		r.jwt = cfg.Rules[i].JWT.compile(cfg.JWTProviders)
		r.http = r.http || r.jwt != nil
		p.rules = append(p.rules, r)
		p.byPath = p.byPath || r.byPath
	}
	if p.set {
		slices.SortStableFunc(p.rules, func(a, b *rule) int { return cmp.Compare(min(b.action, Deny), min(a.action, Deny)) })
	}
	return p, nil
}

func (r *Rule) compile(i int) (*rule, error) {
	c := &rule{name: r.Name, action: r.Action}
	if c.name == "" {
		c.name = fmt.Sprintf("rules[%d]", i)
	}
	for _, s := range r.From {
		f, err := parseFrom(s)
		if err != nil {
			return nil, err
		}
		c.from = append(c.from, f)
	}
	for _, m := range r.Methods {
		c.methods = append(c.methods, []byte(m))
	}
	for _, s := range r.Paths {
		path, err := parsePath(s)
		if err != nil {
			return nil, err
		}
		c.paths = append(c.paths, path)
	}
	var err error
	if r.PathPrefix != "" {
		if c.prefix, err = parsePrefix(r.PathPrefix); err != nil {
			return nil, err
		}
	}
	if r.PathRegex != "" {
		if c.regex, err = wholly(r.PathRegex); err != nil {
			return nil, err
		}
	}
	for j := range r.Headers {
		f, err := r.Headers[j].compile(r.Action)
		if err != nil {
			return nil, err
		}
		c.fields = append(c.fields, f)
	}
	c.byPath = len(c.paths) > 0 || c.prefix != "" || c.regex != nil
	c.http = c.byPath || len(c.methods)+len(c.fields) > 0
	return c, nil
}

// Mode returns the policy's mode.
func (p *Policy) Mode() guard.Mode { return p.mode }

// Caller returns the policy as it is for id: of the rules those that are for it.
// The zero id is a peer without identity. What is found is remembered for up to
// 4096 identities, and then costs no allocation.
func (p *Policy) Caller(id mtls.ID) *Caller {
	key := ""
	if !id.IsZero() {
		key = id.String()
	}
	p.mu.RLock()
	c := p.callers[key]
	p.mu.RUnlock()
	if c != nil {
		return c
	}
	c = &Caller{policy: p}
	for _, r := range p.rules {
		if r.fromMatches(id) {
			c.rules = append(c.rules, r)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.callers == nil {
		p.callers = make(map[string]*Caller)
	}
	if len(p.callers) < maxCallers {
		p.callers[strings.Clone(key)] = c
	}
	return c
}

// Check decides one HTTP request of id; see Caller.Check.
func (p *Policy) Check(id mtls.ID, r *Request) Verdict { return p.Caller(id).Check(r) }

// CheckConn decides a connection of id; see Caller.CheckConn.
func (p *Policy) CheckConn(id mtls.ID) Verdict { return p.Caller(id).CheckConn() }

// Policy returns what c is a part of.
func (c *Caller) Policy() *Policy { return c.policy }

// Check decides one HTTP request. If any rule of the policy looks at paths, a
// path that servers read in different ways (see AmbiguousPath) is refused for
// everybody. The targets "*" of OPTIONS and authority-form of CONNECT have no
// path: rules with conditions on it do not match them. Check does not allocate.
func (c *Caller) Check(r *Request) Verdict {
	p := c.policy
	if !p.byPath {
		return c.decide(r, nil)
	}
	path := r.Resource
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	switch {
	case plain(path):
		return c.decide(r, path)
	case len(path) == 0:
		return c.decide(r, []byte{'/'})
	case len(path) == 1 && path[0] == '*', string(r.Method) == "CONNECT" && path[0] != '/':
		return c.decide(r, nil)
	}
	scratch := p.scratch.Get().(*[]byte)
	normal, ok := normalize((*scratch)[:0], path, p.slashes)
	v := Verdict{Rule: AmbiguousPath, Mode: p.mode}
	if ok {
		v = c.decide(r, normal)
	}
	*scratch = normal
	p.scratch.Put(scratch)
	return v
}

// NotHTTP is the detail of a verdict on a connection by a rule that looks at
// requests.
const NotHTTP = "the rule looks at requests, and this is a connection"

// CheckConn decides a TCP connection, of which no request is known: a rule with
// conditions on requests refuses it; only one that allows, in a set, leaves it to
// the others.
func (c *Caller) CheckConn() Verdict {
	p := c.policy
	for _, r := range c.rules {
		switch {
		case !r.http:
			return Verdict{Allowed: r.action == Allow, Rule: r.name, Mode: p.mode}
		case r.action != Allow || !p.set:
			return Verdict{Rule: r.name, Detail: NotHTTP, Mode: p.mode}
		}
	}
	return p.unmatched
}

// MayEver reports whether some request of id might be let in: not when a deny rule
// takes all of them, or no allow rule any. For tools, which look at rules ahead.
func (p *Policy) MayEver(id mtls.ID) bool {
	for _, r := range p.Caller(id).rules {
		switch {
		case r.action == Allow:
			return true
		case r.action == Deny && !r.http:
			return false
		}
	}
	return p.unmatched.Allowed
}

// decide takes a path in normal form, nil for none.
func (c *Caller) decide(q *Request, path []byte) Verdict {
	why := "" // the first token that was not as asked for
	for _, r := range c.rules {
		if !r.matches(c.policy, q, path) {
			continue
		}
		if r.jwt != nil {
			detail := c.policy.tokens(r.jwt, q)
			switch {
			case r.action == Require && detail == "":
				continue
			case r.action == Require:
				return Verdict{Rule: r.name, Detail: detail, Mode: c.policy.mode}
			case detail != "":
				why = cmp.Or(why, detail)
				continue
			}
		}
		v := Verdict{Allowed: r.action == Allow, Rule: r.name, Mode: c.policy.mode}
		if !v.Allowed {
			v.Detail = why
		}
		return v
	}
	v := c.policy.unmatched
	if !v.Allowed {
		v.Detail = why
	}
	return v
}

func (r *rule) fromMatches(id mtls.ID) bool {
	for i := range r.from {
		if r.from[i].matches(id) {
			return true
		}
	}
	return false
}

// matches is about all conditions but those on the caller.
func (r *rule) matches(p *Policy, q *Request, path []byte) bool {
	if !r.methodMatches(q.Method) || r.byPath && !r.pathMatches(path) {
		return false
	}
	for i := range r.fields {
		if !r.fields[i].met(p, q) {
			return false
		}
	}
	return true
}

func (r *rule) methodMatches(method []byte) bool {
	for _, m := range r.methods {
		if bytes.Equal(m, method) {
			return true
		}
	}
	return len(r.methods) == 0
}

func (r *rule) pathMatches(path []byte) bool {
	if path == nil || len(path) < len(r.prefix) || string(path[:len(r.prefix)]) != r.prefix || r.regex != nil && !r.regex.Match(path) {
		return false
	}
	for i := range r.paths {
		if r.paths[i].matches(path) {
			return true
		}
	}
	return len(r.paths) == 0
}
