// Package explain says what a plan would make of a request that nobody has sent.
package explain

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Input is what a proxy knows.
type Input struct {
	Plan        *plan.Plan
	Loaded      *config.Loaded
	TrustDomain string // the own one
	Datacenter  string // the own one, where the identity names one
	Endpoints   []admin.EndpointView
	Live        bool          // states are those of a running proxy
	Now         time.Duration // on the clock of the plan's clusters
	Faults      []*plan.Fault // made on purpose, that are in force, in the order in which they are drawn
	Hops        *exchange.Hops
}

// explainer is one question to one proxy.
type explainer struct {
	Input
	q        *admin.Question
	settings config.Settings

	l    *plan.Listener
	id   mtls.ID // the caller's; zero without one
	raw  []byte
	req  http1.Request
	view *admin.LegView

	// Where the question is about a connection to an address: that address, and
	// the listener to which it is redirected.
	dst     netip.AddrPort
	only    netip.AddrPort // the endpoint that it means
	comesBy *plan.Listener
}

// Request answers q. It is admin.ErrNotHere where the proxy is neither that of
// the service that is called nor that of one that calls it; any other error is a
// mistake in the question.
func Request(q *admin.Question, in Input) (*admin.LegView, error) {
	e := &explainer{Input: in, q: q, settings: in.Loaded.Settings()}
	if err := e.locate(); err != nil {
		return nil, err
	}
	if err := e.parseCaller(); err != nil {
		return nil, err
	}
	e.view = &admin.LegView{
		Service: e.own(), Direction: e.l.Direction.String(), Listener: e.l.Name, Address: e.l.Address, Protocol: e.l.Protocol.String(),
		Security: e.l.Security.String(), Source: in.Loaded.File, Live: in.Live, Plan: in.Plan.Version,
		RateLimits: []admin.LimitVerdict{}, Destinations: []admin.DestinationView{},
	}
	if !e.id.IsZero() {
		e.view.CallerID = e.id.String()
	}
	if e.comesBy != nil {
		e.view.Address = e.q.To + ", redirected to " + e.comesBy.Address
	}
	e.end(outcome.OK, "")
	if e.unknown() {
		return e.view, nil
	}
	if e.l.Security == plan.Strict && e.id.IsZero() {
		e.view.Request, e.view.Reason = "a call", outcome.HandshakeFailed.String()
		e.view.Meaning = "The listener takes callers with an identity only, and ends the handshake of others; say who calls with --from"
		return e.view, nil
	}
	if e.l.Protocol == plan.TCP {
		e.connection()
		return e.view, nil
	}
	return e.view, e.request()
}

func (e *explainer) own() string { return e.Loaded.Config.Service.Name }

// locate finds the listener that the request would come to.
func (e *explainer) locate() error {
	to, name := e.q.To, "outbound:"+e.q.To
	if dst, ok := parseAddress(to); ok {
		return e.locateAddress(dst)
	}
	if path, ok := config.SocketPath(to); ok {
		return e.locateSocket(wire.Unix + path)
	}
	switch {
	case to == "":
		return errors.New("say what is called: --to SERVICE, or an address to which connections are redirected")
	case to == e.own():
		name = "inbound"
	case e.q.From != "" && e.q.From != e.own() && !strings.Contains(e.q.From, "://"):
		return fmt.Errorf("%w: it is that of %s, neither of %s nor of %s", admin.ErrNotHere, e.own(), e.q.From, to)
	}
	var have []string
	for _, l := range e.Plan.Listeners {
		if l.Name == name {
			e.l = l
			return nil
		}
		if service, ok := strings.CutPrefix(l.Name, "outbound:"); ok {
			have = append(have, service)
		}
	}
	if name == "inbound" {
		return fmt.Errorf("%w: %s has no service.port, so that nobody calls it", admin.ErrNotHere, to)
	}
	if have == nil {
		have = []string{"none"}
	}
	return fmt.Errorf("%w: %s has no upstream %s; it has: %s", admin.ErrNotHere, e.own(), to, strings.Join(have, ", "))
}

