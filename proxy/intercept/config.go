package intercept

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// DefaultTable is the name of the table that holds our rules.
	DefaultTable = "outrigger"
	// DefaultOutboundPort is where applications' own connections arrive, as with
	// Consul's tools and Envoy.
	DefaultOutboundPort = 15001
	// DefaultMark marks packets that must be delivered on this machine, and is
	// the number of the routing table that says so; in mode tproxy only.
	DefaultMark = 0x4f55

	// maxItems bounds every list, so that a transaction stays small.
	maxItems = 256
)

// Mode says by which means inbound connections come to the proxy.
type Mode string

// The modes.
const (
	// Redirect changes the destination (conntrack keeps the original one).
	Redirect Mode = "redirect"
	// TProxy leaves the packet as it is and gives it to the proxy's socket,
	// which must be transparent (IP_TRANSPARENT). The proxy may then call the
	// application from its caller's address.
	TProxy Mode = "tproxy"
)

// BeforeReady says what becomes of new connections while nothing listens on
// the proxy's port.
type BeforeReady string

// What becomes of them.
const (
	// Refuse answers with a reset, as a port without a listener does.
	Refuse BeforeReady = "refuse"
	// Hold drops the first packet, which the caller's kernel sends again after
	// 1 s, 2 s, 4 s and so on, until the proxy listens.
	Hold BeforeReady = "hold"
	// Allow writes the rules only when the proxy listens: until then
	// connections go their way as if there was no proxy.
	Allow BeforeReady = "allow"
)

// Range is one number or all from Lo to Hi: of ports, users or groups.
type Range struct{ Lo, Hi uint32 }

// ParseRange reads 80, 8000-8010 or, as iptables writes it, 8000:8010.
func ParseRange(s string) (Range, error) {
	lo, hi, two := strings.Cut(strings.ReplaceAll(strings.TrimSpace(s), ":", "-"), "-")
	if !two {
		hi = lo
	}
	a, err := strconv.ParseUint(lo, 10, 32)
	b, err2 := strconv.ParseUint(hi, 10, 32)
	if err != nil || err2 != nil || a > b {
		return Range{}, fmt.Errorf("%q is no number and no range of numbers such as 8000-8010", s)
	}
	return Range{uint32(a), uint32(b)}, nil
}

// String writes the range as ParseRange reads it.
func (r Range) String() string {
	if r.Lo == r.Hi {
		return strconv.FormatUint(uint64(r.Lo), 10)
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}

// MarshalText writes the range for JSON.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (r *Range) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRange(string(b))
	return err
}

// Config says whose traffic is brought to which port of the proxy.
type Config struct {
	// Table is the table's name. Default: outrigger.
	Table string `json:"table"`
	// NetNS is the path of the network namespace, such as /proc/1234/ns/net.
	// Default: that of the process.
	NetNS string `json:"-"`

	// ProxyUIDs, ProxyGIDs and ProxyCgroups name the proxy: its own traffic is
	// never brought to it. At least one is required.
	ProxyUIDs []Range `json:"proxy_uids,omitempty"`
	ProxyGIDs []Range `json:"proxy_gids,omitempty"`
	// ProxyCgroups are paths below the root of the control groups of version 2.
	ProxyCgroups []string `json:"proxy_cgroups,omitempty"`

	// InboundPort is where connections from outside go. Zero leaves them alone.
	InboundPort uint16 `json:"inbound_port,omitempty"`
	// OutboundPort is where connections of the application go. Default: 15001.
	OutboundPort uint16      `json:"outbound_port,omitempty"`
	Mode         Mode        `json:"mode,omitempty"`
	BeforeReady  BeforeReady `json:"before_ready,omitempty"`

	// What is excluded goes its way untouched. Where a list of what is included
	// has entries, only what matches one of them is brought to the proxy.
	ExcludeInboundPorts  []Range        `json:"exclude_inbound_ports,omitempty"`
	ExcludeInboundCIDRs  []netip.Prefix `json:"exclude_inbound_cidrs,omitempty"`
	IncludeInboundPorts  []Range        `json:"include_inbound_ports,omitempty"`
	ExcludeOutboundPorts []Range        `json:"exclude_outbound_ports,omitempty"`
	ExcludeOutboundCIDRs []netip.Prefix `json:"exclude_outbound_cidrs,omitempty"`
	ExcludeUIDs          []Range        `json:"exclude_uids,omitempty"`
	IncludeOutboundPorts []Range        `json:"include_outbound_ports,omitempty"`
	IncludeOutboundCIDRs []netip.Prefix `json:"include_outbound_cidrs,omitempty"`
	IncludeUIDs          []Range        `json:"include_uids,omitempty"`

	// DNSTo are the resolver's addresses, at most one of each IP version:
	// queries by UDP and TCP to port 53 go there.
	DNSTo []netip.AddrPort `json:"dns_to,omitempty"`
	// DNSServers restricts this to queries to these servers.
	DNSServers []netip.Addr `json:"dns_servers,omitempty"`

	// Mark is the mark of packets in mode tproxy. Default: 0x4f55.
	Mark uint32 `json:"mark,omitempty"`
}

var tableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,60}$`)

// Complete puts defaults in place and returns every mistake.
func (c *Config) Complete() error {
	def(&c.Table, DefaultTable)
	def(&c.OutboundPort, DefaultOutboundPort)
	def(&c.Mode, Redirect)
	def(&c.BeforeReady, Refuse)
	def(&c.Mark, DefaultMark)
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !tableName.MatchString(c.Table) {
		bad("table %q: give a name of letters, digits, - and _", c.Table)
	}
	if len(c.ProxyUIDs)+len(c.ProxyGIDs)+len(c.ProxyCgroups) == 0 {
		bad("nothing says which traffic is the proxy's own, and it would be sent back to itself for ever: give its user (--proxy-uid), group or control group")
	}
	if c.Mode != Redirect && c.Mode != TProxy {
		bad("mode %q: give redirect or tproxy", c.Mode)
	}
	if !slices.Contains([]BeforeReady{Refuse, Hold, Allow}, c.BeforeReady) {
		bad("before-ready %q: give refuse, hold or allow", c.BeforeReady)
	}
	if c.InboundPort == c.OutboundPort {
		bad("port %d is given for inbound and for outbound: the proxy could not tell them apart", c.InboundPort)
	}
	if c.Mode == TProxy && c.InboundPort == 0 {
		bad("mode tproxy is for inbound connections: give --proxy-inbound-port")
	}
	for _, l := range []struct {
		what string
		list []Range
	}{
		{"exclude-inbound-port", c.ExcludeInboundPorts},
		{"include-inbound-port", c.IncludeInboundPorts},
		{"exclude-outbound-port", c.ExcludeOutboundPorts},
		{"include-outbound-port", c.IncludeOutboundPorts},
	} {
		for _, r := range l.list {
			if r.Lo == 0 || r.Hi > math.MaxUint16 {
				bad("%s %s: ports go from 1 to 65535", l.what, r)
			}
		}
	}
	seen := map[bool]bool{}
	for _, a := range c.DNSTo {
		if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() {
			bad("dns-to %s: give an address and a port, such as 127.0.0.1:8600", a)
		}
		if seen[a.Addr().Is4()] {
			bad("dns-to %s: there is one resolver for each of IPv4 and IPv6", a)
		}
		seen[a.Addr().Is4()] = true
	}
	if len(c.DNSServers) > 0 && len(c.DNSTo) == 0 {
		bad("dns-server says whose queries are taken, and nothing says where they go: give --dns-to")
	}
	for _, s := range c.DNSServers {
		for _, a := range c.DNSTo {
			if s.Is4() == a.Addr().Is4() && s.IsLoopback() && !a.Addr().IsLoopback() {
				bad("dns-server %s: a query there has a loopback address as its source, which cannot go to %s: give a resolver on loopback, or leave this server out", s, a)
			}
		}
	}
	for _, p := range slices.Concat(c.ExcludeInboundCIDRs, c.ExcludeOutboundCIDRs, c.IncludeOutboundCIDRs) {
		if !p.IsValid() || p.Addr().Is4In6() {
			bad("CIDR %s: give one such as 10.0.0.0/8 or fd00::/8", p)
		}
	}
	for _, g := range c.ProxyCgroups {
		if strings.Trim(g, "/") == "" || strings.Contains(g, "..") || strings.ContainsAny(g, "'\"\\") {
			bad("proxy-cgroup %q: give a path below the root of the control groups, such as /system.slice/outrigger.service", g)
		}
	}
	for _, n := range []int{
		len(c.ProxyUIDs), len(c.ProxyGIDs), len(c.ProxyCgroups), len(c.ExcludeInboundPorts), len(c.ExcludeInboundCIDRs), len(c.IncludeInboundPorts), len(c.ExcludeOutboundPorts),
		len(c.ExcludeOutboundCIDRs), len(c.ExcludeUIDs), len(c.IncludeOutboundPorts), len(c.IncludeOutboundCIDRs), len(c.IncludeUIDs), len(c.DNSServers),
	} {
		if n > maxItems {
			bad("a list has %d entries, and %d are the most: join ranges", n, maxItems)
		}
	}
	return errors.Join(errs...)
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// encode writes the configuration for the table that is made of it.
func (c Config) encode() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic("intercept: " + err.Error()) // every field can be written
	}
	return string(b)
}

// decodeConfig reads what encode has written.
func decodeConfig(s string) (Config, error) {
	var c Config
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Config{}, err
	}
	return c, c.Complete()
}
