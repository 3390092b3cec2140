package config

import (
	"reflect"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// SubsetFallback is what becomes of requests for a subset of which no endpoint
// may be used.
type SubsetFallback string

// The fallbacks.
const (
	// SubsetFallbackNone refuses them.
	SubsetFallbackNone SubsetFallback = "none"
	// SubsetFallbackAny sends them to any endpoint of the upstream.
	SubsetFallbackAny SubsetFallback = "any"
)

// Bounds of subsets.
const (
	maxSubsets      = 64
	maxSubsetLabels = 16
)

// subsets checks the subsets of a policy.
func (v *validator) subsets(path string, p *Policy) {
	if len(p.Subsets) > maxSubsets {
		v.say(path+".subsets", "are %d; an upstream has at most %d", len(p.Subsets), maxSubsets)
	}
	for _, name := range sortedKeys(reflect.ValueOf(p.Subsets)) {
		at, match := joinKey(path+".subsets", name), p.Subsets[name]
		switch {
		case !serviceName(name):
			v.say(at, "is no name for a subset; %s", nameRule)
		case len(match) == 0:
			v.say(at, "has no metadata by which endpoints are told apart; write some, such as {version: \"2\"}")
		case len(match) > maxSubsetLabels:
			v.say(at, "asks for %d pairs of metadata; at most %d", len(match), maxSubsetLabels)
		}
		labels := make([]balance.Label, 0, len(match))
		for k, value := range match {
			labels = append(labels, balance.Label{Key: k, Value: value})
		}
		if _, cut := balance.NewLabels(labels); cut {
			v.say(at, "has a key that is empty, or text that is longer than endpoints can have; no endpoint would match")
		}
	}
}

// routeSubsets checks the subsets that the routes of an upstream name.
func (v *validator) routeSubsets(path, upstream string, list []Route, outbound bool) {
	for i := range list {
		r, at := &list[i], joinIndex(path, i)
		service := upstream
		if r.To != "" {
			service = r.To
		}
		if r.Subset != "" {
			switch {
			case !outbound:
				v.say(at+".subset", "is for outbound.upstreams: what comes in goes to the service beside this proxy")
			case len(r.Split) > 0:
				v.say(at+".subset", "is given beside split; write it with the shares that it is for")
			case r.Respond != nil:
				v.say(at+".subset", "has no effect beside respond: nothing is sent on; remove it")
			default:
				v.subset(at+".subset", service, r.Subset)
			}
		}
		for k := range r.Split {
			if s := &r.Split[k]; s.Subset != "" {
				v.subset(joinIndex(at+".split", k)+".subset", s.Service, s.Subset)
			}
		}
	}
}

// subset refuses one that the policy of the service does not have.
func (v *validator) subset(path, service, name string) {
	p := v.Policy(service)
	if _, ok := p.Subsets[name]; ok {
		return
	}
	names := sortedKeys(reflect.ValueOf(p.Subsets))
	if len(names) == 0 {
		v.say(path, "is %q, but %s has no subsets; write policies.%s.subsets: {%s: {version: \"2\"}}", name, service, service, name)
		return
	}
	v.say(path, "is %q, which is not one of policies.%s.subsets%s", name, service, didYouMean(name, names))
}
