package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
)

// Faults are failures made on purpose. Nothing is made unless it is allowed.
type Faults struct {
	// Whether faults may be made: by rules, and by hand (outrigger fault).
	Allow bool `yaml:"allow"`
	// Faults that begin with the configuration. Of several that a request could meet the first one counts that is drawn.
	Rules []Fault `yaml:"rules"`
}

// Fault is a failure made on purpose: who meets it, what it does and when it
// stops. It begins when the configuration that has it is put to use, and not
// again as long as that says the same of it.
type Fault struct {
	// The name in logs, reports and records of exchanges, unique in its list: letters, digits, "-", "_" and ".". Required.
	Name string `yaml:"name"`
	// The upstream that seems to fail. Its callers' retries, deadlines and limits are put to the test. Either this or inbound.
	To string `yaml:"to"`
	// Whether the own service seems to fail, to those who call it.
	Inbound bool `yaml:"inbound"`
	// Only requests on the route of this name.
	Route string `yaml:"route"`
	// Which requests may meet it. Empty: all.
	Match RouteMatch `yaml:"match"`
	// The SPIFFE IDs of callers who may meet it; one with "*" at its end stands for all that begin so. Empty: all. Only with inbound: the caller of an upstream is the service itself.
	From []string `yaml:"from"`
	// Only attempts at the endpoint with this address, "IP:PORT".
	Endpoint string `yaml:"endpoint"`
	// What is done, and to which share.
	Inject fault.Config `yaml:"inject"`
	// When it stops before its time.
	Stop fault.Stop `yaml:"stop"`
	// How long it lasts, 1s to 24h.
	For time.Duration `yaml:"for"`
}

// DefaultFault returns a fault with the defaults of its keys.
func DefaultFault() Fault {
	return Fault{Inject: fault.Default(), Stop: fault.DefaultStop(), For: fault.DefaultFor}
}

// OnlyHTTP reports whether the fault looks at what only requests have, so that
// it does not concern connections that are not HTTP.
func (f *Fault) OnlyHTTP() bool {
	m := &f.Match
	return f.Route != "" || m.GRPC != nil || m.Path != "" || m.PathPrefix != "" || m.PathRegex != "" || len(m.Methods)+len(m.Headers)+len(m.Query) > 0
}

// ParseFault reads one fault as it stands in a list of rules, YAML or JSON, and
// checks it against c. The name may be missing.
func (c *Config) ParseFault(data []byte) (*Fault, error) {
	root, problems := readNode("fault", data)
	if root == nil {
		if len(problems) == 0 {
			problems = Problems{{Position: Position{File: "fault", Line: 1, Column: 1}, Message: "is empty"}}
		}
		return nil, problems.sorted()
	}
	f := DefaultFault()
	d := &decoder{origins: origins{}, problems: problems}
	d.section(root, reflect.ValueOf(&f).Elem(), "")
	check := func(path, problem string) {
		for _, w := range d.wrong {
			if within(path, w) || within(w, path) {
				return
			}
		}
		d.problems = append(d.problems, Problem{Position: d.origins.nearest("fault", path), Path: path, Message: problem})
	}
	v := &validator{Config: c, add: check, said: map[string]bool{}}
	v.fault("", &f, true)
	v.machines(reflect.ValueOf(f), "")
	v.generic(reflect.ValueOf(f), "")
	if len(d.problems) > 0 {
		return nil, d.problems.sorted()
	}
	return &f, nil
}

func (v *validator) faults() {
	list := v.Faults.Rules
	if len(list) > 0 && !v.Faults.Allow {
		v.say("faults.rules", "make failures on purpose, which must be allowed; write allow: true beside them, or remove them")
	}
	if len(list) > fault.MaxRules {
		v.say("faults.rules", "are %d; at most %d are possible", len(list), fault.MaxRules)
	}
	names := map[string]int{}
	for i := range list {
		f, at := &list[i], joinIndex("faults.rules", i)
		if earlier, ok := names[f.Name]; ok && f.Name != "" {
			v.say(at+".name", "is %q, which %s is already; choose another", f.Name, joinIndex("faults.rules", earlier))
		} else {
			names[f.Name] = i
		}
		v.fault(at, f, false)
	}
}

