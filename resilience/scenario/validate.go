package scenario

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
)

// Bounds that keep a run, and the memory that it takes, within what can be
// waited for.
const (
	maxServices  = 64
	maxEndpoints = 10_000
	maxProxies   = 1000
	maxClients   = 20_000 // proxies and endpoints that call
	maxExchanges = 100e6  // that arrive in a run
	maxVariants  = 16
	maxExpect    = 256
	maxFailures  = 1000
)

// Validate calls add for each mistake, with the path of the value.
func (s *Scenario) Validate(add func(path, problem string)) {
	v := &validator{Scenario: s, add: add, names: slices.Sorted(maps.Keys(s.Services))}
	v.times()
	v.services()
	v.arrivals()
	v.failures()
	v.policies()
	v.expectations()
}

type validator struct {
	*Scenario
	add   func(path, problem string)
	names []string
}

func (v *validator) say(path, format string, args ...any) { v.add(path, fmt.Sprintf(format, args...)) }

func (v *validator) times() {
	if v.Duration <= 0 || v.Duration > longest {
		v.say("duration", "must be above 0 and at most 24h")
	}
	if v.Warmup < 0 || v.Warmup >= v.Duration && v.Duration > 0 {
		v.say("warmup", "must be shorter than duration")
	}
}

// known refuses the name of a service that is not there.
func (v *validator) known(path, name string) bool {
	if slices.Contains(v.names, name) {
		return true
	}
	if name == "" {
		v.say(path, "is required; name one of the services: %s", strings.Join(v.names, ", "))
	} else {
		v.say(path, "is %q, which is none of the services: %s", name, strings.Join(v.names, ", "))
	}
	return false
}

func (v *validator) percent(path string, p float64) {
	if !(p >= 0 && p <= 100) {
		v.say(path, "must be between 0 and 100")
	}
}

func (v *validator) services() {
	if len(v.names) == 0 {
		v.say("services", "is required; the least is services: {api: {service_time: constant 10ms}}")
		return
	}
	if len(v.names) > maxServices {
		v.say("services", "has %d; at most %d", len(v.names), maxServices)
		return
	}
	callers, endpoints := 0, 0
	for _, name := range v.names {
		s, path := v.Services[name], "services."+name
		if name == "" || name == config.AnyService || strings.ContainsAny(name, " \t") {
			v.say(path, "is no name of a service; write one without spaces, such as api")
		}
		v.between(path+".endpoints", s.Endpoints, 1, maxEndpoints)
		v.between(path+".slots", s.Slots, 0, 1e6)
		v.between(path+".queue", s.Queue, 0, 1e7)
		if s.Network < 0 || s.Network > longest {
			v.say(path+".network", "must be between 0s and 24h")
		}
		for i, c := range s.Calls {
			at := fmt.Sprintf("%s.calls[%d]", path, i)
			v.known(at+".service", c.Service)
			v.percent(at+".percent", c.Percent)
		}
		callers += s.Endpoints * len(s.Calls)
		endpoints += s.Endpoints
		for i, u := range s.Unlike {
			at := fmt.Sprintf("%s.unlike[%d]", path, i)
			v.numbers(at+".endpoints", u.Endpoints, s.Endpoints)
			if len(u.Endpoints) == 0 {
				v.say(at+".endpoints", "is required; give their numbers, such as [1]")
			}
			v.between(at+".slots", u.Slots, 0, 1e6)
			v.between(at+".weight", u.Weight, 0, 1e6)
		}
	}
	if callers > maxClients {
		v.say("services", "make %d callers, endpoints times calls; at most %d", callers, maxClients)
	}
	if endpoints > maxEndpoints {
		v.say("services", "have %d endpoints; at most %d", endpoints, maxEndpoints)
	}
	v.loops()
}

// loops refuses services that call each other in a circle.
func (v *validator) loops() {
	state := map[string]int{} // 1 being looked at, 2 done
	var visit func(name string, way []string) bool
	visit = func(name string, way []string) bool {
		way = append(way, name)
		switch state[name] {
		case 1:
			v.say("services."+way[0]+".calls", "go round in a circle: %s", strings.Join(way, " calls "))
			return false
		case 2:
			return true
		}
		state[name] = 1
		for _, c := range v.Services[name].Calls {
			if !visit(c.Service, way) {
				return false
			}
		}
		state[name] = 2
		return true
	}
	for _, name := range v.names {
		if !visit(name, nil) {
			return
		}
	}
}

func (v *validator) between(path string, n, low, high int) {
	if n < low || n > high {
		v.say(path, "is %d; must be from %d to %d", n, low, high)
	}
}

func (v *validator) numbers(path string, list []int, endpoints int) {
	for i, n := range list {
		if n < 1 || n > endpoints {
			v.say(fmt.Sprintf("%s[%d]", path, i), "is %d; the endpoints are 1 to %d", n, endpoints)
		}
	}
}

