package config

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/mtls"
)

// Validate calls add for each mistake, with the path of the value and what is
// wrong with it, at most once a path. It never changes c. It expects what
// WithDefaults fills in. No file is opened and no address is resolved.
func (c *Config) Validate(add func(field, problem string)) {
	v := &validator{Config: c, add: add, said: map[string]bool{}}
	v.service()
	v.identity()
	v.discovery()
	v.inbound()
	v.outbound()
	v.udp()
	v.policies()
	v.rateLimiters()
	v.authorization()
	v.faults()
	v.lifecycle()
	v.rest()
	v.listeners()
	v.sockets()
	v.machines(reflect.ValueOf(c).Elem(), "")
	v.generic(reflect.ValueOf(c).Elem(), "")
}

type validator struct {
	*Config
	add  func(field, problem string)
	said map[string]bool
	keys map[reflect.Type][]key // so that many policies do not ask for them again and again
}

func (v *validator) keysOf(t reflect.Type) []key {
	keys, ok := v.keys[t]
	if !ok {
		keys = keysOf(t)
		if v.keys == nil {
			v.keys = map[reflect.Type][]key{}
		}
		v.keys[t] = keys
	}
	return keys
}

func (v *validator) say(path, format string, args ...any) {
	if !v.said[path] {
		v.said[path] = true
		v.add(path, fmt.Sprintf(format, args...))
	}
}

func (v *validator) service() {
	s := &v.Service
	switch {
	case s.Name == "" && v.ofMesh():
		// Consul says it.
	case s.Name == "":
		v.say("service.name", "is required; name the service this proxy stands beside")
	case !serviceName(s.Name):
		v.say("service.name", "is %q; %s", s.Name, nameRule)
	}
	if s.Port < 0 || s.Port > 65535 {
		v.say("service.port", "is %d; write a number from 1 to 65535, or 0 for a service that only calls others", s.Port)
	}
	if v.applicationSocket() {
		return
	}
	if _, err := netip.ParseAddr(s.Address); err != nil {
		v.say("service.address", "is %q; write an IP address such as 127.0.0.1, or the path of a Unix socket as unix:/PATH", s.Address)
	}
}

// ofMesh reports whether the rest is what Consul's mesh says of a sidecar.
func (c *Config) ofMesh() bool {
	return c.Discovery.Consul != nil && c.Discovery.Consul.Sidecar != nil
}

// nameRule is what serviceName asks, in the words of an error message.
const nameRule = "use letters, digits, '-', '_' and '.', at most 128, with a letter or digit at both ends"

// serviceName reports whether s can name a service: in Consul, and as one
// segment of the path of a SPIFFE ID (SPIFFE-ID, section 2.2).
func serviceName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		case (r == '-' || r == '_' || r == '.') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}

func (v *validator) identity() {
	i := &v.Identity
	v.sources()
	if s := i.WorkloadAPI; s != "" {
		path, ok := strings.CutPrefix(s, "unix://")
		if !ok || !strings.HasPrefix(path, "/") || path == "/" {
			v.say("identity.workload_api", "is %q; write the absolute path of the socket as unix:///run/spire/agent.sock", s)
		}
	}
	if f := i.Files; f != nil {
		for _, file := range [...]struct{ name, path, what string }{
			{"cert", f.Cert, "certificate chain"}, {"key", f.Key, "private key"}, {"bundle", f.Bundle, "trusted roots"},
		} {
			if file.path == "" {
				v.say("identity.files."+file.name, "is required; name the PEM file with the %s", file.what)
			}
		}
		v.bundles("identity.files.bundles", f.Bundles)
	}
	if i.TrustDomain != "" {
		if _, err := mtls.ParseTrustDomain(i.TrustDomain); err != nil {
			remedy := ""
			if d, ok := strings.CutPrefix(i.TrustDomain, "spiffe://"); ok {
				remedy = fmt.Sprintf("; write it without spiffe://: %s", strings.TrimSuffix(d, "/"))
			}
			v.say("identity.trust_domain", "%v%s", err, remedy)
		}
	}
	if _, err := mtls.ParseID(i.ExpectedID("example.org", "dc1", "web")); err != nil {
		v.say("identity.service_id", "does not make a SPIFFE ID: %v; the placeholders are {trust_domain}, {datacenter} and {service}", err)
	}
}

func (v *validator) discovery() {
	d := &v.Discovery
	kinds := make([]string, 0, 3)
	for _, k := range [...]struct {
		name string
		set  bool
	}{{"consul", d.Consul != nil}, {"file", d.File != nil}, {"dns", d.DNS != nil}} {
		if k.set {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) > 1:
		v.say("discovery."+kinds[1], "is a second source beside %s; keep one", kinds[0])
	case len(kinds) == 0 && len(v.Services()) > 0:
		v.say("discovery", "is required: without it the endpoints of the upstreams are not known; give one of consul, file and dns")
	case len(kinds) == 0 && d.Snapshot != "":
		v.say("discovery.snapshot", "keeps nothing without one of consul, file and dns")
	}
	if d.DNS != nil {
		for _, name := range v.Services() {
			if _, ok := d.DNS.Services[name]; !ok && len(d.DNS.Services) > 0 {
				v.say("discovery.dns.services", "has no entry for the upstream %q", name)
			}
		}
	}
	if d.Consul != nil && d.Consul.Register != nil && d.Consul.Register.Definition == "" && !v.Service.Called() {
		v.say("discovery.consul.register", "has nothing to register: service.port is 0, so nothing listens")
	}
}

