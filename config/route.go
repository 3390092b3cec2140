package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// Route takes the requests that meet all conditions of match. One without
// destination goes where it would have gone without it, in another manner.
type Route struct {
	// The name in logs, metrics and traces, unique on its listener. Default: routes[N].
	Name string `yaml:"name"`
	// Which requests it takes. Empty: all.
	Match RouteMatch `yaml:"match"`
	// Another service that they go to, called by its own policy. Empty: the upstream itself. Only under outbound.
	To string `yaml:"to"`
	// The subset of the service's endpoints that they go to, one of policies.SERVICE.subsets. Empty: all. Only under outbound.
	Subset string `yaml:"subset"`
	// Several services that share them by weight, in place of to. Only under outbound.
	Split []RouteSplit `yaml:"split"`
	// A fixed answer from this proxy, in place of any service.
	Respond *RouteReply `yaml:"respond"`
	// Another path, given before the request is sent. The query stays as it is.
	Rewrite *RouteRewrite `yaml:"rewrite"`
	// Changes to the header of requests.
	RequestHeaders *HeaderEdits `yaml:"request_headers"`
	// Changes to the header of the services' responses, or of respond.
	ResponseHeaders *HeaderEdits `yaml:"response_headers"`
	// How long a whole exchange may take, in place of the policy's timeout. 0: no limit.
	Timeout *time.Duration `yaml:"timeout"`
	// How long an exchange may go without a byte, in place of the policy's stream_idle_timeout. 0: no limit.
	StreamIdleTimeout *time.Duration `yaml:"stream_idle_timeout"`
	// A limit on how many of these requests may be active, beside those of the service that they go to.
	Limits *RouteLimits `yaml:"limits"`
	// Whose turn comes first where requests must wait, for those that no rule under priorities takes: critical, high, normal (default) or low.
	Priority *queue.Priority `yaml:"priority"`
	// Changes to the policy's retry for these requests, key by key; the budget is the policy's. off: exactly one attempt. Only under outbound.
	Retry *RouteRetry `yaml:"retry" off:"true"`
	// Changes to the policy's hedge for these requests, key by key; where that is off, to its defaults. off: none is hedged. Only under outbound.
	Hedge *RouteHedge `yaml:"hedge" off:"true"`
}

// RouteMatch is a set of conditions, all of which must be met. Paths, header
// values and query parameters are compared as they were sent, without decoding.
type RouteMatch struct {
	// The whole path, such as "/login". At most one of path, path_prefix and path_regex.
	Path string `yaml:"path"`
	// What the path begins with: "/api" takes /api, /api/users and /apis; "/api/" only what is below /api.
	PathPrefix string `yaml:"path_prefix"`
	// A regular expression (RE2) that the whole path matches.
	PathRegex string `yaml:"path_regex"`
	// Whether upper and lower case are the same in the path.
	IgnoreCase bool `yaml:"ignore_case"`
	// The methods, any of which will do. Empty: all.
	Methods []string `yaml:"methods"`
	// Conditions on header fields.
	Headers []HeaderMatch `yaml:"headers"`
	// Conditions on query parameters.
	Query []QueryMatch `yaml:"query"`
	// A gRPC call: its service, and its method.
	GRPC *GRPCMatch `yaml:"grpc"`
}

// HeaderMatch is a condition on a header field: exactly one of exact, prefix,
// suffix, regex and present. Where a field has several lines one must meet it.
type HeaderMatch struct {
	// The field's name, in any case. host is the authority that the request is for. Required.
	Name string `yaml:"name"`
	// The whole value.
	Exact string `yaml:"exact"`
	// What the value begins with.
	Prefix string `yaml:"prefix"`
	// What the value ends with.
	Suffix string `yaml:"suffix"`
	// A regular expression (RE2) that the whole value matches.
	Regex string `yaml:"regex"`
	// The field is there, with any value.
	Present bool `yaml:"present"`
	// Whether the condition must not be met.
	Invert bool `yaml:"invert"`
}

// QueryMatch is a condition on a query parameter: exactly one of exact, regex and present.
type QueryMatch struct {
	// The parameter's name, as it stands in the query. Required.
	Name string `yaml:"name"`
	// The whole value.
	Exact string `yaml:"exact"`
	// A regular expression (RE2) that the whole value matches.
	Regex string `yaml:"regex"`
	// The parameter is there, with any value.
	Present bool `yaml:"present"`
}

// GRPCMatch is a gRPC service, or one of its methods.
type GRPCMatch struct {
	// The service with its package, such as "shop.v1.Cart". Required.
	Service string `yaml:"service"`
	// The method, such as "AddItem". Empty: all of the service's.
	Method string `yaml:"method"`
}

