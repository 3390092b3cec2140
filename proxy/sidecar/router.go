package sidecar

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// router makes a route of each of the router's. What none takes is refused, as with
// Envoy; Consul puts one behind them that takes all.
func (c *chain) router(n *mesh.Node) *broken {
	if len(n.Routes) > config.MaxRoutes {
		return &broken{"Nodes", fmt.Sprintf("has a router of %d routes; at most %d can be followed", len(n.Routes), config.MaxRoutes), ""}
	}
	entry := c.of(n)
	for i, from := range n.Routes {
		field := fmt.Sprintf("Routes[%d]", i)
		if from == nil {
			return &broken{"Nodes", "has a router with a route that says nothing", ""}
		}
		r, never, b := c.route(entry[len("Consul "):], field, from.Definition)
		switch {
		case b != nil:
			return b
		case never != "":
			c.find(Differs, entry[len("Consul "):], field+".Match.HTTP", never+", so that no request takes the route", "write the path as it is sent")
			continue
		}
		at := fmt.Sprintf("%s.routes[%d]", c.path, len(c.up.Routes))
		if b := c.next(r, at, from.NextNode); b != nil {
			return b
		}
		c.fitRetry(entry[len("Consul "):], field, r)
		c.origins(at, entry+" "+field, r)
		c.up.Routes = append(c.up.Routes, *r)
	}
	if len(c.up.Routes) > 0 {
		c.up.Unmatched = config.UnmatchedRefuse
		c.Came(c.path+".unmatched", entry)
	}
	if c.first == "" {
		return &broken{"Nodes", "has a router that leads nowhere", ""}
	}
	return nil
}

// origins notes where what r says came from.
func (c *chain) origins(at, from string, r *config.Route) {
	for key, given := range map[string]bool{
		"": true, ".name": true, ".to": r.To != "", ".match.path": r.Match.Path != "", ".match.path_prefix": r.Match.PathPrefix != "",
		".match.path_regex": r.Match.PathRegex != "", ".match.methods": len(r.Match.Methods) > 0, ".rewrite": r.Rewrite != nil,
		".timeout": r.Timeout != nil, ".stream_idle_timeout": r.StreamIdleTimeout != nil, ".retry": r.Retry != nil,
		".retry.attempts": r.Retry != nil, ".retry.on": r.Retry != nil && len(r.Retry.On) > 0, ".retry.statuses": r.Retry != nil && len(r.Retry.Statuses) > 0,
		".retry.grpc_statuses": r.Retry != nil && len(r.Retry.GRPCStatuses) > 0, ".retry.non_idempotent": r.Retry != nil && r.Retry.NonIdempotent != nil,
		".request_headers": r.RequestHeaders != nil, ".response_headers": r.ResponseHeaders != nil,
	} {
		if given {
			c.Came(at+key, from)
		}
	}
}

// route makes one route, but for where it leads. never says why no request can take
// it.
func (c *chain) route(entry, field string, d *mesh.RouteDefinition) (r *config.Route, never string, b *broken) {
	r = &config.Route{}
	if d == nil {
		return r, "", nil
	}
	if d.Match != nil && d.Match.HTTP != nil {
		if never, b = c.match(field, d, &r.Match); never != "" || b != nil {
			return nil, never, b
		}
	}
	to := d.Destination
	if to == nil {
		return r, "", nil
	}
	if to.PrefixRewrite != "" {
		if b := c.rewrite(entry, field, to.PrefixRewrite, r); b != nil {
			return nil, "", b
		}
	}
	limit := func(d mesh.Duration) *time.Duration {
		if d == 0 {
			return nil // as in the policy
		}
		v := max(time.Duration(d), 0) // below 0 there is none
		return &v
	}
	r.Timeout, r.StreamIdleTimeout = limit(to.RequestTimeout), limit(to.IdleTimeout)
	r.RequestHeaders = c.edits(entry, field+".Destination.RequestHeaders", to.RequestHeaders)
	r.ResponseHeaders = c.edits(entry, field+".Destination.ResponseHeaders", to.ResponseHeaders)
	r.Retry = c.retry(entry, field+".Destination", to)
	return r, "", nil
}

