// Package dns finds the endpoints of services by looking up A, AAAA and SRV records again and again.
package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is the section discovery.dns.
type Config struct {
	// Services says for each service which DNS name holds its endpoints. Required.
	Services map[string]Target `yaml:"services"`
	// Refresh is the pause between two lookups of one name, with a jitter of
	// ±20 %. Default 5s (Envoy dns_refresh_rate). The TTL of the records is
	// not used: the system's resolver interface does not reveal it.
	Refresh time.Duration `yaml:"refresh"`
	// Timeout bounds one lookup, all its retries included. Default 3s.
	Timeout time.Duration `yaml:"timeout"`
	// Server is the address "IP:port" of the DNS server to ask. Default: the
	// servers of the system, with /etc/hosts.
	Server string `yaml:"server"`
}

// Target is where the endpoints of one service are found.
type Target struct {
	// Name is "host:port" for A and AAAA records, or the name of an SRV record
	// such as "_http._tcp.api.example.org", which brings its own ports and
	// weights. Required.
	Name string `yaml:"name"`
	// Family limits the addresses: any, ipv4 or ipv6. Default any.
	Family string `yaml:"family"`
	// Protocol of the service: http or tcp. Default: not said.
	Protocol string `yaml:"protocol"`
	// Identities are the SPIFFE IDs that the endpoints may present. Default: not said.
	Identities []string `yaml:"identities"`
}

// Default returns the configuration that an empty section means.
func Default() Config {
	return Config{Refresh: 5 * time.Second, Timeout: 3 * time.Second}
}

// Validate calls add once for every mistake, with the YAML name of the field.
// Zero durations stand for the default.
func (c Config) Validate(add func(field, problem string)) {
	if len(c.Services) == 0 {
		add("services", "is required; say which DNS name holds the endpoints of each service")
	}
	names := make([]string, 0, len(c.Services))
	for name := range c.Services {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c.Services[name].validate("services."+name, add)
	}
	if c.Refresh != 0 && c.Refresh < 100*time.Millisecond {
		add("refresh", fmt.Sprintf("is %v; the least is 100ms", c.Refresh))
	}
	if c.Timeout != 0 && c.Timeout < 10*time.Millisecond {
		add("timeout", fmt.Sprintf("is %v; the least is 10ms", c.Timeout))
	}
	if c.Server != "" {
		if a, err := netip.ParseAddrPort(c.Server); err != nil || a.Port() == 0 {
			add("server", fmt.Sprintf("is %q; write an IP address with a port, such as 127.0.0.1:8600", c.Server))
		}
	}
}

func (t Target) validate(field string, add func(field, problem string)) {
	if t.Name == "" {
		add(field+".name", "is required; write host:port, or the name of an SRV record")
	} else if _, err := parseName(t.Name); err != nil {
		add(field+".name", err.Error())
	}
	switch t.Family {
	case "", "any", "ipv4", "ipv6":
	default:
		add(field+".family", fmt.Sprintf("is %q; use any, ipv4 or ipv6", t.Family))
	}
	switch t.Protocol {
	case "", "http", "tcp":
	default:
		add(field+".protocol", fmt.Sprintf("is %q; use http or tcp", t.Protocol))
	}
	for i, id := range t.Identities {
		if !strings.HasPrefix(id, "spiffe://") {
			add(fmt.Sprintf("%s.identities[%d]", field, i), fmt.Sprintf("is %q; a SPIFFE ID starts with spiffe://", id))
		}
	}
}

// name is a parsed Target.Name; port 0 means an SRV record.
type name struct {
	host string
	port uint16
}

func parseName(s string) (name, error) {
	if strings.HasPrefix(s, "_") && !strings.Contains(s, ":") {
		return name{host: s}, nil
	}
	i := strings.LastIndexByte(s, ':')
	if i <= 0 {
		return name{}, fmt.Errorf("is %q; write host:port, or the name of an SRV record, which starts with an underscore", s)
	}
	host, port := s[:i], s[i+1:]
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return name{}, fmt.Errorf("is %q; write an IPv6 address in brackets, such as [::1]:80", s)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || p == 0 {
		return name{}, fmt.Errorf("is %q; the port must be a number from 1 to 65535", s)
	}
	if host == "" || strings.ContainsAny(host, " /\t\r\n") {
		return name{}, fmt.Errorf("is %q; %q is not a host name", s, host)
	}
	return name{host: host, port: uint16(p)}, nil
}
