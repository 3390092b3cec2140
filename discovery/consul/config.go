// Package consul follows services in Consul with blocking queries and registers the proxy's own service there.
package consul

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config is the section discovery.consul. Where a field is empty, the
// environment variable of Consul's own tools is honoured, then Consul's default.
type Config struct {
	// Address of the Consul agent: "http://host:port", "https://host:port",
	// "host:port" or "unix:///path". Default: CONSUL_HTTP_ADDR, then
	// 127.0.0.1:8500. With https all blocking queries share one HTTP/2
	// connection; with http each holds one of the 200 connections that an
	// agent allows a client address (limits.http_max_conns_per_client).
	Address string `yaml:"address"`
	// Datacenter to read from. Default: the agent's own.
	Datacenter string `yaml:"datacenter"`
	// Token is the ACL token. Default: CONSUL_HTTP_TOKEN. Prefer token_file:
	// a value here is shown wherever the configuration is.
	Token string `yaml:"token"`
	// TokenFile holds the ACL token. It is read again when it changes, so that
	// a token can be rotated without a restart. Default: CONSUL_HTTP_TOKEN_FILE.
	TokenFile string `yaml:"token_file"`
	// Login gets the ACL token through an auth method, in place of token and
	// token_file. Default: there is no login.
	Login *Login `yaml:"login"`
	// TLS to the agent, for an https address.
	TLS TLS `yaml:"tls"`
	// Tag limits the followed services to instances with this tag. Default: none.
	Tag string `yaml:"tag"`
	// Filter is a Consul filter expression that instances must meet, such as
	// `Service.Meta.version == "v2"`. Default: none.
	Filter string `yaml:"filter"`
	// OnlyPassing leaves out instances whose checks are not all passing.
	// Default false: warning and critical ones are listed as such, so that the
	// panic rule can fall back on them.
	OnlyPassing bool `yaml:"only_passing"`
	// Stale allows any Consul server to answer, not only the leader, so that
	// reads go on while there is none. Default true.
	Stale bool `yaml:"stale"`
	// Register registers this proxy's service with the agent. Default: not registered.
	Register *Register `yaml:"register"`
	// Sidecar makes this proxy a sidecar of Consul's mesh: what it serves and
	// calls is what Consul says. Default: it is not one.
	Sidecar *Sidecar `yaml:"sidecar"`
}

// TLS is how the agent is verified and how the proxy shows itself to it.
type TLS struct {
	// CAFile is a PEM file with the authorities that may have signed the
	// agent's certificate. Default: CONSUL_CACERT, then the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile are the client certificate, PEM, read at every new
	// connection. Default: CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY, then none.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ServerName is the name that the agent's certificate must carry. Default:
	// CONSUL_TLS_SERVER_NAME, then the host of the address.
	ServerName string `yaml:"server_name"`
}

// Register is the registration of this proxy's service with the Consul agent.
type Register struct {
	// Definition is a file that defines the service and its sidecar in JSON, as
	// `consul services register` takes it: ports, upstreams, Config and all. It
	// stands for the other fields, and is for a sidecar of Consul's mesh.
	// Default: none.
	Definition string `yaml:"definition"`
	// ID is the name of the instance, unique on the agent. Default:
	// SERVICE-ADDRESS-PORT.
	ID string `yaml:"id"`
	// Address that other proxies connect to. Default: the address of the
	// inbound listener, or of the agent's node when that is a wildcard.
	Address string `yaml:"address"`
	// Port that other proxies connect to. Default: the port of the inbound listener.
	Port int `yaml:"port"`
	// Tags of the instance. Default: none.
	Tags []string `yaml:"tags"`
	// Meta of the instance; at most 64 pairs. Default: none.
	Meta map[string]string `yaml:"meta"`
	// Check is how the agent learns whether the instance is well. Default: no
	// check, which Consul takes for passing.
	Check *Check `yaml:"check"`
}

// Check is a Consul health check; exactly one of HTTP, TCP and TTL is set.
type Check struct {
	// HTTP is a URL that the agent gets; 2xx is passing, 429 warning, anything
	// else critical.
	HTTP string `yaml:"http"`
	// TCP is a "host:port" that the agent connects to.
	TCP string `yaml:"tcp"`
	// TTL is the time within which the proxy must report; it does so three
	// times as often. When the proxy dies, the check turns critical after this.
	TTL time.Duration `yaml:"ttl"`
	// Interval between two checks by the agent. Default 10s.
	Interval time.Duration `yaml:"interval"`
	// Timeout of one check by the agent. Default 2s.
	Timeout time.Duration `yaml:"timeout"`
	// DeregisterAfter removes an instance that has been critical for so long;
	// Consul's least is 1m. Default 0: never.
	DeregisterAfter time.Duration `yaml:"deregister_after"`
}

