// Package limiter asks those who count requests for several proxies: a service that speaks Envoy's rate limit protocol, or Redis.
package limiter

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
)

// Transport is how a connection to a limiter is protected.
type Transport string

// The transports.
const (
	// Plaintext is for a limiter on the same machine or a network that is trusted.
	Plaintext Transport = "plaintext"
	// TLS verifies the limiter by name.
	TLS Transport = "tls"
	// MTLS presents the proxy's identity and verifies the limiter's.
	MTLS Transport = "mtls"
)

// GRPC is a service that speaks Envoy's protocol for rate limits
// (envoy.service.ratelimit.v3), such as envoyproxy/ratelimit.
type GRPC struct {
	// Where it is: "HOST:PORT". All addresses of a name are used in turn. Required.
	Address string `yaml:"address"`
	// The domain under which the service has its limits. Required.
	Domain string `yaml:"domain"`
	// How long an answer may take; then on_error of the limit decides. 1ms to 10s.
	Timeout time.Duration `yaml:"timeout"`
	// How many questions may be under way at a time, 1 to 100000; for one more on_error decides.
	MaxInFlight int `yaml:"max_in_flight"`
	// mtls: this proxy's identity is presented, and the service has one of identities. tls: the service's certificate is for its name. plaintext: neither.
	Transport Transport `yaml:"transport" enum:"mtls,tls,plaintext"`
	// The SPIFFE IDs of which the service must have one. Required with transport: mtls.
	Identities []string `yaml:"identities"`
	// The roots for transport: tls, a PEM file. Empty: those of the system.
	CA string `yaml:"ca"`
	// The name in the service's certificate with transport: tls. Empty: the host of address.
	ServerName string `yaml:"server_name"`
	// When a service that fails is not asked for a while, so that requests do not wait for it; on_error decides meanwhile.
	Breaker breaker.Config `yaml:"breaker"`
}

// Redis is a Redis server, 5 or newer, that keeps token buckets.
type Redis struct {
	// Where it is: "HOST:PORT". Required.
	Address string `yaml:"address"`
	// The user for AUTH. Empty: Redis's own default.
	Username string `yaml:"username"`
	// The file with the password for AUTH; white space around it does not count. It is read for each connection. Empty: no AUTH.
	PasswordFile string `yaml:"password_file"`
	// The number of the database.
	Database int `yaml:"database"`
	// What the names of all keys begin with.
	Prefix string `yaml:"prefix"`
	// How long an answer may take, with the connection where one has to be made; then on_error of the limit decides. 1ms to 10s.
	Timeout time.Duration `yaml:"timeout"`
	// How many questions may be under way at a time, each on a connection of its own, 1 to 10000; for one more on_error decides.
	MaxInFlight int `yaml:"max_in_flight"`
	// mtls: this proxy's identity is presented, and Redis has one of identities. tls: Redis's certificate is for its name. plaintext: neither.
	Transport Transport `yaml:"transport" enum:"mtls,tls,plaintext"`
	// The SPIFFE IDs of which Redis must have one. Required with transport: mtls.
	Identities []string `yaml:"identities"`
	// The roots for transport: tls, a PEM file. Empty: those of the system.
	CA string `yaml:"ca"`
	// The name in Redis's certificate with transport: tls. Empty: the host of address.
	ServerName string `yaml:"server_name"`
	// When a Redis that fails is not asked for a while, so that requests do not wait for it; on_error decides meanwhile.
	Breaker breaker.Config `yaml:"breaker"`
}

// DefaultRedis returns the defaults of its keys.
func DefaultRedis() Redis {
	return Redis{Prefix: "outrigger:", Timeout: defaultTimeout, MaxInFlight: defaultConns, Transport: TLS, Breaker: defaultBreaker()}
}

