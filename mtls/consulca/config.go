// Package consulca keeps an X509-SVID from the certificate authority of Consul's service mesh, and its roots, fresh.
package consulca

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// Method says how a certificate is had from Consul.
type Method string

// The methods.
const (
	// MethodAuto is MethodSign where Consul's gRPC port is reachable, else MethodLeaf.
	MethodAuto Method = "auto"
	// MethodSign makes a key here and has a request for a certificate signed over gRPC: the key never leaves this process.
	MethodSign Method = "sign"
	// MethodLeaf takes key and certificate over HTTP from the agent, which makes one pair for a service and hands it to
	// all that ask.
	MethodLeaf Method = "leaf"
)

// Config is the section identity.consul. How Consul's HTTP API is reached, and with which ACL token, is said under
// discovery.consul and by the environment of Consul's own tools.
type Config struct {
	// How the certificate is had. sign: the key is made here and never leaves, Consul signs over gRPC. leaf: key and
	// certificate come from the agent over HTTP. auto (default): sign where the gRPC port is reachable, else leaf; the
	// log says which.
	Method Method `yaml:"method" enum:"auto,sign,leaf"`
	// The service whose identity this is. Default: service.name.
	Service string `yaml:"service"`
	// The datacenter in the identity. Default: that of the agent, which is asked over HTTP.
	Datacenter string `yaml:"datacenter"`
	// The namespace in the identity (Consul Enterprise). Default: CONSUL_NAMESPACE, then "default".
	Namespace string `yaml:"namespace"`
	// The admin partition in the identity (Consul Enterprise). Default: CONSUL_PARTITION, then "default".
	Partition string `yaml:"partition"`
	// Consul's gRPC port, of a server or of a client agent: "host:port", "http://host:port", "https://host:port" for
	// TLS, or "unix:///path". On a socket TLS is spoken where grpc_ca_file is given; without a scheme also to port 8503.
	// Default: CONSUL_GRPC_ADDR, then the host of the HTTP address with port 8502, or 8503 where that is https.
	GRPCAddress string `yaml:"grpc_address"`
	// A PEM file with the authorities that may have signed the certificate of the gRPC port. Default:
	// CONSUL_GRPC_CACERT, then CONSUL_CACERT, then the system's.
	GRPCCAFile string `yaml:"grpc_ca_file"`
	// The name that the certificate of the gRPC port must carry. Default: CONSUL_TLS_SERVER_NAME, then the host of the
	// address, or localhost for a socket.
	GRPCServerName string `yaml:"grpc_server_name"`
	// A file in which key, certificate and roots are kept, for a start while Consul is away. It holds a private key and
	// is written for its owner alone (0600); one that others may read is not used. Empty (default): none is kept.
	Snapshot string `yaml:"snapshot"`
}

// Default returns the configuration that an empty section means.
func Default() Config { return Config{Method: MethodAuto} }

// Validate calls add once for every mistake, with the YAML name of the field. Files are not opened.
func (c Config) Validate(add func(field, problem string)) {
	for _, f := range [...]struct{ name, value string }{
		{"service", c.Service}, {"datacenter", c.Datacenter}, {"namespace", c.Namespace}, {"partition", c.Partition},
	} {
		if !segment(f.value) {
			add(f.name, fmt.Sprintf("is %q, which cannot stand in a SPIFFE ID; use letters, digits, '-', '_' and '.'", f.value))
		}
	}
	if c.GRPCAddress != "" {
		if c.Method == MethodLeaf {
			add("grpc_address", "is not used by method: leaf; leave it out, or write method: sign")
		} else if _, err := parseTarget(c.GRPCAddress, false); err != nil {
			add("grpc_address", err.Error())
		}
	}
	if c.Snapshot != "" && !filepath.IsAbs(c.Snapshot) {
		add("snapshot", fmt.Sprintf("is %q; write an absolute path, so that a restart finds it again", c.Snapshot))
	}
}

// segment reports whether s can be a segment of a SPIFFE ID's path, or is empty.
func segment(s string) bool {
	if s == "." || s == ".." {
		return false
	}
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return true
}

// The ports by convention, without and with TLS.
const (
	plainPort = "8502"
	tlsPort   = "8503"
)

// target is a parsed gRPC address.
type target struct {
	dial string // as google.golang.org/grpc takes it
	tls  bool
	host string // for the verification of its certificate
}

// parseTarget reads an address. ca says that authorities are given for it.
func parseTarget(s string, ca bool) (target, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	}
	switch scheme {
	case "unix":
		if !strings.HasPrefix(rest, "/") || rest == "/" {
			return target{}, fmt.Errorf("is %q; a socket needs an absolute path, such as unix:///run/consul/grpc.sock", s)
		}
		if ca { // as "consul connect envoy" has it; there is no name to go by but the machine's own
			return target{dial: "unix://" + rest, tls: true, host: "localhost"}, nil
		}
		return target{dial: "unix://" + rest}, nil
	case "", "http", "https":
	default:
		return target{}, fmt.Errorf("has the scheme %q; use http, https or unix", scheme)
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || host == "" || port == "" || strings.ContainsAny(rest, "/?# ") {
		return target{}, fmt.Errorf("is %q; write host:port, https://host:port or unix:///path", s)
	}
	return target{dial: "dns:///" + rest, host: host, tls: scheme == "https" || scheme == "" && (ca || port == tlsPort)}, nil
}

// beside derives the gRPC address from that of the HTTP API; "" where that is a socket, beside which there is nothing to guess.
func beside(http string) string {
	scheme, rest, ok := strings.Cut(http, "://")
	if !ok {
		scheme, rest = "http", http
	}
	rest, _, _ = strings.Cut(rest, "/")
	host, _, err := net.SplitHostPort(rest)
	if err != nil {
		host = strings.Trim(rest, "[]")
	}
	if scheme == "unix" || host == "" {
		return ""
	}
	if scheme == "https" {
		return "https://" + net.JoinHostPort(host, tlsPort)
	}
	return "http://" + net.JoinHostPort(host, plainPort)
}