// fault checks one with what is around it.
func (v *validator) fault(path string, f *Fault, unnamed bool) {
	at := func(key string) string { return joinField(path, key) }
	switch {
	case f.Name == "" && !unnamed:
		v.say(at("name"), "is required; logs, reports and records of exchanges say it")
	case f.Name != "" && !serviceName(f.Name):
		v.say(at("name"), "is %q; %s", f.Name, nameRule)
	}
	proto := v.Detection.Resolve(v.Inbound.Protocol, v.Service.Port)
	routes := v.Inbound.Routes
	switch services := v.Services(); {
	case f.To != "" && f.Inbound:
		v.say(at("inbound"), "cannot be beside to; make two faults of them")
	case f.To == "" && !f.Inbound:
		v.say(at("to"), "is required; name the upstream that is to seem to fail, or write inbound: true")
	case f.Inbound && !v.Service.Called():
		v.say(at("inbound"), "concerns nobody: service.port is 0, so nothing listens")
	case f.Inbound:
	case !slices.Contains(services, f.To):
		v.say(at("to"), "is %q, which is not one of outbound.upstreams, nor of their routes%s", f.To, didYouMean(f.To, services))
	default:
		proto, routes = v.ServiceProtocol(f.To), nil
		for i := range v.Outbound.Upstreams {
			routes = append(routes, v.Outbound.Upstreams[i].Routes...)
		}
	}
	if f.Route != "" && !slices.ContainsFunc(namesOf(routes), func(n string) bool { return n == f.Route }) {
		v.say(at("route"), "is %q, which is not the name of a route there%s", f.Route, didYouMean(f.Route, namesOf(routes)))
	}
	for i, from := range f.From {
		place := joinIndex(at("from"), i)
		switch {
		case f.To != "":
			v.say(at("from"), "has no effect with to: the caller of an upstream is the service itself; remove it")
		case v.Inbound.MTLS == MTLSOff:
			v.say(at("from"), "never matches: inbound.mtls is off, so no caller has an identity")
		case strings.HasSuffix(from, "*"):
			if !strings.HasPrefix(from, "spiffe://") {
				v.say(place, "is %q; write a SPIFFE ID, or how it begins and *", from)
			}
		default:
			if _, err := mtls.ParseID(from); err != nil {
				v.say(place, "%v", err)
			}
		}
	}
	if f.Endpoint != "" {
		_, socket := SocketPath(f.Endpoint)
		if _, err := netip.ParseAddrPort(f.Endpoint); err != nil && !socket {
			v.say(at("endpoint"), "is %q; write the address of an endpoint, IP:PORT or unix:/PATH", f.Endpoint)
		}
	}
	if proto.opaque() {
		if f.OnlyHTTP() {
			v.say(at("match"), "looks at requests, and tcp is spoken here; leave match and route empty")
		}
		if f.Inject.Abort != 0 || f.Inject.AbortGRPC != "" {
			v.say(at("inject.abort"), "takes an answer, and tcp is spoken here; write reset: true")
		}
	}
	if f.For < fault.MinFor || f.For > fault.MaxFor {
		v.say(at("for"), "is %s; write a time from 1s to 24h", formatDuration(f.For))
	}
}

// namesOf are those of routes that have one.
func namesOf(routes []Route) []string {
	var names []string
	for i := range routes {
		names = append(names, routes[i].Title(i))
	}
	return names
}

// Summary is all that is said of a fault, by which two are told apart.
func (f *Fault) Summary() string { return fmt.Sprintf("%+v", withoutPointers(f)) }

// withoutPointers is f with what a pointer in it points to beside it.
func withoutPointers(f *Fault) any {
	g := *f
	g.Match.GRPC = nil
	grpc := GRPCMatch{}
	if f.Match.GRPC != nil {
		grpc = *f.Match.GRPC
	}
	return struct {
		Fault Fault
		GRPC  GRPCMatch
	}{g, grpc}
}
