// Package config is the plain-data language in which a proxy is told what to do: load, defaults, validation with positions, and where every value came from.
//
// A file is YAML (JSON is YAML too), one document, at most MaxFileBytes long.
// There is no environment expansion: what stands in the file is what is used.
// Durations are written with a unit ("250ms", "2s", "1h30m"); 0 needs none and
// means what the field's description says, most often off. Percentages are
// numbers from 0 to 100 under keys that end in _percent.
package config

import (
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/mtls/consulca"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/names"
	"github.com/outrigger-mesh/outrigger/proxy/websocket"
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/telemetry/ledger"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

//go:generate go run ./internal/docgen

// Config is everything one proxy is told. Load makes one from a file with all
// defaults filled in; Default is the starting point for one made in code.
type Config struct {
	// The service this proxy stands beside.
	Service Service `yaml:"service"`
	// Where this proxy's certificate and the trusted roots come from.
	Identity Identity `yaml:"identity"`
	// Where the endpoints of the upstreams are found: at most one of consul, file and dns.
	Discovery Discovery `yaml:"discovery"`
	// Traffic from others to the service.
	Inbound Inbound `yaml:"inbound"`
	// Traffic from the service to others.
	Outbound Outbound `yaml:"outbound"`
	// How requests to an upstream are balanced, limited, retried and ended, by the upstream's service name. The
	// policy named "*" is what every other one starts from, key by key; it starts from the defaults.
	Policies map[string]Policy `yaml:"policies"`
	// Who may do what with the service. Without a rule every verified caller may; with one, only what a rule allows.
	Authorization authz.Config `yaml:"authorization"`
	// Who counts requests for several proxies, for rate limits whose scope names one.
	RateLimiters RateLimiters `yaml:"rate_limiters"`
	// Limits and times of the HTTP listeners, inbound and outbound.
	HTTP HTTP `yaml:"http"`
	// Answers to DNS queries for the names of the upstreams, for applications whose queries come to the proxy.
	DNS names.Config `yaml:"dns"`
	// How it is found out what is spoken on listeners with protocol: auto.
	Detection Detection `yaml:"detection"`
	// Access log, traces and the proxy's own log.
	Telemetry Telemetry `yaml:"telemetry"`
	// The admin API: metrics, health, state.
	Admin Admin `yaml:"admin"`
	// Failures made on purpose, to see what becomes of them.
	Faults Faults `yaml:"faults"`
	// How much memory the proxy may take.
	Memory memory.Config `yaml:"memory"`
	// How the proxy stops.
	Drain Drain `yaml:"drain"`
}

// Protocol is what a listener or an upstream speaks.
type Protocol string

// The protocols.
const (
	// ProtocolHTTP is HTTP/1.1. Listeners take HTTP/2 as well.
	ProtocolHTTP Protocol = "http"
	// ProtocolHTTP2 is HTTP/2: by ALPN over TLS, by prior knowledge without.
	ProtocolHTTP2 Protocol = "http2"
	// ProtocolGRPC is gRPC, on HTTP/2.
	ProtocolGRPC Protocol = "grpc"
	ProtocolTCP  Protocol = "tcp"
	// ProtocolAuto is whatever each connection turns out to speak.
	ProtocolAuto Protocol = "auto"
)

// HTTP reports whether p is HTTP of any version.
func (p Protocol) HTTP() bool { return p != ProtocolTCP && p != ProtocolAuto && p != ProtocolUDP }

// opaque reports whether p is bytes in which no requests are seen.
func (p Protocol) opaque() bool { return p == ProtocolTCP || p == ProtocolUDP }

// HTTP2 reports whether p is spoken over HTTP/2.
func (p Protocol) HTTP2() bool { return p == ProtocolHTTP2 || p == ProtocolGRPC }

// Service is the application beside the proxy.
type Service struct {
	// The service's name: letters, digits, "-", "_" and ".", at most 128. Required.
	Name string `yaml:"name"`
	// The port on which the application listens. 0: the service only calls others, and no inbound listener is opened, unless address is a Unix socket.
	Port int `yaml:"port"`
	// What the application speaks: http (HTTP/1.1), http2 or grpc (both HTTP/2 by prior knowledge), tcp, or auto: it is found out for each connection, and HTTP is spoken in the caller's version. Callers may use HTTP/1.1 and HTTP/2 with all but tcp.
	Protocol Protocol `yaml:"protocol" enum:"http,http2,grpc,tcp,auto"`
	// The IP address on which the application listens, or "unix:/PATH" for a Unix socket, beside which there is no port.
	Address string `yaml:"address"`
	// The region in which this proxy runs, as discovery calls it; for policies.<service>.balance.zones.
	Region string `yaml:"region"`
	// The zone in which this proxy runs, as discovery calls it; for policies.<service>.balance.zones.
	Zone string `yaml:"zone"`
}

// Identity says where the proxy's SVID comes from and which identities its peers must have.
type Identity struct {
	// The SPIFFE Workload API socket, such as "unix:///run/spire/agent.sock". One of this, files and consul.
	WorkloadAPI string `yaml:"workload_api"`
	// Certificate, key and roots from files, read again when they change. One of this, workload_api and consul.
	Files *IdentityFiles `yaml:"files"`
	// A certificate from the CA of Consul's service mesh, and its roots. One of this, workload_api and files.
	Consul *consulca.Config `yaml:"consul"`
	// The trust domain of the mesh, such as "example.org". Empty: that of this proxy's own certificate.
	TrustDomain string `yaml:"trust_domain"`
	// The SPIFFE ID that an upstream must have when its policy lists no identities and discovery gives none.
	// "{trust_domain}", "{datacenter}" and "{service}" are replaced; the datacenter is that of identity.consul. Default:
	// with consul the form of Consul's CA, else "spiffe://{trust_domain}/{service}".
	ServiceID string `yaml:"service_id"`
	// How long the start waits for the first certificate before it fails. 0: no limit.
	StartupTimeout time.Duration `yaml:"startup_timeout"`
	// The oldest TLS version accepted from and offered to a peer. Default: 1.3; with consul 1.2, which is what Envoy
	// offers as a client.
	MinTLS string `yaml:"min_tls" enum:"1.3,1.2"`
	// TLS versions and cipher suites, by direction.
	TLS IdentityTLS `yaml:"tls"`
	// The roots of other trust domains whose peers may be authenticated, for every source of identity: trust domain to
	// PEM file, read again when it changes. What the source itself says of a trust domain comes first.
	Bundles map[string]string `yaml:"bundles"`
}

// IdentityFiles are the PEM files of an identity. All three of cert, key and
// at least one bundle are needed.
type IdentityFiles struct {
	// The certificate chain, leaf first.
	Cert string `yaml:"cert"`
	// The private key.
	Key string `yaml:"key"`
	// The roots of the certificate's own trust domain.
	Bundle string `yaml:"bundle"`
	// The roots of other trust domains: trust domain to file.
	Bundles map[string]string `yaml:"bundles"`
}

// MTLS says how an inbound listener treats callers without mTLS.
type MTLS string

// The ways of inbound mTLS.
const (
	// MTLSStrict refuses every caller without a valid certificate.
	MTLSStrict MTLS = "strict"
	// MTLSPermissive takes mTLS and plaintext on one port and keeps an inventory of the plaintext callers.
	MTLSPermissive MTLS = "permissive"
	// MTLSOff takes plaintext only.
	MTLSOff MTLS = "off"
)

// Inbound is the listener that others call, and how it calls the application.
type Inbound struct {
	// The address that others call, "IP:PORT".
	Listen string `yaml:"listen"`
	// What becomes of callers without a valid certificate. strict: they are refused. permissive: plaintext is taken
	// too, and its callers are listed on the admin API. off: plaintext is all that is taken.
	MTLS MTLS `yaml:"mtls" enum:"strict,permissive,off"`
	// What the listener speaks. Default: service.protocol.
	Protocol Protocol `yaml:"protocol" enum:"http,http2,grpc,tcp,auto"`
	// What the application is told of its callers' certificates.
	ClientCert ClientCert `yaml:"client_cert"`
	// Into what form requests are brought before rules, routes and the application see them.
	Normalize Normalize `yaml:"normalize"`
	// Connections open at a time; more are closed at once. 0: no limit.
	MaxConnections int `yaml:"max_connections"`
	// How long an HTTP/2 connection, that between sidecars included, is used; then its caller is told to open another
	// one (GOAWAY), 10 % sooner or later so that not all do at once. What it carries goes on. New connections find new
	// instances behind an address that stands for several. 0: no limit.
	MaxConnectionAge time.Duration `yaml:"max_connection_age"`
	// How long exchanges may go on after max_connection_age; then they are cut, so that callers of endless streams
	// begin them anew, perhaps elsewhere. 0: as long as they want.
	MaxConnectionAgeGrace time.Duration `yaml:"max_connection_age_grace"`
	// TLS handshakes under way at a time; more wait within handshake_timeout.
	MaxHandshakes int `yaml:"max_handshakes"`
	// How long a TLS handshake may take, and in permissive mode how long the first byte may.
	HandshakeTimeout time.Duration `yaml:"handshake_timeout"`
	// How long a whole request to the application may take. 0: no limit.
	Timeout time.Duration `yaml:"timeout"`
	// How long a connection to the application may take to be made.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// How long a request may go without a byte in either direction; for WebSockets see websocket. 0: no limit.
	StreamIdleTimeout time.Duration `yaml:"stream_idle_timeout"`
	// How long an unused HTTP connection to the application is kept.
	KeepaliveTimeout time.Duration `yaml:"keepalive_timeout"`
	// How long a TCP connection may go without a byte in either direction. 0: no limit.
	TCPIdleTimeout time.Duration `yaml:"tcp_idle_timeout"`
	// How long WebSockets to the application may be idle, and last.
	WebSocket websocket.Config `yaml:"websocket"`
	// Limits that protect the application.
	Limits limit.Config `yaml:"limits"`
	// Whose turn comes first in limits.queue. The first rule that takes a request counts; others have the route's priority, which is normal.
	Priorities []PriorityRule `yaml:"priorities"`
	// A limit on active requests that follows how long they take, beside limits.max_requests. off (default): there is none.
	Adaptive *adaptive.Config `yaml:"adaptive" off:"true"`
	// How many requests callers may make in a time. They are asked in order; the first that refuses ends the request.
	RateLimits []RateLimit `yaml:"rate_limits"`
	// Requests to be treated in another manner, by path, method, header or gRPC method. The first that matches counts.
	Routes []Route `yaml:"routes"`
	// What becomes of requests that no route takes: forward sends them to the service, refuse answers 404.
	Unmatched Unmatched `yaml:"unmatched" enum:"forward,refuse"`
	// What becomes of connections that the kernel redirects to listen, whatever port they were going to. off (default): all are calls of the service.
	Transparent *InboundTransparent `yaml:"transparent" off:"true"`
	// Paths of the application that others may ask without mTLS, each by an address of its own.
	Expose []Expose `yaml:"expose"`
}

// Outbound is what the application calls through the proxy.
type Outbound struct {
	// The services that the application calls, each on a listener of its own, or found by address.
	Upstreams []Upstream `yaml:"upstreams"`
	// The services that the application calls by UDP.
	UDP []UDPUpstream `yaml:"udp"`
	// Where connections arrive that the kernel redirects to the proxy. off (default): nowhere.
	Transparent *OutboundTransparent `yaml:"transparent" off:"true"`
}

// Upstream is one service the application calls, and where the proxy takes those calls.
type Upstream struct {
	// The name of the service as discovery knows it. Required.
	Service string `yaml:"service"`
	// What the application knows it as: in listeners' names, logs and metrics, and for explain. Two upstreams may lead to
	// one service under different names. Default: service.
	Name string `yaml:"name"`
	// The address on which the application reaches it, "IP:PORT", or "unix:/PATH" for a Unix socket. Required unless it has addresses.
	Listen string `yaml:"listen"`
	// Who may connect to the Unix socket of listen: its permissions in octal digits, such as "0660", of which the right to write is
	// that to connect. Empty: what the process's umask leaves, with 022 the proxy's own user.
	SocketMode string `yaml:"socket_mode"`
	// The addresses at which the application finds it with outbound.transparent, such as virtual IPs: "IP" for all ports, or "IP:PORT".
	Addresses []string `yaml:"addresses"`
	// Whether a connection to the address of one of its endpoints, which outbound.transparent takes, goes to that very endpoint, as the upstream's calls go (mTLS). Where no endpoint has the port that was dialled, the address alone counts.
	Direct bool `yaml:"direct"`
	// What is spoken with its endpoints: http (HTTP/1.1), http2 or grpc (both HTTP/2), tcp, or auto: it is found out for each connection, and HTTP is spoken in the application's version. The application may use HTTP/1.1 and HTTP/2 with all but tcp.
	Protocol Protocol `yaml:"protocol" enum:"http,http2,grpc,tcp,auto"`
	// Requests that go elsewhere or are treated in another manner, by path, method, header or gRPC method. The first that matches counts.
	Routes []Route `yaml:"routes"`
	// What becomes of requests that no route takes: forward sends them to the service, refuse answers 404.
	Unmatched Unmatched `yaml:"unmatched" enum:"forward,refuse"`
}

// Title is what the upstream is known as: its name, else the service.
func (u *Upstream) Title() string {
	if u.Name != "" {
		return u.Name
	}
	return u.Service
}

// HTTP holds the limits and times of HTTP listeners.
type HTTP struct {
	// The longest head of a request or response in bytes: start line and fields. A longer request gets 431.
	MaxHeadBytes int `yaml:"max_head_bytes"`
	// The most header fields in a head. A request with more gets 431.
	MaxFields int `yaml:"max_fields"`
	// How long a caller may take from the first byte of a request's head to its last.
	HeadTimeout time.Duration `yaml:"head_timeout"`
	// How long a caller's connection may stay open between requests.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
}

// Telemetry is what the proxy tells about its work.
type Telemetry struct {
	// One JSON record an exchange.
	AccessLog AccessLog `yaml:"access_log"`
	// Spans sent over OTLP.
	Tracing Tracing `yaml:"tracing"`
	// What was decided for the last exchanges, for outrigger why. Errors, refusals, slow and retried ones are kept always.
	Ledger ledger.Config `yaml:"ledger"`
	// How every exchange and attempt went, in a compact log on disk that outrigger replay and outrigger advise read.
	Outcomes outcomes.Config `yaml:"outcomes"`
	// The proxy's own log, on standard error.
	Log Log `yaml:"log"`
}

// AccessLog says where the records of exchanges go.
type AccessLog struct {
	// "stdout", "stderr", "off", or the path of a file to append to.
	Path string `yaml:"path"`
	// The share of successful exchanges that get a record. Failed ones always get theirs.
	SamplePercent float64 `yaml:"sample_percent"`
}

// Tracing says where spans go. Trace context is propagated with or without it.
type Tracing struct {
	// The OTLP collector as a URL, such as "http://127.0.0.1:4317"; https uses TLS. Empty: no spans are sent.
	Endpoint string `yaml:"endpoint"`
	// How spans are sent: OTLP over gRPC or over HTTP.
	Protocol string `yaml:"protocol" enum:"grpc,http"`
	// The share of traces begun by this proxy that are sampled. A caller's own decision is followed.
	SamplingPercent float64 `yaml:"sampling_percent"`
}

// Log is the proxy's own log.
type Log struct {
	// The least severe level that is written. The admin API changes it at run time.
	Level string `yaml:"level" enum:"debug,info,warn,error"`
	// The form of a line.
	Format string `yaml:"format" enum:"text,json"`
}

// Admin is the admin API.
type Admin struct {
	// The address of the admin API, "IP:PORT". Empty: none.
	Listen string `yaml:"listen"`
	// Whether Go's profiler is served under /debug/pprof/.
	Pprof bool `yaml:"pprof"`
	// Whether listen may be other than a loopback address. The API asks for no password.
	AllowRemote bool `yaml:"allow_remote"`
	// A further address, "IP:PORT", for /ready and /live alone, which others may reach: for the probes of orchestrators. Empty: none.
	ProbeListen string `yaml:"probe_listen"`
	// A further address, "IP:PORT", for the metrics alone, which others may reach. Empty: none.
	MetricsListen string `yaml:"metrics_listen"`
	// The path of the metrics at metrics_listen.
	MetricsPath string `yaml:"metrics_path"`
	// How another process on this machine ends the proxy, or waits for it. off (default): by signals, and by /ready.
	Lifecycle *Lifecycle `yaml:"lifecycle" off:"true"`
}

// Drain says how the proxy stops once told to (SIGTERM).
type Drain struct {
	// How long it goes on serving as before after it is shown as not ready and deregistered, so that callers can learn of it. 0: none.
	Delay time.Duration `yaml:"delay"`
	// How long, from the end of delay, exchanges under way may take to finish; then they are cut. 0: cut at once.
	Timeout time.Duration `yaml:"timeout"`
}

// ExpectedID is the SPIFFE ID that service must have by the template
// service_id in the given trust domain and datacenter, which the caller takes
// from the configuration or, where that is silent, from its own certificate.
func (i *Identity) ExpectedID(trustDomain, datacenter, service string) string {
	if i.Consul != nil && i.Consul.Datacenter != "" {
		datacenter = i.Consul.Datacenter
	}
	return strings.NewReplacer("{trust_domain}", trustDomain, "{datacenter}", datacenter, "{service}", service).Replace(i.ServiceID)
}

// Configured reports whether a source of identity is given.
func (i *Identity) Configured() bool { return i.WorkloadAPI != "" || i.Files != nil || i.Consul != nil }
