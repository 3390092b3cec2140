package config

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// PriorityRule gives a priority to the requests that meet all its conditions.
type PriorityRule struct {
	// Whose turn comes first: critical, high, normal or low. Required.
	Priority *queue.Priority `yaml:"priority"`
	// The callers, as in authorization: SPIFFE IDs, "spiffe://td/path/*", "spiffe://td/*", "*" for all with an identity, "anonymous". Empty: all. Only inbound.
	From []string `yaml:"from"`
	// Which requests. Empty: all. A path that can be read in more than one way meets no condition on the path.
	Match RouteMatch `yaml:"match"`
}

// MaxPriorityRules is how many rules a list may have.
const MaxPriorityRules = 32

// OnlyHTTP reports whether the rule looks at what only requests have, so that it
// does not concern connections that are not HTTP.
func (r *PriorityRule) OnlyHTTP() bool { return r.Match.onlyHTTP() }

func (m *RouteMatch) onlyHTTP() bool {
	return m.GRPC != nil || m.Path != "" || m.PathPrefix != "" || m.PathRegex != "" || len(m.Methods)+len(m.Headers)+len(m.Query) > 0
}

// Callers is an authorization that allows whom the rule means.
func (r *PriorityRule) Callers() authz.Config {
	return authz.Config{Rules: []authz.Rule{{From: r.From}}}
}

// Validate calls add for each mistake in the rule by itself.
func (r PriorityRule) Validate(add func(field, problem string)) {
	if r.Priority == nil {
		add("priority", "is required; write critical, high, normal or low")
	}
	if len(r.From) > 0 {
		r.Callers().Validate(func(field, problem string) { add(strings.TrimPrefix(field, "rules[0]."), problem) })
	}
}

// priorities checks a list of rules with what is around it. queueless says that
// nobody waits there; anonymous is why callers have no identity, if so.
func (v *validator) priorities(path string, list []PriorityRule, queueless bool, proto Protocol, anonymous string) {
	if len(list) > MaxPriorityRules {
		v.say(path, "are %d; at most %d are possible", len(list), MaxPriorityRules)
	}
	if len(list) > 0 && queueless {
		v.say(path, "decide about nothing: without limits.queue nobody waits for a turn; add one, such as limits: {max_requests: 100, queue: {}}")
	}
	for i := range list {
		r, at := &list[i], joinIndex(path, i)
		if len(r.From) > 0 && anonymous != "" {
			v.say(at+".from", "names callers, %s", strings.Replace(anonymous, "use another key", "remove it", 1))
		}
		if proto.opaque() && r.OnlyHTTP() {
			v.say(at+".match", "looks at requests, and tcp is spoken here; remove it")
		}
	}
}

// RouteLimits are limits on a route's exchanges alone.
type RouteLimits struct {
	// How many of the route's requests may be active. Required.
	MaxRequests int64 `yaml:"max_requests"`
	// Where those beyond max_requests wait for their turn. off (default): they are refused at once.
	Queue *queue.Config `yaml:"queue" off:"true"`
}

// Validate calls add for each mistake.
func (l RouteLimits) Validate(add func(field, problem string)) {
	if l.MaxRequests < 1 {
		add("max_requests", fmt.Sprintf("is %d; write how many of the route's requests may be active, or remove the section", l.MaxRequests))
	}
}