// RouteSplit is one service's share of a route's requests.
type RouteSplit struct {
	// The service. Required.
	Service string `yaml:"service"`
	// The subset of its endpoints, one of policies.SERVICE.subsets. Empty: all.
	Subset string `yaml:"subset"`
	// Its share in percent, in steps of 0.01. Those of a split add up to 100.
	Weight float64 `yaml:"weight"`
	// Further changes to the header of requests to this service.
	RequestHeaders *HeaderEdits `yaml:"request_headers"`
	// Further changes to the header of its responses.
	ResponseHeaders *HeaderEdits `yaml:"response_headers"`
}

// RouteReply is an answer that the proxy gives itself. With response_headers
// {set: {location: ...}} and a status of 301, 302, 307 or 308 it redirects.
type RouteReply struct {
	// The status, 200 to 599. Required.
	Status int `yaml:"status"`
	// The text of the answer, at most 4096 bytes.
	Body string `yaml:"body"`
	// The content type of the text.
	ContentType string `yaml:"content_type"`
}

// RouteRewrite gives a request another path: exactly one of path and path_prefix.
type RouteRewrite struct {
	// The whole new path.
	Path string `yaml:"path"`
	// What takes the place of match.path_prefix. Where two slashes would meet there is one.
	PathPrefix string `yaml:"path_prefix"`
}

// HeaderEdits are changes to header fields: first remove, then set, then add.
type HeaderEdits struct {
	// Fields that get this one value, whatever they had: name to value.
	Set map[string]string `yaml:"set"`
	// Lines that are added to what is there: name to value.
	Add map[string]string `yaml:"add"`
	// Fields that are left out.
	Remove []string `yaml:"remove"`
}

// RouteRetry changes the retry section of a policy for the requests of a route.
// What is not given stays as it is in the policy.
type RouteRetry struct {
	// How many attempts a request may have, the first included. 1: no retry.
	Attempts *int `yaml:"attempts"`
	// What is retried, in place of the policy's list. Empty: that list.
	On []retry.Condition `yaml:"on"`
	// The statuses of answers that are retried whatever the method, in place of the policy's list. Empty: that list.
	Statuses []int `yaml:"statuses"`
	// The gRPC statuses that are retried whatever the method, in place of the policy's list. Empty: that list.
	GRPCStatuses []retry.GRPCStatus `yaml:"grpc_statuses"`
	// How long an attempt may take by itself. 0: no limit.
	PerTryTimeout *time.Duration `yaml:"per_try_timeout"`
	// Whether requests that the endpoint may have processed are sent again although their method is not idempotent.
	NonIdempotent *bool `yaml:"non_idempotent"`

	none bool // written as off
}

func (r *RouteRetry) setOff()     { r.none = true }
func (r *RouteRetry) isOff() bool { return r.none }

// Apply returns the policy's section with the route's changes; nil is off.
func (r *RouteRetry) Apply(p *retry.Config) *retry.Config {
	switch {
	case r == nil || p == nil:
		return p
	case r.none:
		return nil
	}
	c := *p
	if r.Attempts != nil {
		c.Attempts = *r.Attempts
	}
	if len(r.On) > 0 {
		c.On = r.On
	}
	if len(r.Statuses) > 0 {
		c.Statuses = r.Statuses
	}
	if len(r.GRPCStatuses) > 0 {
		c.GRPCStatuses = r.GRPCStatuses
	}
	if r.PerTryTimeout != nil {
		c.PerTryTimeout = *r.PerTryTimeout
	}
	if r.NonIdempotent != nil {
		c.NonIdempotent = *r.NonIdempotent
	}
	return &c
}

// Unmatched says what becomes of requests that no route takes.
type Unmatched string

// What becomes of them.
const (
	// UnmatchedForward sends them to the upstream itself, or to the service.
	UnmatchedForward Unmatched = "forward"
	// UnmatchedRefuse answers 404, and gRPC calls UNIMPLEMENTED.
	UnmatchedRefuse Unmatched = "refuse"
)

// Title is the route's name, which by default is its place in the list.
func (r *Route) Title(i int) string {
	if r.Name != "" {
		return r.Name
	}
	return joinIndex("routes", i)
}

// services returns the names of the services that are called by themselves: the
// upstreams, and the destinations of their routes, in the order of the file, each
// once.
func (o *Outbound) services() []string {
	var names []string
	seen := map[string]bool{"": true}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for i := range o.Upstreams {
		add(o.Upstreams[i].Service)
	}
	o.eachTarget(func(_ int, _, service string) { add(service) })
	for i := range o.UDP {
		add(o.UDP[i].Service)
	}
	return names
}

// targetProtocol is what is spoken with a service that only routes name.
func (o *Outbound) targetProtocol(service string) (found Protocol, ok bool) {
	o.eachTarget(func(upstream int, _, name string) {
		if name == service && !ok {
			found, ok = o.Upstreams[upstream].Protocol, true
		}
	})
	return found, ok
}