func (v *validator) arrivals() {
	if len(v.Arrivals) == 0 {
		v.say("arrivals", "is required; the least is arrivals: [{to: api, rate: 100}]")
	}
	if len(v.Arrivals) > maxServices {
		v.say("arrivals", "has %d streams; at most %d", len(v.Arrivals), maxServices)
		return
	}
	for i, a := range v.Arrivals {
		path := fmt.Sprintf("arrivals[%d]", i)
		v.known(path+".to", a.To)
		v.between(path+".proxies", a.Proxies, 1, maxProxies)
		v.between(path+".keys", a.Keys, 0, 1e9)
		v.between(path+".users", a.Users, 0, 1e6)
		v.percent(path+".non_idempotent_percent", a.NonIdempotentPercent)
		if !(a.Rate >= 0 && a.Rate <= 1e6) {
			v.say(path+".rate", "must be between 0 and 1000000 requests a second")
		}
		switch {
		case a.Users > 0 && (a.Rate > 0 || len(a.Steps) > 0):
			v.say(path+".users", "cannot stand beside a rate: either users wait for their answers, or requests arrive whatever comes of them")
		case a.Users == 0 && a.Rate == 0 && len(a.Steps) == 0:
			v.say(path+".rate", "is required, or steps or users; such as rate: 100")
		}
		v.steps(path, a)
	}
}

func (v *validator) steps(path string, a Arrival) {
	top, end := a.Rate, time.Duration(0)
	for i, st := range a.Steps {
		at := fmt.Sprintf("%s.steps[%d]", path, i)
		if !(st.Rate >= 0 && st.Rate <= 1e6) {
			v.say(at+".rate", "must be between 0 and 1000000 requests a second")
		}
		if st.At < end {
			v.say(at+".at", "is %v, before the step before it is over (%v)", st.At, end)
		}
		if st.Over < 0 || st.Over > longest || st.At > longest {
			v.say(at+".over", "must be between 0s and 24h")
			return
		}
		end, top = st.At+st.Over, max(top, st.Rate)
	}
	if n := top * v.Duration.Seconds(); n > maxExchanges {
		v.say(path+".rate", "makes %.0f requests; at most %.0f, so shorten duration", n, maxExchanges)
	}
}

func (v *validator) failures() {
	if len(v.Failures) > maxFailures {
		v.say("failures", "has %d; at most %d", len(v.Failures), maxFailures)
	}
	for i, f := range v.Failures {
		path := fmt.Sprintf("failures[%d]", i)
		if v.known(path+".service", f.Service) {
			v.numbers(path+".endpoints", f.Endpoints, v.Services[f.Service].Endpoints)
		}
		if f.Fault.Kind == NoFault {
			v.say(path+".fault", "is required; %s", faultRule)
		}
		if f.At < 0 || f.At >= v.Duration {
			v.say(path+".at", "is %v, at or behind the end (duration: %v)", f.At, v.Duration)
		}
		if f.For < 0 || f.For > longest {
			v.say(path+".for", "must be between 0s, to the end, and 24h")
		}
	}
}

func (v *validator) policies() {
	config.CheckPolicies("policies", v.Policies, v.names, v.add)
	if len(v.Variants) > maxVariants {
		v.say("variants", "has %d; at most %d", len(v.Variants), maxVariants)
	}
	seen := map[string]bool{}
	for i, r := range v.Variants {
		path := fmt.Sprintf("variants[%d]", i)
		switch {
		case strings.TrimSpace(r.Name) == "" || len(r.Name) > 40 || strings.Join(strings.Fields(r.Name), " ") != r.Name:
			v.say(path+".name", "is %q; give each variant a name of up to 40 characters, with single spaces", r.Name)
		case seen[r.Name]:
			v.say(path+".name", "is %q as that of another variant", r.Name)
		}
		seen[r.Name] = true
		config.CheckPolicies(path+".policies", r.Policies, v.names, v.add)
	}
	if len(v.Variants) > 0 && len(v.Policies) > 0 {
		v.say("policies", "are never used, as each of the variants has its own; move them there")
	}
}

func (v *validator) expectations() {
	if len(v.Expect) > maxExpect {
		v.say("expect", "has %d; at most %d", len(v.Expect), maxExpect)
	}
	for i, e := range v.Expect {
		path := fmt.Sprintf("expect[%d]", i)
		if e.Of != "" && !slices.Contains(v.names, e.Of) {
			v.say(path, "is about %q, which is none of the services: %s", e.Of, strings.Join(v.names, ", "))
		}
		if e.From >= v.Duration || e.To > v.Duration {
			v.say(path, "goes beyond the end (duration: %v)", v.Duration)
		}
		if e.In != "" && !slices.ContainsFunc(v.Variants, func(r Variant) bool { return r.Name == e.In }) {
			v.say(path, "is for %q, which is none of the variants", e.In)
		}
	}
}
