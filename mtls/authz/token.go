package authz

import (
	"fmt"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/jwt"
)

func (j *JWT) validate(providers map[string]bool, add func(field, problem string)) {
	if len(j.Providers) == 0 {
		add("providers", "is empty; name one of jwt_providers")
	}
	for i, p := range j.Providers {
		at := fmt.Sprintf("providers[%d].", i)
		if !providers[p.Name] {
			add(at+"name", fmt.Sprintf("%q is none of jwt_providers", p.Name))
		}
		for k, c := range p.Claims {
			if len(c.Path) == 0 {
				add(fmt.Sprintf("%sclaims[%d].path", at, k), "is empty; write the names that lead to the claim")
			}
		}
	}
}

// asked is a compiled JWTProvider.
type asked struct {
	provider int // of Policy.verifiers
	claims   []JWTClaim
	// details are what a verdict says, by failure.
	details []string
}

// compile returns nil for no requirement.
func (j *JWT) compile(providers []jwt.Provider) (all []asked) {
	if j == nil {
		return nil
	}
	for _, p := range j.Providers {
		a := asked{provider: slices.IndexFunc(providers, func(o jwt.Provider) bool { return o.Name == p.Name }), claims: p.Claims}
		for f := jwt.OK; f <= jwt.ClaimMissing; f++ {
			a.details = append(a.details, fmt.Sprintf("JWT of %s: %s", p.Name, f))
		}
		all = append(all, a)
	}
	return all
}

// Tokens is what was found of the tokens of a request, for each provider.
type Tokens []found

type found struct {
	asked bool
	token *jwt.Token
	why   jwt.Failure
}

// Tokens returns empty results for one request, in the memory of old.
func (p *Policy) Tokens(old Tokens) Tokens {
	if len(p.verifiers) == 0 {
		return old[:0]
	}
	old = slices.Grow(old[:0], len(p.verifiers))[:len(p.verifiers)]
	clear(old)
	return old
}

// Verifiers are those of the providers.
func (p *Policy) Verifiers() []*jwt.Verifier { return p.verifiers }

// tokens returns why none of the tokens is there that all asks for one of; empty
// if one is.
func (p *Policy) tokens(all []asked, q *Request) (detail string) {
	if len(q.Tokens) != len(p.verifiers) {
		q.Tokens = p.Tokens(q.Tokens)
	}
	for i := range all {
		a := &all[i]
		f := &q.Tokens[a.provider]
		if !f.asked {
			if q.Now.IsZero() {
				q.Now = time.Now() // tools ask without a clock
			}
			in := jwt.Request{Head: q.Head, Raw: q.Raw, Query: q.Query}
			f.asked = true
			f.token, f.why = p.verifiers[a.provider].Verify(&in, q.Now)
		}
		why := f.why
		if why == jwt.OK {
			if a.met(f.token) {
				return ""
			}
			why = jwt.ClaimMissing
		}
		if detail == "" {
			detail = a.details[why]
		}
	}
	return detail
}

func (a *asked) met(t *jwt.Token) bool {
	for i := range a.claims {
		if !t.Has(a.claims[i].Path, a.claims[i].Value) {
			return false
		}
	}
	return true
}

// Drop leaves out of the head what is not to be passed on: verified tokens, and
// fields in the name of those that AppendPayloads writes.
func (p *Policy) Drop(q *Request) {
	for i, v := range p.verifiers {
		var t *jwt.Token
		if i < len(q.Tokens) {
			t = q.Tokens[i].token
		}
		v.Drop(q.Head, q.Raw, t)
	}
}

// AppendPayloads appends the fields with the payloads of verified tokens.
func (p *Policy) AppendPayloads(b []byte, found Tokens) []byte {
	for i := range found {
		b = p.verifiers[i].AppendPayload(b, found[i].token)
	}
	return b
}

// PayloadSize is how many bytes AppendPayloads appends.
func (p *Policy) PayloadSize(found Tokens) (n int) {
	for i := range found {
		n += p.verifiers[i].PayloadSize(found[i].token)
	}
	return n
}