// parseCaller finds who calls: to others the own application, which needs no
// identity, to the own service whoever is named.
func (e *explainer) parseCaller() (err error) {
	from := e.q.From
	if e.l.Direction == telemetry.Outbound || e.l.Security == plan.Plaintext || from == "" {
		return nil
	}
	if !strings.Contains(from, "://") {
		from = e.Loaded.Config.Identity.ExpectedID(e.TrustDomain, e.Datacenter, from)
	}
	if e.id, err = mtls.ParseID(from); err != nil {
		return fmt.Errorf("--from %s: %w; write a SPIFFE ID, or the name of a service with identity.trust_domain in the configuration", e.q.From, err)
	}
	return nil
}

// end says how the exchange would end.
func (e *explainer) end(r outcome.Reason, detail string) {
	row := r.Row()
	e.view.Reason, e.view.Meaning, e.view.Detail, e.view.Status = row.Name, row.Detail, detail, 0
	if r != outcome.OK {
		e.view.Status = int(row.Status)
	}
}

// connection answers for a listener that looks at no requests.
func (e *explainer) connection() {
	e.view.Request = "a connection"
	route := &e.l.Route
	e.view.Route = route.Name
	if p := route.Authz; p != nil {
		if e.ruled(p.CheckConn(e.id)) {
			return
		}
	}
	e.rates(route)
	e.goTo(route)
}

// request answers for a listener of HTTP, with the exchange's own order: what
// cannot be read, rules, route, rate limits, the answer of a route, attempts.
func (e *explainer) request() error {
	if err := e.write(); err != nil {
		return err
	}
	if _, err := e.req.Parse(e.raw, &e.l.HTTP.Limits); err != nil {
		e.end(exchange.ReasonOfHead(err), http1.Reason(err))
		e.view.Status = http1.Status(err)
		return nil
	}
	if e.req.Method == http1.MethodConnect {
		e.end(outcome.Unsupported, exchange.NoConnect)
		return nil
	}
	moved := false
	if n := e.l.HTTP.Normalize; n != nil {
		var err error
		if moved, err = e.req.Normalize(e.raw, n); err != nil {
			e.end(outcome.BadRequest, http1.Reason(err))
			return nil
		}
	}
	if p := e.l.Route.Authz; p != nil {
		asked := authz.Request{Method: e.req.MethodSpan.Of(e.raw), Resource: e.req.Resource(e.raw), Host: e.req.Host.Of(e.raw), Head: &e.req.Head, Raw: e.raw, Query: e.req.Query.Of(e.raw)}
		if e.ruled(p.Check(e.id, &asked)) {
			return nil
		}
	}
	route := e.l.Find(&e.req, e.raw)
	e.view.Route, e.view.RouteWhy = route.Name, route.Why
	if s, ok := e.settings.At(route.Path, "name", "match.path", "match.path_prefix", "match.path_regex", "match.methods"); ok {
		e.view.RouteAt = s.Origin
	}
	if route.Refuse != outcome.OK {
		detail := ""
		if route.Refuse == outcome.BadRequest {
			detail = plan.AmbiguousPath
		}
		e.end(route.Refuse, detail)
		return nil
	}
	if e.rates(route); e.view.Reason != outcome.OK.String() {
		return nil
	}
	if moved {
		e.view.Status, e.view.Detail = 307, "redirected to "+string(e.req.Resource(e.raw))
		return nil
	}
	if route.Reply != nil {
		e.view.Status = route.Reply.Status
		return nil
	}
	e.sent(route)
	e.goTo(route)
	return nil
}

