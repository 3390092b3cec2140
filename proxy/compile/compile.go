// Package compile turns a configuration and what discovery knows into a plan: everything is checked and prepared before anything changes.
package compile

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/mtls/jwks"
	"github.com/outrigger-mesh/outrigger/mtls/jwt"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Input is what a plan is made from.
type Input struct {
	Loaded  *config.Loaded
	Version uint64
	// Source is where the own identity comes from; nil without one.
	Source mtls.Source
	// TrustDomain is the own one, for expected identities made from the
	// template; needed only with a Source.
	TrustDomain string
	// Datacenter is the own one, where the identity names one.
	Datacenter string
	// Counters are those who count rate limits for several proxies; needed only
	// with such limits.
	Limiters *limiter.Set
	// Tokens keeps what verifies the tokens of requests; without it only keys in
	// the configuration count.
	Tokens *jwks.Set
	// Identities are the SPIFFE IDs that discovery gives for services.
	Identities map[string][]string
	// ServerNames are those that TLS to the endpoints of services asks for, by discovery.
	ServerNames map[string]string
	// Early makes what stands before the first plan: where connections arrive
	// that the kernel redirects, and nothing else.
	Early bool
}

// Draft is a compiled configuration that nothing serves yet.
type Draft struct {
	version   uint64
	listeners []*plan.Listener
	specs     []clusterSpec
	uses      []use
	datagrams []datagrams
	faults    []*plan.Fault
	limiters  *limiter.Set
	counting  limiter.Spec
	peers     string // the own service, where a rate limit is divided among its instances
	gates     []gate
	authz     guard.Mode // of the rules for who calls the service
	direct    []*plan.Listener
	verifiers []*jwt.Verifier
}

// Verifiers are what verifies the tokens of requests.
func (d *Draft) Verifiers() []*jwt.Verifier { return d.verifiers }

// use is a route with the cluster that it is to have.
type use struct {
	listener string
	route    *plan.Route
	spec     int
	subset   string // empty for the whole cluster
}

type clusterSpec struct {
	spec  upstream.Spec
	dir   telemetry.Direction
	local []upstream.EndpointSpec
	rates []*plan.RateLimit
	// turns say who comes first where the cluster's exchanges must wait.
	turns []plan.PriorityRule
	// failover are the specs of the clusters that have its attempts while it has no endpoints.
	failover []int
}

// Compile checks in and prepares the plan. It reads the keys of affinity cookies
// and the roots of who counts rate limits, does no other I/O and changes nothing.
// The error is a config.Problems with every mistake at its place in the file.
func Compile(in Input) (*Draft, error) {
	c := &compiler{in: in, cfg: in.Loaded.Config, draft: &Draft{version: in.Version, limiters: in.Limiters}}
	if in.Early {
		c.intercept()
		return c.result()
	}
	c.rateLimiters()
	if c.cfg.DividesRates() {
		c.draft.peers = c.cfg.Service.Name
	}
	if c.cfg.Service.Called() {
		c.inbound()
	}
	for i := range c.cfg.Inbound.Expose {
		c.expose(i)
	}
	for i := range c.cfg.Outbound.Upstreams {
		c.outbound(i)
	}
	for i := range c.cfg.Outbound.UDP {
		c.datagrams(i)
	}
	c.intercept()
	c.faults()
	return c.result()
}

func (c *compiler) result() (*Draft, error) {
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return c.draft, nil
}

type compiler struct {
	in       Input
	cfg      *config.Config
	draft    *Draft
	problems config.Problems
	listener string // the one that is being prepared
}

func (c *compiler) problem(path, format string, args ...any) {
	c.problems = append(c.problems, c.in.Loaded.Problem(path, fmt.Sprintf(format, args...)))
}

// What mesh connections for HTTP negotiate. A listener takes both.
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

func (c *compiler) http() plan.HTTPOptions {
	h := &c.cfg.HTTP
	return plan.HTTPOptions{
		Limits:      http1.Limits{HeadBytes: h.MaxHeadBytes, Fields: h.MaxFields},
		HeadTimeout: h.HeadTimeout,
		IdleTimeout: h.IdleTimeout,
	}
}

func protocol(p config.Protocol) plan.Protocol {
	switch p {
	case config.ProtocolTCP:
		return plan.TCP
	case config.ProtocolAuto:
		return plan.Auto
	}
	return plan.HTTP
}

