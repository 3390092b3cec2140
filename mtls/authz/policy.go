package authz

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

// Verdict is a decision and who took it.
type Verdict struct {
	// Allowed is what the rules say, whatever the mode.
	Allowed bool
	// Rule is the name of the deciding rule, or NoRules, DefaultDeny or AmbiguousPath.
	Rule string
	// Mode is the policy's mode.
	Mode guard.Mode
}

// Refuse reports whether the request, of the exchange of d, must be refused: not
// allowed, and the mode acts for it.
func (v Verdict) Refuse(d guard.Draw) bool { return !v.Allowed && v.Mode.Acts(d) }

// Policy is the compiled form of a Config. It is immutable and may be used concurrently.
type Policy struct {
	mode guard.Mode
	// deny and allow keep the order of the configuration, so that the first
	// match, and with it the name in the verdict, is the same every time.
	deny, allow []rule
	// byPath says that some rule looks at the path.
	byPath bool
	// scratch holds *[]byte for paths that are not in normal form already.
	scratch sync.Pool
}

type rule struct {
	name    string
	from    []fromPattern
	methods [][]byte
	paths   []pathPattern
}

// Compile checks the configuration as Validate does and returns the policy, or
// all mistakes joined.
func Compile(cfg Config) (*Policy, error) {
	var errs []error
	cfg.Validate(func(field, problem string) {
		errs = append(errs, fmt.Errorf("authorization.%s: %s", field, problem))
	})
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p := &Policy{mode: cfg.Mode}
	p.scratch.New = func() any { return new([]byte) }
	for i, r := range cfg.Rules {
		c := rule{name: r.Name}
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
			p.byPath = true
		}
		if r.Action == Deny {
			p.deny = append(p.deny, c)
		} else {
			p.allow = append(p.allow, c)
		}
	}
	return p, nil
}

// Mode returns the policy's mode.
func (p *Policy) Mode() guard.Mode { return p.mode }

// Check decides one HTTP request. The zero id is a peer without identity. The
// path is the request target's, as received; a query is ignored. If any rule
// looks at paths, a path that servers read in different ways (see AmbiguousPath)
// is refused for everybody. The targets "*" of OPTIONS and authority-form of
// CONNECT have no path: rules with paths do not match them. Check does not allocate.
func (p *Policy) Check(id mtls.ID, method, path []byte) Verdict {
	if len(p.deny)+len(p.allow) == 0 {
		return Verdict{Allowed: true, Rule: NoRules, Mode: p.mode}
	}
	if !p.byPath {
		return p.decide(id, method, nil)
	}
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	switch {
	case plain(path):
		return p.decide(id, method, path)
	case len(path) == 0:
		return p.decide(id, method, []byte{'/'})
	case len(path) == 1 && path[0] == '*', string(method) == "CONNECT" && path[0] != '/':
		return p.decide(id, method, nil)
	}
	scratch := p.scratch.Get().(*[]byte)
	normal, ok := normalize((*scratch)[:0], path)
	v := Verdict{Rule: AmbiguousPath, Mode: p.mode}
	if ok {
		v = p.decide(id, method, normal)
	}
	*scratch = normal
	p.scratch.Put(scratch)
	return v
}

// CheckConn decides a TCP connection, of which neither method nor path is known:
// a deny rule with methods or paths counts as one without them, and an allow
// rule with methods or paths allows nothing.
func (p *Policy) CheckConn(id mtls.ID) Verdict {
	if len(p.deny)+len(p.allow) == 0 {
		return Verdict{Allowed: true, Rule: NoRules, Mode: p.mode}
	}
	for i := range p.deny {
		if p.deny[i].fromMatches(id) {
			return Verdict{Rule: p.deny[i].name, Mode: p.mode}
		}
	}
	for i := range p.allow {
		r := &p.allow[i]
		if len(r.methods) == 0 && len(r.paths) == 0 && r.fromMatches(id) {
			return Verdict{Allowed: true, Rule: r.name, Mode: p.mode}
		}
	}
	return Verdict{Rule: DefaultDeny, Mode: p.mode}
}

// MayEver reports whether some request of id might be let in: not when a deny rule
// takes all of them, or no allow rule any. For tools, which look at rules ahead.
func (p *Policy) MayEver(id mtls.ID) bool {
	if len(p.deny)+len(p.allow) == 0 {
		return true
	}
	for i := range p.deny {
		if r := &p.deny[i]; len(r.methods) == 0 && len(r.paths) == 0 && r.fromMatches(id) {
			return false
		}
	}
	return slices.ContainsFunc(p.allow, func(r rule) bool { return r.fromMatches(id) })
}

// decide takes a path in normal form, nil for none.
func (p *Policy) decide(id mtls.ID, method, path []byte) Verdict {
	for i := range p.deny {
		if p.deny[i].matches(id, method, path) {
			return Verdict{Rule: p.deny[i].name, Mode: p.mode}
		}
	}
	for i := range p.allow {
		if p.allow[i].matches(id, method, path) {
			return Verdict{Allowed: true, Rule: p.allow[i].name, Mode: p.mode}
		}
	}
	return Verdict{Rule: DefaultDeny, Mode: p.mode}
}

func (r *rule) matches(id mtls.ID, method, path []byte) bool {
	return r.methodMatches(method) && r.pathMatches(path) && r.fromMatches(id)
}

func (r *rule) fromMatches(id mtls.ID) bool {
	for i := range r.from {
		if r.from[i].matches(id) {
			return true
		}
	}
	return false
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
	if path != nil {
		for i := range r.paths {
			if r.paths[i].matches(path) {
				return true
			}
		}
	}
	return len(r.paths) == 0
}