func (v *validator) inbound() {
	i := &v.Inbound
	if v.Service.Called() {
		if i.MTLS != MTLSOff && !v.Identity.Configured() {
			v.say("identity", "is required: inbound.mtls is %s; give workload_api, files or consul, or set inbound.mtls: off", i.MTLS)
		}
		if i.Protocol.HTTP() && v.Service.Protocol == ProtocolTCP {
			v.say("inbound.protocol", "is http, but the service speaks tcp")
		}
	}
	if i.MaxConnections < 0 {
		v.say("inbound.max_connections", "is %d; write the number of connections, or 0 for no limit", i.MaxConnections)
	}
	if i.MaxHandshakes < 1 {
		v.say("inbound.max_handshakes", "is %d; at least one handshake must be possible", i.MaxHandshakes)
	}
	v.routes("inbound.routes", "inbound", "inbound", i.Routes, v.Detection.Resolve(i.Protocol, v.Service.Port), i.Unmatched, false)
	anonymous := ""
	if i.MTLS == MTLSOff {
		anonymous = "and inbound.mtls is off, so no caller has one; use another key"
	}
	v.rateLimits("inbound.rate_limits", i.RateLimits, v.Detection.Resolve(i.Protocol, v.Service.Port), anonymous)
	v.limits("inbound", &i.Limits, i.Adaptive, i.Priorities, v.Detection.Resolve(i.Protocol, v.Service.Port), anonymous)
	v.clientCert()
	v.expose()
	v.positive("inbound.handshake_timeout", int64(i.HandshakeTimeout))
	v.positive("inbound.connect_timeout", int64(i.ConnectTimeout))
}

// positive refuses a time that cannot be switched off.
func (v *validator) positive(path string, d int64) {
	if d <= 0 {
		v.say(path, "must be above 0, or a peer that says nothing would be waited for without end")
	}
}

func (v *validator) outbound() {
	first := map[string]int{}
	for n, u := range v.Outbound.Upstreams {
		path := joinIndex("outbound.upstreams", n)
		switch earlier, dup := first[u.Title()]; {
		case u.Service == "":
			v.say(path+".service", "is required; name the service that is called here")
		case !serviceName(u.Service):
			v.say(path+".service", "is %q; %s", u.Service, nameRule)
		case dup:
			field := ".service"
			if u.Name != "" {
				field = ".name"
			}
			v.say(path+field, "is %q, which outbound.upstreams[%d] is already", u.Title(), earlier)
		case u.Name != "" && !serviceName(u.Name):
			v.say(path+".name", "is %q; %s", u.Name, nameRule)
		default:
			first[u.Title()] = n
		}
		v.sameProtocol(path, n)
		v.routes(path+".routes", u.Title(), u.Service, u.Routes, v.ServiceProtocol(u.Service), u.Unmatched, true)
	}
	v.transparent()
	v.targets()
}

func (v *validator) policies() {
	upstreams := v.Services()
	for _, name := range sortedKeys(reflect.ValueOf(v.Policies)) {
		path := joinKey("policies", name)
		p := v.Policies[name]
		switch {
		case name == AnyService || slices.Contains(upstreams, name):
		case name == v.Service.Name:
			v.say(path, "is this proxy's own service, not an upstream; its limits and times are set under inbound")
		case v.ofMesh() && v.Service.Name == "":
		default:
			v.say(path, "is not one of outbound.upstreams, nor of their routes%s", didYouMean(name, upstreams))
		}
		v.policy(path, name, &p)
	}
}

func (v *validator) policy(path, name string, p *Policy) {
	v.positive(path+".connect_timeout", int64(p.ConnectTimeout))
	if p.Transport == TransportPlaintext && len(p.Identities) > 0 {
		v.say(path+".identities", "cannot be verified: the transport is plaintext; remove them or set transport: mtls")
	}
	for i, id := range p.Identities {
		if _, err := mtls.ParseID(id); err != nil {
			v.say(joinIndex(path+".identities", i), "%v", err)
		}
	}
	if name != AnyService && p.Transport == TransportMTLS && !v.Identity.Configured() && !v.ofMesh() {
		v.say("identity", "is required: the upstream %s is reached over mtls; give workload_api or files, or set policies.%s.transport: plaintext", name, name)
	}
	v.guards(path, name, p)
	proto := ProtocolHTTP
	if name != AnyService {
		proto = v.ServiceProtocol(name)
	}
	v.limits(path, &p.Limits, p.Adaptive, p.Priorities, proto, "and the only caller is the service itself; use another key")
	v.rateLimits(path+".rate_limits", p.RateLimits, proto, "and the only caller is the service itself; use another key")
	r := p.Retry
	if r == nil {
		return
	}
	if r.Attempts > 1 && r.BudgetPercent == 0 && r.BudgetMinPerSecond == 0 {
		v.say(path+".retry.budget_percent", "is 0 as is budget_min_per_second, so no retry would ever be paid for; raise one, or write retry: off")
	}
	if r.Attempts > 1 && len(r.On) == 0 {
		v.say(path+".retry.on", "is empty, so nothing is ever retried; list the conditions, or write retry: off")
	}
	if p.Timeout > 0 && r.PerTryTimeout > p.Timeout {
		v.say(path+".retry.per_try_timeout", "is %s, longer than the whole exchange may take (timeout: %s)",
			formatDuration(r.PerTryTimeout), formatDuration(p.Timeout))
	}
}