// inbound prepares the listener that others call and the cluster of the
// application behind it.
func (c *compiler) inbound() {
	c.listener = "inbound"
	in := &c.cfg.Inbound
	proto := c.cfg.Detection.Resolve(in.Protocol, c.cfg.Service.Port)
	l := &plan.Listener{
		Name: c.listener, Address: in.Listen, Direction: telemetry.Inbound, Protocol: protocol(proto), DetectWait: c.cfg.Detection.Wait,
		HandshakeTimeout: in.HandshakeTimeout, MaxHandshakes: in.MaxHandshakes, MaxConnections: in.MaxConnections,
		HTTP: c.http(),
	}
	c.otherPorts(l)
	l.ClientCert = clientCert(&in.ClientCert)
	l.HTTP.Normalize = normalization(&in.Normalize)
	l.HTTP.MaxAge, l.HTTP.AgeGrace = in.MaxConnectionAge, in.MaxConnectionAgeGrace
	switch in.MTLS {
	case config.MTLSStrict:
		l.Security = plan.Strict
	case config.MTLSPermissive:
		l.Security = plan.Permissive
	}
	if l.Security != plan.Plaintext {
		if c.in.Source == nil {
			c.problem("inbound.mtls", "is %s, which needs an identity; give one under identity or write mtls: off", in.MTLS)
			return
		}
		in := tlsOf(&c.cfg.Identity.TLS.Incoming)
		o := mtls.ServerOptions{MinVersion: in.min, MaxVersion: in.max, CipherSuites: in.suites}
		switch l.Protocol {
		case plan.TCP:
			o.NextProtos = []string{http2.MeshTCP}
		case plan.Auto:
			// Those who offer nothing are heard out.
			o.NextProtos = []string{http2.MeshHTTP, http2.MeshTCP, alpnHTTP2, alpnHTTP1}
		default:
			o.NextProtos = []string{http2.MeshHTTP, alpnHTTP2, alpnHTTP1}
		}
		l.TLS = mtls.ServerConfig(c.in.Source, o)
	}
	verifier := func(p *jwt.Provider) (*jwt.Verifier, error) { return jwt.NewVerifier(*p), nil }
	if c.in.Tokens != nil {
		verifier = c.in.Tokens.Verifier
	}
	policy, err := authz.CompileWith(c.cfg.Authorization, verifier)
	if err != nil {
		c.problem("authorization", "%v", err)
		return
	}
	c.draft.verifiers = policy.Verifiers()
	l.Route, c.draft.authz = plan.Route{Name: "inbound", Authz: policy}, policy.Mode()
	app, ok := c.application(0)
	if !ok {
		return
	}
	c.draft.specs = append(c.draft.specs, clusterSpec{
		dir:   telemetry.Inbound,
		turns: c.priorities("inbound.priorities", in.Priorities),
		rates: c.rateLimits("inbound.rate_limits", c.cfg.Service.Name, in.RateLimits),
		local: []upstream.EndpointSpec{app},
		spec: upstream.Spec{
			Name: c.cfg.Service.Name, Protocol: string(proto), Local: true, Transport: "plaintext",
			Policy: upstream.Policy{
				Timeout: in.Timeout, ConnectTimeout: in.ConnectTimeout, StreamIdle: in.StreamIdleTimeout,
				Keepalive: in.KeepaliveTimeout, TCPIdle: in.TCPIdleTimeout, Limits: in.Limits, Adaptive: in.Adaptive, WebSocket: in.WebSocket,
				Retry: localRetry(), HTTP2: proto.HTTP2(), SameHTTP: proto == config.ProtocolAuto,
			},
		},
	})
	spec := len(c.draft.specs) - 1
	c.use(&l.Route, spec)
	c.routes("inbound.routes", l, in.Routes, in.Unmatched, spec)
	c.add(l)
}

// application is the only endpoint of its cluster: where the application listens,
// or with a port that one of its address.
func (c *compiler) application(port int) (e upstream.EndpointSpec, ok bool) {
	e = upstream.EndpointSpec{Weight: 1, Healthy: true, Health: "local"}
	if path, ok := config.SocketPath(c.cfg.Service.Address); ok {
		if e.Socket = path; port != 0 {
			e.Socket, e.Address = "", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
		}
		return e, true
	}
	addr, err := netip.ParseAddr(c.cfg.Service.Address)
	if err != nil {
		c.problem("service.address", "is not an IP address")
		return e, false
	}
	if port == 0 {
		port = c.cfg.Service.Port
	}
	e.Address = netip.AddrPortFrom(addr, uint16(port))
	return e, true
}

// localRetry is the retry policy towards the own application: only what a
// kept connection that was just closed explains. Callers retry the rest; doing
// so at every hop would multiply the attempts.
func localRetry() *retry.Config {
	r := retry.Default()
	r.On = []retry.Condition{retry.StaleConnection}
	return &r
}

// outbound prepares the listener of one upstream and its cluster.
func (c *compiler) outbound(i int) {
	u := &c.cfg.Outbound.Upstreams[i]
	path := "outbound.upstreams[" + strconv.Itoa(i) + "]"
	c.listener = "outbound:" + u.Title()
	l := &plan.Listener{
		Name: c.listener, Address: u.Listen, Direction: telemetry.Outbound, Protocol: protocol(c.cfg.ServiceProtocol(u.Service)),
		DetectWait: c.cfg.Detection.Wait, HTTP: c.http(), Route: plan.Route{Name: u.Title()}, Opaque: c.opaque(),
	}
	if socket, ok := config.SocketPath(u.Listen); ok {
		mode, err := config.SocketPermissions(u.SocketMode)
		if err != nil {
			c.problem(path+".socket_mode", "%v", err)
			return
		}
		l.Address, l.SocketMode = wire.Unix+socket, mode
	}
	spec := c.called(path+".service", u.Service)
	if spec < 0 {
		return
	}
	c.use(&l.Route, spec)
	c.routes(path+".routes", l, u.Routes, u.Unmatched, spec)
	c.add(l)
	if u.Direct {
		c.direct(l, spec)
	}
}