// write makes the head of the request.
func (e *explainer) write() error {
	method, target := e.q.Method, e.q.Target
	if method == "" {
		method = "GET"
	}
	if target == "" {
		target = "/"
	}
	if strings.ContainsAny(method+target, "\r\n") {
		return errors.New("the method and the target must not have a line break in them")
	}
	e.view.Request = method + " " + target
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, target)
	host := false
	for _, f := range e.q.Fields {
		name, _, ok := strings.Cut(f, ":")
		if !ok || strings.ContainsAny(f, "\r\n") {
			return fmt.Errorf("header %q: write \"Name: value\"", f)
		}
		host = host || strings.EqualFold(name, "host")
		b.WriteString(f + "\r\n")
	}
	if !host {
		fmt.Fprintf(&b, "Host: %s\r\n", e.host())
	}
	b.WriteString("\r\n")
	e.raw = b.Bytes()
	return nil
}

// ruled notes what the rules say, and reports whether they end it.
func (e *explainer) ruled(v authz.Verdict) bool {
	refuse := v.Refuse(0)
	e.view.Rule, e.view.WouldDeny = v.Rule, !v.Allowed && !refuse
	if s, ok := e.settings.Rule(e.Loaded.Config, v.Rule); ok {
		e.view.RuleAt = s.Origin
	}
	if refuse {
		e.end(outcome.Denied, v.Detail)
	}
	return refuse
}

// sent says how the request line would look to the endpoint.
func (e *explainer) sent(route *plan.Route) {
	if !route.Rewrite.On && e.l.HTTP.Normalize == nil {
		return
	}
	line, _, _ := bytes.Cut(route.AppendHead(nil, &e.req, e.raw), []byte(" HTTP/1.1\r\n"))
	if s := string(line); s != e.view.Request {
		e.view.Sent = s
	}
}

// rates asks the route's rate limits in order, and takes nothing from them.
func (e *explainer) rates(route *plan.Route) {
	for _, l := range route.RateLimits {
		if l.OnlyHTTP && e.l.Protocol == plan.TCP || e.l.Protocol != plan.TCP && !l.Counts(&e.req, e.raw) {
			continue
		}
		v := admin.LimitVerdict{
			Name: l.Name, Quota: fmt.Sprintf("%d requests per %s", l.Rate.Requests, l.Rate.Per), Key: l.Key.String(), Mode: l.Mode.String(),
		}
		if l.Field != "" {
			v.Key += " " + l.Field
		}
		if l.Peers > 0 {
			v.Quota += fmt.Sprintf(", one of %d shares", l.Table.Shares())
		}
		if l.Counted != nil {
			// Who counts for several proxies cannot be asked without taking.
			v.Scope, v.Key = l.Scope, strings.Join(l.Counted.Entries, ", ")
			if l.Rate.Requests == 0 {
				v.Quota = "as it says"
			}
		} else if k, ok := e.rateKey(l, route); ok && e.Live {
			passes := l.Table.Has(e.Now, &k)
			v.Passes = &passes
			if !passes && l.Mode == guard.Enforce && e.view.Reason == outcome.OK.String() {
				e.end(outcome.RateLimited, l.Refusal.Error())
			}
		}
		e.view.RateLimits = append(e.view.RateLimits, v)
	}
}

// rateKey is the key that the request would be counted under, where that is known.
func (e *explainer) rateKey(l *plan.RateLimit, route *plan.Route) (ratelimit.Key, bool) {
	switch l.Key {
	case plan.RateAll:
		return ratelimit.Key{}, true
	case plan.RateIdentity:
		if e.id.IsZero() {
			return ratelimit.KeyOf(nil), true
		}
		return ratelimit.KeyOf([]byte(e.id.String())), true
	case plan.RateField:
		return ratelimit.KeyOf(plan.FieldValue(l.Field, &e.req, e.raw)), true
	case plan.RatePath:
		return ratelimit.KeyOf(plan.RatePathOf(&e.req, e.raw)), true
	case plan.RateMethod:
		return ratelimit.KeyOf(e.req.MethodSpan.Of(e.raw)), true
	case plan.RateRoute:
		return ratelimit.KeyOf([]byte(route.Name)), true
	}
	return ratelimit.Key{}, false
}
