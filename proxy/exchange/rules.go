package exchange

import (
	"bytes"
	"slices"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
)

// caller returns what p says of the session's peer.
func (s *Session) caller(p *authz.Policy) *authz.Caller {
	c := s.rules.Load()
	if c == nil || c.Policy() != p {
		c = p.Caller(s.peer.ID)
		s.rules.Store(c)
	}
	return c
}

// asks says what p would make of t if it were opened now.
func (s *Session) asks(t *tunnelled, p *authz.Policy) authz.Verdict {
	switch {
	case p == nil:
		return authz.Verdict{Allowed: true}
	case t.asked == nil:
		return s.caller(p).CheckConn()
	}
	asked := *t.asked // what it finds of tokens is for p alone
	return s.caller(p).Check(&asked)
}

// keepAsked copies what rules look at of the request, so that other rules can be
// asked about its tunnel later. Where there are no rules there never will be.
func (x *exchange) keepAsked() *authz.Request {
	if x.l.Route.Authz == nil {
		return &authz.Request{}
	}
	raw := bytes.Clone(x.raw)
	head := x.req.Head
	head.Fields = slices.Clone(head.Fields)
	return &authz.Request{
		Method: x.req.MethodSpan.Of(raw), Resource: x.req.Resource(raw), Host: x.req.Host.Of(raw), Head: &head, Raw: raw,
		Query: x.req.Query.Of(raw), Now: x.s.srv.Sweeper.Wall(x.at),
	}
}

// refusedNow reports whether the rules now in force refuse t, and notes which.
func (x *exchange) refusedNow(t *tunnelled) bool {
	v := x.s.asks(t, x.s.source.Load().Route.Authz)
	refuse := v.Refuse(0)
	if refuse {
		x.rule, x.cause = v.Rule, v.Err()
	}
	return refuse
}