// match makes the conditions.
func (c *chain) match(field string, d *mesh.RouteDefinition, m *config.RouteMatch) (never string, b *broken) {
	h := d.Match.HTTP
	m.Path, m.PathPrefix, m.PathRegex, m.Methods = h.PathExact, h.PathPrefix, h.PathRegex, h.Methods
	if m.PathPrefix == "/" {
		m.PathPrefix = "" // all have it
	}
	m.IgnoreCase = h.CaseInsensitive && m.Path+m.PathPrefix+m.PathRegex != ""
	if m.PathRegex == "" {
		if p := firstProblem(config.RouteMatch{Path: m.Path, PathPrefix: m.PathPrefix}); p != "" {
			return p, nil
		}
	}
	for i := range h.Header {
		h := &h.Header[i]
		name := h.Name
		if name == ":authority" {
			name = "host"
		}
		one := config.HeaderMatch{Name: name, Exact: h.Exact, Prefix: h.Prefix, Suffix: h.Suffix, Regex: h.Regex, Invert: h.Invert}
		if h.Contains != "" {
			one.Regex = ".*" + regexp.QuoteMeta(h.Contains) + ".*"
		}
		if h.IgnoreCase {
			one = foldedMatch(one)
		}
		switch valued := one.Exact+one.Prefix+one.Suffix+one.Regex != ""; {
		case !valued:
			one.Present = true
		case h.Invert: // Envoy's is not met where the field is not there
			m.Headers = append(m.Headers, config.HeaderMatch{Name: name, Present: true})
		}
		if p := firstProblem(one); p != "" {
			return "", &broken{fmt.Sprintf("%s.Match.HTTP.Header[%d]", field, i), p, ""}
		}
		m.Headers = append(m.Headers, one)
	}
	for i := range h.QueryParam {
		q := &h.QueryParam[i]
		one := config.QueryMatch{Name: q.Name, Exact: q.Exact, Regex: q.Regex}
		one.Present = one.Exact+one.Regex == ""
		if p := firstProblem(one); p != "" {
			return "", &broken{fmt.Sprintf("%s.Match.HTTP.QueryParam[%d]", field, i), p, ""}
		}
		m.Query = append(m.Query, one)
	}
	if p := firstProblem(*m); p != "" {
		return "", &broken{field + ".Match.HTTP", p, ""}
	}
	return "", nil
}

// foldedMatch is a condition without regard to case.
func foldedMatch(m config.HeaderMatch) config.HeaderMatch {
	n := config.HeaderMatch{Name: m.Name, Invert: m.Invert}
	switch {
	case m.Exact != "":
		n.Regex = "(?i)" + regexp.QuoteMeta(m.Exact)
	case m.Prefix != "":
		n.Regex = "(?i)" + regexp.QuoteMeta(m.Prefix) + ".*"
	case m.Suffix != "":
		n.Regex = "(?i).*" + regexp.QuoteMeta(m.Suffix)
	case m.Regex != "":
		n.Regex = "(?i)" + m.Regex
	}
	return n
}

// rewrite gives another path in place of what the route matches.
func (c *chain) rewrite(entry, field, to string, r *config.Route) *broken {
	switch m := &r.Match; {
	case m.Path != "" || m.PathRegex != "":
		r.Rewrite = &config.RouteRewrite{Path: to}
	default:
		if m.PathPrefix == "" {
			m.PathPrefix = "/"
		}
		if strings.HasSuffix(m.PathPrefix, "/") && !strings.HasSuffix(to, "/") {
			c.find(Differs, entry, field+".Destination.PrefixRewrite", fmt.Sprintf("is %q and the prefix ends with a slash: %sx becomes %s/x, where Envoy makes %sx of it", to, m.PathPrefix, to, to), "end both with a slash, or neither")
			to += "/"
		}
		r.Rewrite = &config.RouteRewrite{PathPrefix: to}
	}
	if p := firstProblem(*r.Rewrite); p != "" {
		return &broken{field + ".Destination.PrefixRewrite", p, ""}
	}
	return nil
}

