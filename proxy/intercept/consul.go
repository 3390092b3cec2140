package intercept

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/user"
	"strconv"
	"strings"
)

// ConsulEnv is the variable in which Consul's Kubernetes injection passes the
// configuration of the rules to an init container.
const ConsulEnv = "CONSUL_REDIRECT_TRAFFIC_CONFIG"

// consulConfig is hashicorp/consul/sdk/iptables.Config as JSON.
type consulConfig struct {
	ConsulDNSIP          string
	ConsulDNSPort        int
	ProxyUserID          string
	ProxyInboundPort     int
	ProxyOutboundPort    int
	ExcludeInboundPorts  []string
	ExcludeOutboundPorts []string
	ExcludeOutboundCIDRs []string
	ExcludeUIDs          []string
	NetNS                string
	IptablesProvider     json.RawMessage // an interface; always null
}

// ParseConsul reads the JSON by which Consul's tools tell their rules: the
// variable CONSUL_REDIRECT_TRAFFIC_CONFIG, the annotation
// consul.hashicorp.com/redirect-traffic-config and the CNI argument
// CONSUL_IPTABLES_CONFIG. A key that is not known is an error: a rule that is
// left out could let traffic pass unseen. What it returns is not complete yet,
// see [Config.Complete].
func ParseConsul(text string) (Config, error) {
	var in consulConfig
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return Config{}, fmt.Errorf("the JSON of redirect-traffic: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("the JSON of redirect-traffic: something follows the object")
	}
	var errs []error
	c := Config{NetNS: in.NetNS}
	uids := in.ExcludeUIDs
	var err error
	if in.ProxyUserID != "" {
		if c.ProxyUIDs, err = ParseUsers([]string{in.ProxyUserID}); err != nil {
			errs = append(errs, fmt.Errorf("ProxyUserID: %w", err))
		}
	}
	c.InboundPort = port(in.ProxyInboundPort, "ProxyInboundPort", &errs)
	c.OutboundPort = port(in.ProxyOutboundPort, "ProxyOutboundPort", &errs)
	c.ExcludeInboundPorts = all(in.ExcludeInboundPorts, "ExcludeInboundPorts", ParseRange, &errs)
	c.ExcludeOutboundPorts = all(in.ExcludeOutboundPorts, "ExcludeOutboundPorts", ParseRange, &errs)
	c.ExcludeOutboundCIDRs = all(in.ExcludeOutboundCIDRs, "ExcludeOutboundCIDRs", ParseCIDR, &errs)
	if c.ExcludeUIDs, err = ParseUsers(uids); err != nil {
		errs = append(errs, fmt.Errorf("ExcludeUIDs: %w", err))
	}
	if err := c.ConsulDNS(in.ConsulDNSIP, in.ConsulDNSPort); err != nil {
		errs = append(errs, err)
	}
	return c, errors.Join(errs...)
}

// ConsulDNS sets where DNS goes as Consul's tools mean it: an address alone
// gets every query; with a port, queries to port 53 of that address (127.0.0.1
// if none is given) go to that port.
func (c *Config) ConsulDNS(ip string, to int) error {
	if ip == "" && to == 0 {
		return nil
	}
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if ip != "" {
		var err error
		if addr, err = netip.ParseAddr(ip); err != nil || addr.Zone() != "" {
			return fmt.Errorf("ConsulDNSIP %q is no IP address", ip)
		}
		addr = addr.Unmap()
	}
	if to < 0 || to > 65535 {
		return fmt.Errorf("ConsulDNSPort %d: ports go from 1 to 65535", to)
	}
	if to == 0 {
		c.DNSTo = []netip.AddrPort{netip.AddrPortFrom(addr, 53)}
		return nil
	}
	c.DNSTo = []netip.AddrPort{netip.AddrPortFrom(addr, uint16(to))}
	c.DNSServers = []netip.Addr{addr}
	return nil
}

// ParseCIDR reads a CIDR or an address, which stands for itself.
func ParseCIDR(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no CIDR such as 10.0.0.0/8 and no address", s)
	}
	return p.Masked(), nil
}

// ParseUsers reads user ids, ranges of them and names.
func ParseUsers(list []string) ([]Range, error) {
	var users []Range
	for _, s := range list {
		r, err := ParseRange(s)
		if err != nil {
			u, lookup := user.Lookup(s)
			if lookup != nil {
				return nil, fmt.Errorf("%q is no user id, no range of them and no user of this system", s)
			}
			id, perr := strconv.ParseUint(u.Uid, 10, 32)
			if perr != nil {
				return nil, perr
			}
			r = Range{uint32(id), uint32(id)}
		}
		users = append(users, r)
	}
	return users, nil
}

func port(n int, what string, errs *[]error) uint16 {
	if n < 0 || n > 65535 {
		*errs = append(*errs, fmt.Errorf("%s %d: ports go from 1 to 65535", what, n))
		return 0
	}
	return uint16(n)
}

func all[T any](list []string, what string, parse func(string) (T, error), errs *[]error) (out []T) {
	for _, s := range list {
		v, err := parse(s)
		if err != nil {
			*errs = append(*errs, fmt.Errorf("%s: %w", what, err))
			continue
		}
		out = append(out, v)
	}
	return out
}