func (v *validator) rest() {
	h := &v.HTTP
	if h.MaxHeadBytes < 1024 || h.MaxHeadBytes > 1<<20 {
		v.say("http.max_head_bytes", "is %d; write a number from 1024 to 1048576", h.MaxHeadBytes)
	}
	if h.MaxFields < 10 || h.MaxFields > 10_000 {
		v.say("http.max_fields", "is %d; write a number from 10 to 10000", h.MaxFields)
	}
	v.positive("http.head_timeout", int64(h.HeadTimeout))
	v.positive("http.idle_timeout", int64(h.IdleTimeout))

	t := &v.Telemetry
	if p := t.AccessLog.Path; p == "" {
		v.say("telemetry.access_log.path", "is empty; write stdout, stderr, off or a path")
	} else if !strings.Contains(p, "/") {
		words := []string{"stdout", "stderr", "off"}
		if near := nearest(p, words); near != "" && near != p && !strings.Contains(p, ".") {
			v.say("telemetry.access_log.path", "is %q; did you mean %q? For a file of that name write ./%s", p, near, p)
		}
	}
	if e := t.Tracing.Endpoint; e != "" {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			v.say("telemetry.tracing.endpoint", "is %q; write a URL such as http://127.0.0.1:4317", e)
		}
	}
}

// machines calls the Validate of every section that brings its own.
func (v *validator) machines(val reflect.Value, path string) {
	switch val.Kind() {
	case reflect.Pointer:
		if !val.IsNil() {
			v.machines(val.Elem(), path)
		}
	case reflect.Slice:
		for i := range val.Len() {
			v.machines(val.Index(i), joinIndex(path, i))
		}
	case reflect.Map:
		for _, name := range sortedKeys(val) {
			v.machines(val.MapIndex(reflect.ValueOf(name)), joinKey(path, name))
		}
	case reflect.Struct:
		if path != "" {
			m, ok := val.Interface().(interface {
				Validate(add func(field, problem string))
			})
			if ok {
				m.Validate(func(field, problem string) { v.say(joinField(path, field), "%s", problem) })
			}
		}
		for _, k := range v.keysOf(val.Type()) {
			v.machines(val.Field(k.index), joinKey(path, k.name))
		}
	}
}

// generic refuses what is wrong under any key: a negative duration, a
// percentage beyond 0 to 100, and a word that is not one of the key's.
func (v *validator) generic(val reflect.Value, path string) {
	switch val.Kind() {
	case reflect.Pointer:
		if !val.IsNil() {
			v.generic(val.Elem(), path)
		}
	case reflect.Slice:
		for i := range val.Len() {
			v.generic(val.Index(i), joinIndex(path, i))
		}
	case reflect.Map:
		for _, name := range sortedKeys(val) {
			v.generic(val.MapIndex(reflect.ValueOf(name)), joinKey(path, name))
		}
	case reflect.Struct:
		for _, k := range v.keysOf(val.Type()) {
			f, at := val.Field(k.index), joinKey(path, k.name)
			v.genericValue(f, at, k, val.Type().PkgPath() == reflect.TypeFor[Config]().PkgPath())
			v.generic(f, at)
		}
	}
}

// genericValue checks one value. own is set for the sections of this package;
// those of the machines have ranges of their own for percentages.
func (v *validator) genericValue(f reflect.Value, path string, k key, own bool) {
	f = reflect.Indirect(f)
	switch {
	case !f.IsValid(): // not given
	case f.Type() == durationType:
		if f.Int() < 0 {
			v.say(path, "is negative; a duration is 0 or more")
		}
	case f.Kind() == reflect.Float64 && strings.HasSuffix(k.name, "_percent") && own:
		if p := f.Float(); p < 0 || p > 100 || math.IsNaN(p) {
			v.say(path, "is %v; a percentage is from 0 to 100", p)
		}
	case f.Kind() == reflect.String && !isText(f.Type()) && len(k.words) > 0:
		if !slices.Contains(k.words, f.String()) {
			v.say(path, "is %q; must be %s", f.String(), orList(k.words))
		}
	}
}

// checkWritten refuses what stands in the file without any effect, which a
// configuration made in code cannot be asked about.
func (c *Config) checkWritten(o origins, add func(path, problem string)) {
	if _, ok := o["inbound.listen"]; ok && !c.Service.Called() && !c.ofMesh() {
		add("inbound.listen", "is never opened: service.port is not given, so nothing would take the calls")
	}
}