// Validate calls add for every mistake, with the field's YAML name.
func (c Redis) Validate(add func(field, problem string)) {
	link{c.Address, c.Timeout, c.MaxInFlight, c.Transport, c.Identities, c.CA, c.ServerName}.validate(add)
	if c.MaxInFlight > maxConns {
		add("max_in_flight", fmt.Sprintf("is %d; each is a connection: write a number from 1 to %d", c.MaxInFlight, maxConns))
	}
	if c.Username != "" && c.PasswordFile == "" {
		add("username", "has no effect without a password; give password_file")
	}
	if c.Database < 0 || c.Database > 1<<20 {
		add("database", fmt.Sprintf("is %d; write the number of a database, such as 0", c.Database))
	}
	if len(c.Prefix) > maxPrefix {
		add("prefix", fmt.Sprintf("is longer than %d bytes", maxPrefix))
	}
}

// Limits and defaults of what is common to all limiters.
const (
	defaultTimeout  = 20 * time.Millisecond // Envoy RateLimit.timeout
	minTimeout      = time.Millisecond
	maxTimeout      = 10 * time.Second
	defaultInFlight = 1000
	maxInFlight     = 100_000
	defaultConns    = 100
	maxConns        = 10_000
	maxPrefix       = 128
)

// DefaultGRPC returns the defaults of its keys.
func DefaultGRPC() GRPC {
	return GRPC{Timeout: defaultTimeout, MaxInFlight: defaultInFlight, Transport: MTLS, Breaker: defaultBreaker()}
}

// defaultBreaker gives up soon and comes back soon: a question costs little,
// and waiting for each in vain costs every request its timeout.
func defaultBreaker() breaker.Config {
	b := breaker.Default()
	b.ConsecutiveFailures = 5
	b.OpenFor = time.Second
	return b
}

// Validate calls add for every mistake, with the field's YAML name.
func (c GRPC) Validate(add func(field, problem string)) {
	if c.Domain == "" {
		add("domain", "is required; name the domain under which the service has its limits")
	}
	link{c.Address, c.Timeout, c.MaxInFlight, c.Transport, c.Identities, c.CA, c.ServerName}.validate(add)
}

// link is what the configurations of all limiters have in common.
type link struct {
	address     string
	timeout     time.Duration
	maxInFlight int
	transport   Transport
	identities  []string
	ca          string
	serverName  string
}

func (l link) validate(add func(field, problem string)) {
	if problem := badAddress(l.address); problem != "" {
		add("address", problem)
	}
	if l.timeout < minTimeout || l.timeout > maxTimeout {
		add("timeout", "must be from 1ms to 10s; every request waits for it")
	}
	if l.maxInFlight < 1 || l.maxInFlight > maxInFlight {
		add("max_in_flight", fmt.Sprintf("is %d; write a number from 1 to %d", l.maxInFlight, maxInFlight))
	}
	switch {
	case l.transport == MTLS && len(l.identities) == 0:
		add("identities", "is required by transport: mtls; list the SPIFFE IDs that may answer, or write transport: plaintext")
	case l.transport != MTLS && len(l.identities) > 0:
		add("identities", fmt.Sprintf("cannot be verified with transport: %s; remove them or write transport: mtls", l.transport))
	}
	for i, id := range l.identities {
		if _, err := mtls.ParseID(id); err != nil {
			add("identities["+strconv.Itoa(i)+"]", err.Error())
		}
	}
	if l.transport != TLS {
		if l.ca != "" {
			add("ca", fmt.Sprintf("has no effect with transport: %s; write transport: tls", l.transport))
		}
		if l.serverName != "" {
			add("server_name", fmt.Sprintf("has no effect with transport: %s; write transport: tls", l.transport))
		}
	}
}

// badAddress says what is wrong with an address, "" if nothing is.
func badAddress(s string) string {
	if s == "" {
		return "is required; write where it is, such as 127.0.0.1:8081"
	}
	host, port, err := net.SplitHostPort(s)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" || strings.ContainsAny(host, "/% \t") {
		return fmt.Sprintf("is %q; write HOST:PORT, such as 127.0.0.1:8081", s)
	}
	return ""
}
