package config

import (
	"net/netip"
	"strings"
)

// listenAddr is one address that something listens on.
type listenAddr struct {
	path string
	addr netip.AddrPort
}

// listeners checks every address that is listened on, and that no two of them
// are the same.
func (v *validator) listeners() {
	var all, udp []listenAddr
	take := func(path, text string) {
		addr, problem := parseListen(text)
		if problem != "" {
			v.say(path, "%s", problem)
			return
		}
		all = append(all, listenAddr{path, addr})
	}
	if ip, err := netip.ParseAddr(v.Service.Address); err == nil && v.Service.Port > 0 && v.Service.Port <= 65535 {
		all = append(all, listenAddr{"service.port", netip.AddrPortFrom(ip, uint16(v.Service.Port))})
		take("inbound.listen", v.Inbound.Listen)
	} else if _, socket := SocketPath(v.Service.Address); socket {
		take("inbound.listen", v.Inbound.Listen)
	}
	for i, e := range v.Inbound.Expose {
		if e.Listen != "" {
			take(joinIndex("inbound.expose", i)+".listen", e.Listen)
		}
	}
	for i, u := range v.Outbound.Upstreams {
		if _, socket := SocketPath(u.Listen); u.Listen != "" && !socket {
			take(joinIndex("outbound.upstreams", i)+".listen", u.Listen)
		}
	}
	for i, u := range v.Outbound.UDP {
		if addr, problem := parseListen(u.Listen); u.Listen != "" && problem != "" {
			v.say(joinIndex("outbound.udp", i)+".listen", "%s", problem)
		} else if u.Listen != "" {
			udp = append(udp, listenAddr{joinIndex("outbound.udp", i) + ".listen", addr})
		}
	}
	if t := v.Outbound.Transparent; t != nil && t.Listen != "" {
		take("outbound.transparent.listen", t.Listen)
		if twin, ok := t.Twin(); ok {
			all = append(all, listenAddr{"outbound.transparent.listen", twin})
		}
	}
	if v.Admin.Listen != "" {
		take("admin.listen", v.Admin.Listen)
		if addr, problem := parseListen(v.Admin.Listen); problem == "" && !addr.Addr().IsLoopback() && !v.Admin.AllowRemote {
			v.say("admin.listen", "is %q, which others can reach, and the admin API asks for no password; use 127.0.0.1, or set admin.allow_remote: true", v.Admin.Listen)
		}
	}
	if a := &v.Admin; a.ProbeListen != "" {
		take("admin.probe_listen", a.ProbeListen)
	}
	if a := &v.Admin; a.MetricsListen != "" {
		take("admin.metrics_listen", a.MetricsListen)
	}
	if l := v.Admin.Lifecycle; l != nil {
		if addr, problem := parseListen(l.Listen); problem == "" {
			all = append(all, listenAddr{"admin.lifecycle.listen", addr})
		}
	}
	if v.DNS.Listen != "" {
		take("dns.listen", v.DNS.Listen)
		if addr, problem := parseListen(v.DNS.Listen); problem == "" {
			udp = append(udp, listenAddr{"dns.listen", addr})
		}
	}
	v.apart(all)
	v.apart(udp)
}

// apart refuses two of the same address.
func (v *validator) apart(all []listenAddr) {
	for i, a := range all {
		for _, b := range all[:i] {
			if overlap(a.addr, b.addr) {
				v.say(a.path, "is %s, which %s already takes (%s)", a.addr, b.path, b.addr)
				break
			}
		}
	}
}

// parseListen reads an address to listen on; problem is "" when it is one.
func parseListen(text string) (addr netip.AddrPort, problem string) {
	addr, err := netip.ParseAddrPort(text)
	if err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), ""
	}
	problem = "is " + quoteWord(text) + "; write an IP address and a port, such as "
	switch port, isPort := strings.CutPrefix(text, ":"); {
	case isPort && digits(port):
		return addr, problem + "127.0.0.1:" + port + ", or 0.0.0.0:" + port + " for every interface"
	case digits(text):
		return addr, problem + "127.0.0.1:" + text
	}
	if host, port, ok := strings.Cut(text, ":"); ok && host == "localhost" && digits(port) {
		return addr, problem + "127.0.0.1:" + port
	}
	return addr, problem + "127.0.0.1:9001"
}

func quoteWord(s string) string {
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return `"` + s + `"`
}

func digits(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return s != "" && len(s) <= 5
}

// overlap reports whether two listeners cannot both be opened. Port 0 is
// chosen by the system and is never taken.
func overlap(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() || a.Port() == 0 {
		return false
	}
	x, y := a.Addr(), b.Addr()
	switch {
	case x == y:
		return true
	case x.IsUnspecified() && y.IsUnspecified():
		return true // [::] takes IPv4 too where the system's default is dual stack
	case x.IsUnspecified():
		return x.Is6() || y.Is4()
	case y.IsUnspecified():
		return y.Is6() || x.Is4()
	}
	return false
}
