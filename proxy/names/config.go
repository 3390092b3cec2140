// Package names answers DNS queries for the names of the mesh's services and passes all others on.
package names

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// Config is the section dns.
type Config struct {
	// Where queries are taken, by UDP and TCP: "IP:PORT". Empty: none are. A change needs a restart.
	Listen string `yaml:"listen"`
	// The zones in which the proxy knows the names: SERVICE.ZONE is the addresses of the upstream of that name. Where an
	// upstream has no addresses of its own it is that of its listener, and an SRV query tells the port. What it does not
	// know there is passed on if forward_zones names the zone or one above it; else there is no such name.
	Zones []string `yaml:"zones"`
	// How long clients may keep an answer of the proxy's own, in whole seconds.
	TTL time.Duration `yaml:"ttl"`
	// The servers that get all other queries, "IP:PORT", in this order: the next is asked when one does not answer.
	// Empty: those of /etc/resolv.conf.
	Forward []string `yaml:"forward"`
	// The servers for names in certain zones in place of forward, such as {consul: ["127.0.0.1:8600"]}. The longest zone counts.
	ForwardZones map[string][]string `yaml:"forward_zones"`
	// How long one server may take to answer.
	Timeout time.Duration `yaml:"timeout"`
	// How many queries may be under way at other servers at a time; more are answered SERVFAIL.
	MaxForwarded int `yaml:"max_forwarded"`
}

// Default returns the configuration that an empty section means.
func Default() Config {
	return Config{Zones: []string{"virtual.consul"}, TTL: 10 * time.Second, Timeout: 2 * time.Second, MaxForwarded: 1024}
}

const (
	maxZones   = 64
	maxServers = 8
	maxTTL     = time.Hour
	maxTimeout = 30 * time.Second
	mostQuery  = 100_000 // under way at a time
)

// Validate calls add once for every mistake, with the YAML name of the field.
// The address to listen on is checked with all others.
func (c Config) Validate(add func(field, problem string)) {
	if len(c.Zones) > maxZones {
		add("zones", fmt.Sprintf("are %d; there can be %d", len(c.Zones), maxZones))
	}
	for i, z := range c.Zones {
		if !zone(z) {
			add("zones["+strconv.Itoa(i)+"]", fmt.Sprintf("is %q; write a domain such as virtual.consul", z))
		}
	}
	if c.TTL < 0 || c.TTL > maxTTL || c.TTL%time.Second != 0 {
		add("ttl", fmt.Sprintf("is %s; write whole seconds, at most %s", c.TTL, maxTTL))
	}
	if c.Timeout < time.Millisecond || c.Timeout > maxTimeout {
		add("timeout", fmt.Sprintf("is %s; write a time from 1ms to %s", c.Timeout, maxTimeout))
	}
	if c.MaxForwarded < 1 || c.MaxForwarded > mostQuery {
		add("max_forwarded", fmt.Sprintf("is %d; write a number from 1 to %d", c.MaxForwarded, mostQuery))
	}
	servers("forward", c.Forward, add)
	zones := make([]string, 0, len(c.ForwardZones))
	for z := range c.ForwardZones {
		zones = append(zones, z)
	}
	slices.Sort(zones)
	if len(zones) > maxZones {
		add("forward_zones", fmt.Sprintf("are %d; there can be %d", len(zones), maxZones))
	}
	for _, z := range zones {
		at := "forward_zones." + z
		if !zone(z) {
			add("forward_zones", fmt.Sprintf("has the zone %q; write a domain such as consul", z))
		} else if len(c.ForwardZones[z]) == 0 {
			add(at, "names no server; write one as IP:PORT, or leave the zone out")
		}
		servers(at, c.ForwardZones[z], add)
	}
}

func servers(at string, list []string, add func(field, problem string)) {
	if len(list) > maxServers {
		add(at, fmt.Sprintf("are %d servers; there can be %d", len(list), maxServers))
	}
	for i, s := range list {
		if a, err := netip.ParseAddrPort(s); err != nil || a.Port() == 0 {
			add(at+"["+strconv.Itoa(i)+"]", fmt.Sprintf("is %q; write an IP address and a port, such as 10.0.0.2:53", s))
		}
	}
}

// zone reports whether s is a domain below the root.
func zone(s string) bool {
	labels, ok := dns.IsDomainName(s)
	return ok && labels > 0 && s != "" && s[0] != '.' && !slices.ContainsFunc([]byte(s), func(b byte) bool { return b <= ' ' || b == '\\' || b >= 0x7f })
}
