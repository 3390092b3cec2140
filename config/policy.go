package config

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/websocket"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// AnyService is the name of the policy that all others start from.
const AnyService = "*"

// Transport is how a connection to an endpoint is protected.
type Transport string

// The transports.
const (
	TransportMTLS      Transport = "mtls"
	TransportPlaintext Transport = "plaintext"
)

// Policy is how one upstream is called. The sections retry, outlier,
// health, breaker, admission, hedge and adaptive take the word "off" in place of their keys, which makes them nil
// here; an empty section turns one on with its defaults.
type Policy struct {
	// How long a whole exchange may take, all attempts together. 0: no limit.
	Timeout time.Duration `yaml:"timeout"`
	// How long a connection to an endpoint may take to be made, its TLS handshake included.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// How long an exchange may go without a byte in either direction; for WebSockets see websocket. 0: no limit.
	StreamIdleTimeout time.Duration `yaml:"stream_idle_timeout"`
	// How long an unused HTTP connection is kept for the next request. Short, so that the proxy closes before the endpoint does. 0: none is kept.
	KeepaliveTimeout time.Duration `yaml:"keepalive_timeout"`
	// How long a connection that carries many exchanges (HTTP/2, or that between sidecars) takes new ones, 10 % more or
	// less; then another is made. Balancing is by exchange and needs no such limit; endpoints that are addresses of a
	// balancer do. 0: no limit.
	MaxConnectionAge time.Duration `yaml:"max_connection_age"`
	// How long a TCP connection may go without a byte in either direction. 0: no limit.
	TCPIdleTimeout time.Duration `yaml:"tcp_idle_timeout"`
	// How endpoints are reached: mtls with verified identities, or plaintext for those outside the mesh.
	Transport Transport `yaml:"transport" enum:"mtls,plaintext"`
	// Whether everything that goes to an endpoint with a sidecar of this kind shares one mTLS connection. What it
	// carries arrives as it was sent: HTTP/1.1, HTTP/2 or TCP. Other endpoints are not asked more than this by it.
	Multiplex bool `yaml:"multiplex"`
	// The SPIFFE IDs of which an endpoint must have one. Empty: those that discovery gives, else identity.service_id.
	Identities []string `yaml:"identities"`
	// The server name that TLS to the endpoints asks for (SNI), by which gateways route. It plays no part in
	// verification. Empty: what discovery gives, else none is sent. Not under "*".
	ServerName string `yaml:"server_name"`
	// Another attempt after a failed one. off: exactly one attempt.
	Retry *retry.Config `yaml:"retry" off:"true"`
	// Ejection of endpoints that fail. off: none is ejected.
	Outlier *outlier.Config `yaml:"outlier" off:"true"`
	// Active checks of every endpoint. One that fails them gets no traffic, whatever discovery says of it.
	Health *health.Config `yaml:"health" off:"true"`
	// A circuit breaker over the whole upstream.
	Breaker *breaker.Config `yaml:"breaker" off:"true"`
	// Admission control: a share of requests is held back while the upstream accepts too few of them.
	Admission *admission.Config `yaml:"admission" off:"true"`
	// Another attempt beside one that is slow to be answered; the first answer counts. It takes from retry's budget.
	Hedge *hedge.Config `yaml:"hedge" off:"true"`
	// How long WebSockets may be idle, and last.
	WebSocket websocket.Config `yaml:"websocket"`
	// Limits on connections and requests.
	Limits limit.Config `yaml:"limits"`
	// Whose turn comes first in limits.queue. The first rule that takes a request counts; others have the route's priority, which is normal.
	Priorities []PriorityRule `yaml:"priorities"`
	// A limit on active requests that follows how long they take, beside limits.max_requests. off (default): there is none.
	Adaptive *adaptive.Config `yaml:"adaptive" off:"true"`
	// How many requests may go to the upstream in a time. They are asked in order; the first that refuses ends the request.
	RateLimits []RateLimit `yaml:"rate_limits"`
	// How an endpoint is chosen.
	Balance balance.Config `yaml:"balance"`
	// Named parts of the upstream's endpoints, each by metadata that an endpoint of it must have: {v2: {version: "2"}}.
	// Routes choose one. Tags are metadata too, as tag.NAME: "true", and those of the node are node.KEY.
	Subsets map[string]map[string]string `yaml:"subsets"`
	// What becomes of requests for a subset of which no endpoint may be used. none: they are refused. any: they go to
	// any endpoint of the upstream.
	SubsetFallback SubsetFallback `yaml:"subset_fallback" enum:"none,any"`
	// Other services that have the attempts, in this order, while none of the upstream's own endpoints is available:
	// healthy by discovery and active checks, and not ejected. Each is called by its own policy (identities, connect_timeout,
	// balance, outlier); times, retries, limits on requests and breakers stay those of this one. A retry goes to the next
	// service that has available endpoints. At most 8. The failover of those that are named here is not asked.
	Failover []string `yaml:"failover"`
}

// Policy returns the policy for calls to service: its own, else "*", else the
// default. Maps and sections in it are shared with c and must not be changed.
func (c *Config) Policy(service string) Policy {
	if p, ok := c.Policies[service]; ok {
		return p
	}
	if p, ok := c.Policies[AnyService]; ok {
		return p
	}
	return DefaultPolicy()
}

// guards checks what sections of a policy mean for the service's protocol.
func (v *validator) guards(path, name string, p *Policy) {
	v.health(path, name, p)
	v.balance(path, name, p)
	v.hedge(path, name, p)
	v.checkFailover(path, name, p)
	v.serverName(path, name, p)
}

// health refuses a check that cannot be made over the upstream's protocol.
func (v *validator) health(path, name string, p *Policy) {
	if p.Health == nil || p.Health.GRPC == nil {
		return
	}
	if proto := v.ServiceProtocol(name); name != AnyService && !proto.HTTP2() && proto != ProtocolAuto {
		v.say(path+".health.grpc", "cannot be asked: %s is spoken with %s; write health: {grpc: off, http: {path: /health}} or protocol: grpc for its upstream", proto, name)
	}
}

// balance checks the subsets, and refuses what balancing cannot see on a TCP
// connection.
func (v *validator) balance(path, name string, p *Policy) {
	v.subsets(path, p)
	path += ".balance"
	if s := &v.Service; p.Balance.Zones.Prefer && s.Zone == "" && s.Region == "" {
		v.say(path+".zones.prefer", "needs to know where this proxy runs; write service: {zone: ...}, the name that discovery gives the zone")
	}
	proto := v.ServiceProtocol(name)
	if !proto.opaque() {
		return
	}
	for i := range p.Balance.Hash {
		if h := &p.Balance.Hash[i]; h.Header != "" || h.Cookie != nil || h.Query != "" {
			v.say(joinIndex(path+".hash", i), "cannot be seen: with %s %s is spoken; use source_ip or identity", name, proto)
		}
	}
	if p.Balance.ORCA != nil {
		v.say(path+".orca", "cannot be heard: with %s %s is spoken, which has no response fields; write orca: off", name, proto)
	}
	if p.Balance.Affinity != nil {
		v.say(path+".affinity", "cannot be kept: with %s %s is spoken, which has no cookies; write affinity: off", name, proto)
	}
}
