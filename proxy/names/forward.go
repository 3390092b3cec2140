package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// errNoServer is the answer of a proxy that knows nobody to ask.
var errNoServer = errors.New("there is no server to ask; write one under dns.forward")

// errBusy is for queries beyond dns.max_forwarded.
var errBusy = errors.New("too many queries are under way at other servers")

// forwarder asks other servers.
type forwarder struct {
	timeout time.Duration
	zones   []forwardZone // the longest first
	rest    []string
	places  chan struct{}
}

type forwardZone struct {
	name    string
	servers []string
}

// newForwarder reads the system's servers where the configuration names none.
// own is where this proxy itself listens: it does not ask itself.
func newForwarder(c Config, own netip.AddrPort, resolvConf string) (*forwarder, error) {
	f := &forwarder{timeout: c.Timeout, rest: c.Forward, places: make(chan struct{}, c.MaxForwarded)}
	for z, list := range c.ForwardZones {
		f.zones = append(f.zones, forwardZone{dns.CanonicalName(z), list})
	}
	slices.SortFunc(f.zones, func(a, b forwardZone) int {
		if len(a.name) != len(b.name) {
			return len(b.name) - len(a.name)
		}
		return strings.Compare(a.name, b.name)
	})
	if len(f.rest) > 0 {
		return f, nil
	}
	sys, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return nil, fmt.Errorf("cannot read the system's servers, and dns.forward names none: %w", err)
	}
	for _, s := range sys.Servers {
		at := net.JoinHostPort(s, sys.Port)
		if a, err := netip.ParseAddrPort(at); err == nil && a == own {
			continue
		}
		f.rest = append(f.rest, at)
	}
	return f, nil
}

// servers returns whom to ask about name, and whether that is because of its zone.
func (f *forwarder) servers(name string) (list []string, zoned bool) {
	for i := range f.zones {
		if _, in := within(name, f.zones[i].name); in {
			return f.zones[i].servers, true
		}
	}
	return f.rest, false
}

// ask passes m on over network, "udp" or "tcp", to the first of the servers that
// answers.
func (f *forwarder) ask(ctx context.Context, m *dns.Msg, network string, servers []string) (*dns.Msg, error) {
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	default:
		return nil, errBusy
	}
	err := errNoServer
	for _, s := range servers {
		c := dns.Client{Net: network, Timeout: f.timeout, UDPSize: dns.MaxMsgSize}
		var r *dns.Msg
		if r, _, err = c.ExchangeContext(ctx, m, s); err != nil {
			err = fmt.Errorf("%s: %w", s, err)
			continue
		}
		// The next may know better than one that has failed.
		if r.Rcode == dns.RcodeServerFailure || r.Rcode == dns.RcodeRefused {
			err = fmt.Errorf("%s answered %s", s, dns.RcodeToString[r.Rcode])
			continue
		}
		return r, nil
	}
	return nil, err
}
