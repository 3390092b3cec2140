package config

import (
	"reflect"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/discovery/dns"
	"github.com/outrigger-mesh/outrigger/discovery/file"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/mtls/consulca"
	"github.com/outrigger-mesh/outrigger/proxy/limiter"
	"github.com/outrigger-mesh/outrigger/proxy/names"
	"github.com/outrigger-mesh/outrigger/proxy/websocket"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/admission"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/orca"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// Default returns the configuration that an empty file means. It is not yet
// valid: a service has a name.
func Default() Config {
	return Config{
		Service: Service{Protocol: ProtocolHTTP, Address: "127.0.0.1"},
		Identity: Identity{
			StartupTimeout: 30 * time.Second,
		},
		Inbound: Inbound{
			Listen:            "0.0.0.0:15006",
			MTLS:              MTLSStrict,
			ClientCert:        ClientCert{Header: ClientCertSanitizeSet, Fields: []string{"uri"}},
			Normalize:         Normalize{EscapedSlashes: EscapedSlashesKeep, Underscores: UnderscoresAllow},
			MaxConnections:    16384,
			MaxHandshakes:     256,
			HandshakeTimeout:  10 * time.Second,
			ConnectTimeout:    time.Second,
			StreamIdleTimeout: 5 * time.Minute,
			KeepaliveTimeout:  3 * time.Second,
			WebSocket:         websocket.Default(),
			MaxConnectionAge:  time.Hour,
			Limits:            limit.Default(),
			Unmatched:         UnmatchedForward,
		},
		HTTP: HTTP{
			MaxHeadBytes: 61440,
			MaxFields:    100,
			HeadTimeout:  10 * time.Second,
			IdleTimeout:  5 * time.Minute,
		},
		DNS:       names.Default(),
		Detection: DefaultDetection(),
		Telemetry: Telemetry{
			AccessLog: AccessLog{Path: "stdout", SamplePercent: 100},
			Tracing:   Tracing{Protocol: "grpc", SamplingPercent: 1},
			Ledger:    ledger.Default(),
			Outcomes:  outcomes.Default(),
			Log:       Log{Level: "info", Format: "text"},
		},
		Authorization: authz.Defaults(),
		Admin:         Admin{Listen: "127.0.0.1:15000", MetricsPath: "/metrics"},
		Drain:         Drain{Delay: 5 * time.Second, Timeout: 30 * time.Second},
	}
}

// DefaultPolicy returns the policy of an upstream about which the file says nothing.
func DefaultPolicy() Policy {
	r, o := retry.Default(), outlier.Default()
	return Policy{
		ConnectTimeout:    time.Second,
		StreamIdleTimeout: 5 * time.Minute,
		KeepaliveTimeout:  3 * time.Second,
		Transport:         TransportMTLS,
		Multiplex:         true,
		Retry:             &r,
		Outlier:           &o,
		WebSocket:         websocket.Default(),
		Limits:            limit.Default(),
		Balance:           balance.Default(),
		SubsetFallback:    SubsetFallbackNone,
	}
}

// WithDefaults returns a copy in which everything that follows from another
// value is filled in: the inbound protocol from the service's, the upstreams'
// protocol, and a policy for "*" and each upstream. c itself is left as it is.
// Values whose zero means something are taken as they are; start from Default
// to have theirs.
func (c *Config) WithDefaults() *Config {
	n := deepCopy(reflect.ValueOf(c)).Interface().(*Config)
	n.derive()
	return n
}

// derive fills in what follows from other values.
func (c *Config) derive() {
	c.Identity.derive()
	if c.Inbound.Protocol == "" {
		c.Inbound.Protocol = c.Service.Protocol
	}
	if c.Inbound.Unmatched == "" {
		c.Inbound.Unmatched = UnmatchedForward
	}
	if c.Policies == nil {
		c.Policies = map[string]Policy{}
	}
	if _, ok := c.Policies[AnyService]; !ok {
		c.Policies[AnyService] = DefaultPolicy()
	}
	for i := range c.Outbound.Upstreams {
		u := &c.Outbound.Upstreams[i]
		if u.Protocol == "" {
			u.Protocol = ProtocolHTTP
		}
		if u.Unmatched == "" {
			u.Unmatched = UnmatchedForward
		}
	}
	for _, name := range c.Services() {
		if _, ok := c.Policies[name]; !ok {
			c.Policies[name] = deepCopy(reflect.ValueOf(c.Policies[AnyService])).Interface().(Policy)
		}
	}
}

// newSection returns a pointer to a section with the values it has when it is
// written without a key in it.
func newSection(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	switch p := v.Interface().(type) {
	case *Policy:
		*p = DefaultPolicy()
	case *Upstream:
		p.Protocol, p.Unmatched = ProtocolHTTP, UnmatchedForward
	case *Fault:
		*p = DefaultFault()
	case *RateLimit:
		*p = DefaultRateLimit()
	case *RateEntry:
		p.From = RateKeyNone
	case *ratelimit.Config:
		*p = ratelimit.Default()
	case *limiter.GRPC:
		*p = limiter.DefaultGRPC()
	case *limiter.Redis:
		*p = limiter.DefaultRedis()
	case *RouteReply:
		p.ContentType = "text/plain; charset=utf-8"
	case *retry.Config:
		*p = retry.Default()
	case *outlier.Caution:
		*p = outlier.DefaultCaution()
	case *outlier.Config:
		*p = outlier.Default()
	case *health.Config:
		*p = health.Default()
	case *health.HTTP:
		*p = health.DefaultHTTP()
	case *admission.Config:
		*p = admission.Default()
	case *hedge.Config:
		*p = hedge.Default()
	case *breaker.Config:
		*p = breaker.Default()
	case *adaptive.Config:
		*p = adaptive.Default()
	case *queue.Config:
		*p = queue.Default()
	case *orca.Config:
		*p = orca.Default()
	case *consul.Config:
		*p = consul.Default()
	case *consulca.Config:
		*p = consulca.Default()
	case *consul.Check:
		*p = consul.DefaultCheck()
	case *consul.Sidecar:
		*p = consul.DefaultSidecar()
	case *file.Config:
		*p = file.Default()
	case *dns.Config:
		*p = dns.Default()
	case Defaulter:
		p.SetDefaults()
	}
	return v
}

// deepCopy returns a copy that shares no pointer, slice or map with v.
func deepCopy(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		n := reflect.New(v.Type().Elem())
		n.Elem().Set(deepCopy(v.Elem()))
		return n
	case reflect.Struct:
		n := reflect.New(v.Type()).Elem()
		n.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				n.Field(i).Set(deepCopy(v.Field(i)))
			}
		}
		return n
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		n := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			n.Index(i).Set(deepCopy(v.Index(i)))
		}
		return n
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		n := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			n.SetMapIndex(it.Key(), deepCopy(it.Value()))
		}
		return n
	}
	return v
}