// service prepares the cluster of a service, once, and returns where it is; -1
// when it cannot be made. path is where the service is named.
func (c *compiler) service(path, name string) int {
	for i := range c.draft.specs {
		if s := &c.draft.specs[i]; s.dir == telemetry.Outbound && s.spec.Name == name {
			return i
		}
	}
	p, proto := c.cfg.Policy(name), c.cfg.ServiceProtocol(name)
	s := upstream.Spec{
		Name: name, Protocol: string(proto), Transport: "plaintext",
		Policy: upstream.Policy{
			Timeout: p.Timeout, ConnectTimeout: p.ConnectTimeout, StreamIdle: p.StreamIdleTimeout,
			Keepalive: p.KeepaliveTimeout, MaxAge: p.MaxConnectionAge, TCPIdle: p.TCPIdleTimeout,
			HTTP2: proto.HTTP2(), SameHTTP: proto == config.ProtocolAuto, Retry: p.Retry, Outlier: p.Outlier, Health: p.Health, Breaker: p.Breaker, Admission: p.Admission, Hedge: p.Hedge, Limits: p.Limits, Adaptive: p.Adaptive, Balance: p.Balance, WebSocket: p.WebSocket,
		},
	}
	s.Policy.Subsets, s.Policy.Region, s.Policy.Zone = subsets(&p), c.cfg.Service.Region, c.cfg.Service.Zone
	c.balance(&s.Policy, name)
	if p.Transport == config.TransportMTLS && !c.secure(path, &s, &p, protocol(proto)) {
		return -1
	}
	rates := c.rateLimits("policies."+name+".rate_limits", name, p.RateLimits)
	c.draft.specs = append(c.draft.specs, clusterSpec{spec: s, dir: telemetry.Outbound, rates: rates, turns: c.priorities("policies."+name+".priorities", p.Priorities)})
	return len(c.draft.specs) - 1
}

// secure gives s the TLS configuration for the identities that its endpoints
// must have: those of the policy, else of discovery, else of the template.
func (c *compiler) secure(path string, s *upstream.Spec, p *config.Policy, proto plan.Protocol) bool {
	if c.in.Source == nil {
		c.problem(path, "is called by mTLS, which needs an identity; give one under identity, or write transport: plaintext under policies.%s", s.Name)
		return false
	}
	s.Identities = p.Identities
	if len(s.Identities) == 0 {
		s.Identities = c.in.Identities[s.Name]
	}
	if len(s.Identities) == 0 {
		s.Identities = []string{c.cfg.Identity.ExpectedID(c.in.TrustDomain, c.in.Datacenter, s.Name)}
	}
	out := tlsOf(&c.cfg.Identity.TLS.Outgoing)
	o := mtls.ClientOptions{MinVersion: out.min, MaxVersion: out.max, CipherSuites: out.suites, ServerName: p.ServerName}
	if o.ServerName == "" {
		o.ServerName = c.in.ServerNames[s.Name]
	}
	switch {
	case s.Policy.HTTP2:
		o.NextProtos = []string{alpnHTTP2}
	case proto == plan.HTTP:
		o.NextProtos = []string{alpnHTTP1}
	}
	if s.Policy.Mesh = p.Multiplex; s.Policy.Mesh {
		name := http2.MeshHTTP
		if proto == plan.TCP {
			name = http2.MeshTCP
		}
		o.NextProtos = slices.Insert(o.NextProtos, 0, name)
	}
	for _, text := range s.Identities {
		id, err := mtls.ParseID(text)
		if err != nil {
			c.problem(path, "expects the identity %q of its endpoints: %v", text, err)
			return false
		}
		o.Expected = append(o.Expected, id)
	}
	s.TLS = mtls.ClientConfig(c.in.Source, o)
	protocols := o.NextProtos
	if s.Policy.SameHTTP {
		protocols = slices.Concat(protocols, []string{s.Protocol})
	}
	ids := slices.Sorted(slices.Values(s.Identities))
	s.Transport = strings.Join(slices.Concat([]string{"mtls"}, protocols, []string{out.words}, ids), " ")
	if o.ServerName != "" {
		s.Transport += " sni " + o.ServerName
	}
	return true
}

// use says that route calls the cluster of spec.
func (c *compiler) use(route *plan.Route, spec int) {
	c.draft.uses = append(c.draft.uses, use{listener: c.listener, route: route, spec: spec})
}

func (c *compiler) add(l *plan.Listener) {
	if _, _, err := net.SplitHostPort(l.Address); err != nil && l.Address != "" && !strings.HasPrefix(l.Address, wire.Unix) {
		c.problem("outbound.upstreams", "listener %s: %v", l.Name, err)
		return
	}
	l.Version = c.in.Version
	c.draft.listeners = append(c.draft.listeners, l)
}
