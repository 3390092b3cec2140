package config

import (
	"time"
)

// UDPUpstream is a service that the application calls by UDP, and where the
// proxy takes its datagrams. What one client sends from one port is a flow: it
// goes to one endpoint, which is picked as for a connection.
type UDPUpstream struct {
	// The name of the service as discovery knows it. Required. Its policy has transport: plaintext: datagrams are passed on as they are.
	Service string `yaml:"service"`
	// The address to which the application sends, "IP:PORT". Required.
	Listen string `yaml:"listen"`
	// How long both sides of a flow may be silent before it ends (Envoy idle_timeout of udp_proxy).
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// How many flows there may be at a time; datagrams of others are dropped and counted.
	MaxFlows int `yaml:"max_flows"`
}

// ProtocolUDP is what is spoken with the services of outbound.udp.
const ProtocolUDP Protocol = "udp"

// SetDefaults implements Defaulter.
func (u *UDPUpstream) SetDefaults() { u.IdleTimeout, u.MaxFlows = time.Minute, 4096 }

const (
	maxFlows   = 60_000
	maxUDPIdle = 24 * time.Hour
)

// isUDP reports whether service is called by UDP.
func (o *Outbound) isUDP(service string) bool {
	for i := range o.UDP {
		if o.UDP[i].Service == service {
			return true
		}
	}
	return false
}

// udp checks what is called by UDP.
func (v *validator) udp() {
	for i := range v.Outbound.UDP {
		u, at := &v.Outbound.UDP[i], joinIndex("outbound.udp", i)
		switch {
		case u.Service == "":
			v.say(at+".service", "is required; name the service as discovery knows it")
		case !serviceName(u.Service):
			v.say(at+".service", "is %q; %s", u.Service, nameRule)
		case v.isUpstream(u.Service):
			v.say(at+".service", "is %q, which is an upstream for TCP, too; give it another name in discovery", u.Service)
		default:
			if p := v.Policy(u.Service); p.Transport != TransportPlaintext {
				v.say(at+".service", "is %q, whose datagrams cannot be protected by mTLS; write policies.%s: {transport: plaintext} to send them as they are", u.Service, u.Service)
			} else {
				v.udpPolicy(u.Service, &p)
			}
		}
		if u.Listen == "" {
			v.say(at+".listen", "is required; write the address to which the application sends, such as 127.0.0.1:5353")
		}
		if u.IdleTimeout < time.Millisecond || u.IdleTimeout > maxUDPIdle {
			v.say(at+".idle_timeout", "is %s; write a time from 1ms to %s", formatDuration(u.IdleTimeout), formatDuration(maxUDPIdle))
		}
		if u.MaxFlows < 1 || u.MaxFlows > maxFlows {
			v.say(at+".max_flows", "is %d; write a number from 1 to %d", u.MaxFlows, maxFlows)
		}
	}
}

// udpPolicy refuses the guards that have nothing to act on, or would not be
// asked, where datagrams are passed on.
func (v *validator) udpPolicy(service string, p *Policy) {
	for _, g := range [...]struct {
		key   string
		given bool
	}{
		{"breaker", p.Breaker != nil},
		{"admission", p.Admission != nil},
		{"limits.queue", p.Limits.Queue != nil},
		{"rate_limits", len(p.RateLimits) > 0},
		{"priorities", len(p.Priorities) > 0},
	} {
		if g.given {
			v.say(joinKey("policies", service)+"."+g.key, "does not act on datagrams; leave it out: max_flows and limits.max_requests bound the flows")
		}
	}
}