// envoyRetries are the conditions of Envoy that Consul knows, in the words of this
// proxy. Of those that may be a reset Envoy sends any request again.
var envoyRetries = [...]struct {
	name   string
	on     []retry.Condition
	status int
	grpc   retry.GRPCStatus
	any    bool
}{
	{name: "5xx", on: []retry.Condition{retry.ServerError, retry.Reset, retry.ConnectFailure, retry.StaleConnection}, any: true},
	{name: "gateway-error", on: []retry.Condition{retry.Unavailable, retry.Reset, retry.ConnectFailure, retry.StaleConnection}, any: true},
	{name: "reset", on: []retry.Condition{retry.Reset, retry.ConnectFailure, retry.StaleConnection}, any: true},
	{name: "connect-failure", on: []retry.Condition{retry.ConnectFailure}},
	{name: "refused-stream", on: []retry.Condition{retry.RefusedStream}},
	{name: "envoy-ratelimited", on: []retry.Condition{retry.RateLimited}},
	{name: "retriable-4xx", status: 409},
	{name: "cancelled", grpc: 1},
	{name: "deadline-exceeded", grpc: 4},
	{name: "resource-exhausted", grpc: 8},
	{name: "internal", grpc: 13},
	{name: "unavailable", grpc: 14},
}

// retry says what is sent again; nil where the route says nothing about it.
func (c *chain) retry(entry, field string, d *mesh.RouteDestination) *config.RouteRetry {
	conditions := d.RetryOnConnectFailure || len(d.RetryOn) > 0 || len(d.RetryOnStatusCodes) > 0
	if d.NumRetries == 0 && !conditions {
		return nil
	}
	r := &config.RouteRetry{}
	attempts := int(min(d.NumRetries, 1<<20)) + 1
	if d.NumRetries == 0 {
		attempts = 2 // Envoy's default
	}
	if attempts > mostAttempts {
		c.find(Differs, entry, field+".NumRetries", fmt.Sprintf("is %d; %d retries are the most that are made", d.NumRetries, mostAttempts-1), "")
		attempts = mostAttempts
	}
	r.Attempts = &attempts
	if !conditions {
		c.find(Differs, entry, field+".NumRetries", "is given without a condition, with which Envoy retries nothing; what the policy lists is retried", "give RetryOn, RetryOnConnectFailure or RetryOnStatusCodes")
		return r
	}
	on := func(list ...retry.Condition) {
		for _, o := range list {
			if !slices.Contains(r.On, o) {
				r.On = append(r.On, o)
			}
		}
	}
	status := func(s int) {
		if !slices.Contains(r.Statuses, s) {
			r.Statuses = append(r.Statuses, s)
		}
	}
	if d.RetryOnConnectFailure {
		on(retry.ConnectFailure)
	}
	for _, name := range d.RetryOn {
		at := -1
		for i := range envoyRetries {
			if envoyRetries[i].name == name {
				at = i
			}
		}
		if at < 0 {
			c.find(Refused, entry, field+".RetryOn", fmt.Sprintf("lists %q, which is no condition that is known; it is left out", name), "")
			continue
		}
		e := &envoyRetries[at]
		on(e.on...)
		if e.status != 0 {
			status(e.status)
		}
		if e.grpc != 0 && !slices.Contains(r.GRPCStatuses, e.grpc) {
			r.GRPCStatuses = append(r.GRPCStatuses, e.grpc)
		}
		if e.any {
			yes := true
			r.NonIdempotent = &yes
		}
	}
	for _, s := range d.RetryOnStatusCodes {
		if s < 400 || s > 599 {
			c.find(Refused, entry, field+".RetryOnStatusCodes", fmt.Sprintf("lists %d, which is no failure; it is left out", s), "")
			continue
		}
		status(int(s))
	}
	if len(r.On) == 0 {
		// What no endpoint can have seen: an empty list would be that of the policy.
		on(retry.ConnectFailure)
	}
	return r
}

// mostAttempts is the most that retry.Config allows.
const mostAttempts = 10

// fitRetry leaves out what the policies of the route's services cannot have.
func (c *chain) fitRetry(entry, field string, r *config.Route) {
	if r.Retry == nil {
		return
	}
	for name, p := range c.needs {
		leads := r.To == name || slices.ContainsFunc(r.Split, func(s config.RouteSplit) bool { return s.Service == name })
		if leads && p.Retry == nil {
			c.find(Ignored, entry, field+".Destination.NumRetries", "has no effect: retries are off for "+name+" in this proxy's own configuration", "")
			r.Retry = nil
			return
		}
	}
}