// Default returns the configuration that an empty section means.
func Default() Config { return Config{Stale: true} }

// DefaultCheck returns the values that a check takes for what it leaves out.
func DefaultCheck() Check {
	return Check{Interval: 10 * time.Second, Timeout: 2 * time.Second}
}

// Validate calls add once for every mistake, with the YAML name of the field.
// Zero durations stand for the default. Files are not opened.
func (c Config) Validate(add func(field, problem string)) {
	if c.Address != "" {
		if _, err := parseAddress(c.Address); err != nil {
			add("address", err.Error())
		}
	}
	if c.Token != "" && c.TokenFile != "" {
		add("token", "and token_file are both set; keep one")
	}
	if strings.ContainsAny(c.Token, "\r\n") {
		add("token", "contains a line break")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		if c.TLS.CertFile == "" {
			add("tls.cert_file", "is required with key_file")
		} else {
			add("tls.key_file", "is required with cert_file")
		}
	}
	if c.Register != nil {
		c.Register.validate(add)
		switch {
		case c.Sidecar != nil && c.Register.Definition == "":
			add("register.definition", "is required to register a sidecar of Consul's mesh")
		case c.Sidecar == nil && c.Register.Definition != "":
			add("register.definition", "is only for a sidecar of Consul's mesh; name it in sidecar")
		}
	}
	if c.Login != nil {
		c.Login.validate(add)
		if c.Token != "" || c.TokenFile != "" {
			add("login", "and a token are both set; keep one")
		}
	}
	if c.Sidecar != nil {
		c.Sidecar.validate(add)
	}
}

func (r *Register) validate(add func(field, problem string)) {
	if r.Definition != "" && (r.ID != "" || r.Address != "" || r.Port != 0 || len(r.Tags)+len(r.Meta) > 0 || r.Check != nil) {
		add("register.definition", "is given with id, address, port, tags, meta or check, which it stands for")
	}
	if strings.ContainsAny(r.ID, "/?# \t\r\n") {
		add("register.id", fmt.Sprintf("is %q; spaces and the characters / ? # are not allowed", r.ID))
	}
	if r.Port < 0 || r.Port > 65535 {
		add("register.port", fmt.Sprintf("is %d; write a number from 1 to 65535", r.Port))
	}
	if len(r.Meta) > 64 {
		add("register.meta", fmt.Sprintf("has %d pairs; Consul allows 64", len(r.Meta)))
	}
	if r.Check == nil {
		return
	}
	ch := r.Check
	kinds := 0
	if ch.HTTP != "" {
		kinds++
		if u, err := url.Parse(ch.HTTP); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			add("register.check.http", fmt.Sprintf("is %q; write a URL such as http://127.0.0.1:8080/health", ch.HTTP))
		}
	}
	if ch.TCP != "" {
		kinds++
		if i := strings.LastIndexByte(ch.TCP, ':'); i <= 0 || i == len(ch.TCP)-1 {
			add("register.check.tcp", fmt.Sprintf("is %q; write host:port", ch.TCP))
		}
	}
	if ch.TTL != 0 {
		kinds++
		if ch.TTL < 300*time.Millisecond {
			add("register.check.ttl", fmt.Sprintf("is %v; the least is 300ms", ch.TTL))
		}
	}
	if kinds != 1 {
		add("register.check", fmt.Sprintf("has %d of http, tcp and ttl; write exactly one", kinds))
	}
	if ch.Interval != 0 && ch.Interval < time.Second {
		add("register.check.interval", fmt.Sprintf("is %v; the least that Consul takes is 1s", ch.Interval))
	}
	if ch.Timeout < 0 {
		add("register.check.timeout", "is negative")
	}
	if ch.DeregisterAfter != 0 && ch.DeregisterAfter < time.Minute {
		add("register.check.deregister_after", fmt.Sprintf("is %v; the least that Consul takes is 1m", ch.DeregisterAfter))
	}
}

// address is a parsed Config.Address.
type address struct {
	scheme string // "http", "https", "unix" or empty when only host:port was given
	host   string // host:port with an optional path prefix, or the socket's path
}

func parseAddress(s string) (address, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	}
	switch scheme {
	case "", "http", "https":
		if u, err := url.Parse("http://" + rest); err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return address{}, fmt.Errorf("is %q; write http://host:port, https://host:port or unix:///path", s)
		}
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return address{}, fmt.Errorf("is %q; a socket needs an absolute path, such as unix:///run/consul/http.sock", s)
		}
	default:
		return address{}, fmt.Errorf("has the scheme %q; use http, https or unix", scheme)
	}
	return address{scheme: scheme, host: rest}, nil
}