// eachTarget calls f for every service that a route names, with the index of
// the upstream and the path of the value.
func (o *Outbound) eachTarget(f func(upstream int, path, service string)) {
	for i := range o.Upstreams {
		for j := range o.Upstreams[i].Routes {
			r := &o.Upstreams[i].Routes[j]
			at := joinIndex(joinIndex("outbound.upstreams", i)+".routes", j)
			if r.To != "" {
				f(i, at+".to", r.To)
			}
			for k := range r.Split {
				f(i, joinIndex(at+".split", k)+".service", r.Split[k].Service)
			}
		}
	}
}

// routes checks what the routes of a listener must fulfil together and with
// what is around them. last is the name of the route behind them, which leads to
// the service own.
func (v *validator) routes(path, last, own string, list []Route, proto Protocol, unmatched Unmatched, outbound bool) {
	if proto == ProtocolTCP && len(list) > 0 {
		v.say(path, "cannot be told apart: tcp is spoken here; remove them, or set protocol: http")
		return
	}
	if unmatched == UnmatchedRefuse && len(list) == 0 {
		v.say(strings.TrimSuffix(path, "routes")+"unmatched", "is refuse, and without routes that would be every request; add routes, or remove it")
	}
	if len(list) > MaxRoutes {
		v.say(path, "are %d; a listener has at most %d", len(list), MaxRoutes)
	}
	v.routeSubsets(path, own, list, outbound)
	names := map[string]string{last: "the name of the listener's own route"}
	for i := range list {
		r, at := &list[i], joinIndex(path, i)
		title := r.Title(i)
		if taken, ok := names[title]; ok {
			v.say(at+".name", "is %q, which is %s already; choose another", title, taken)
		}
		names[title] = "the name of " + at
		if !outbound {
			for key, given := range map[string]bool{"to": r.To != "", "split": len(r.Split) > 0, "retry": r.Retry != nil, "hedge": r.Hedge != nil} {
				if given {
					v.say(at+"."+key, "is for outbound.upstreams: what comes in goes to the service, once")
				}
			}
		}
	}
}

// targets checks the services that routes name.
func (v *validator) targets() {
	first := map[string]int{}
	v.Outbound.eachTarget(func(upstream int, path, service string) {
		u := &v.Outbound.Upstreams[upstream]
		switch {
		case service == "":
			v.say(path, "is required; name the service that gets this share")
		case !serviceName(service):
			v.say(path, "is %q; %s", service, nameRule)
		default:
			if proto := v.ServiceProtocol(service); proto.opaque() {
				v.say(path, "is %q, with which %s is spoken, so it cannot take requests", service, proto)
			} else if earlier, ok := first[service]; ok && proto != u.Protocol && v.Outbound.Upstreams[earlier].Protocol == proto && !v.isUpstream(service) {
				v.say(path, "is called by %s here and by %s from outbound.upstreams[%d]; give %s an upstream of its own that says which", u.Protocol, proto, earlier, service)
			}
			if _, ok := first[service]; !ok {
				first[service] = upstream
			}
		}
	})
	for i := range v.Outbound.Upstreams {
		u := &v.Outbound.Upstreams[i]
		for j := range u.Routes {
			v.routeRetry(joinIndex(joinIndex("outbound.upstreams", i)+".routes", j), u.Service, &u.Routes[j])
			v.routeHedge(joinIndex(joinIndex("outbound.upstreams", i)+".routes", j), u.Service, &u.Routes[j])
		}
	}
}

func (v *validator) isUpstream(service string) bool {
	for i := range v.Outbound.Upstreams {
		if v.Outbound.Upstreams[i].Service == service {
			return true
		}
	}
	return false
}

// routeRetry checks that what a route changes in its policies' retry makes
// sense there.
func (v *validator) routeRetry(path, upstream string, r *Route) {
	if r.Retry == nil || r.Retry.none {
		return
	}
	for _, name := range r.services(upstream) {
		p := v.Policy(name)
		if p.Retry == nil {
			v.say(path+".retry", "changes nothing: policies.%s.retry is off, so there is no budget; write retry: {attempts: 1} there", name)
			continue
		}
		timeout := p.Timeout
		if r.Timeout != nil {
			timeout = *r.Timeout
		}
		c := r.Retry.Apply(p.Retry)
		if timeout > 0 && c.PerTryTimeout > timeout {
			v.say(path+".retry.per_try_timeout", "is %s, longer than the whole exchange may take (timeout: %s)",
				formatDuration(c.PerTryTimeout), formatDuration(timeout))
		}
		c.Validate(func(field, problem string) { v.say(path+".retry."+field, "%s", problem) })
	}
}

// Limits of what is told about routes.
const (
	// MaxRoutes is how many routes a listener may have.
	MaxRoutes = 512
	maxEdits  = 64
	maxValue  = 2048
	maxAdded  = 8192
	maxRegex  = 1024
	maxReply  = 4096
)

func tooLong(s string, most int) string {
	if len(s) <= most {
		return ""
	}
	return fmt.Sprintf("is longer than %d bytes", most)
}
