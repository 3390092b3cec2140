package sidecar

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/outrigger-mesh/outrigger/config"
)

// metrics opens the address at which Prometheus comes by Envoy's keys for it.
func (t *translation) metrics(c *opaque) {
	prometheus, asked := t.scraped(c, "envoy_prometheus_bind_addr")
	stats, other := t.scraped(c, "envoy_stats_bind_addr")
	a := &t.Config.Admin
	const listen, path = "admin.metrics_listen", "admin.metrics_path"
	switch {
	case asked && other:
		t.find(Refused, t.entry, c.field("envoy_stats_bind_addr"), "is a second address for metrics; nothing listens there, they are at "+prometheus,
			"have Prometheus ask "+prometheus+"/metrics, and remove it")
		fallthrough
	case asked:
		put(t, &a.MetricsListen, prometheus, listen, c.from("envoy_prometheus_bind_addr"))
	case other:
		put(t, &a.MetricsListen, stats, listen, c.from("envoy_stats_bind_addr"))
		put(t, &a.MetricsPath, "/stats/prometheus", path, c.from("envoy_stats_bind_addr"))
		t.find(Differs, t.entry, c.field("envoy_stats_bind_addr"), "is Envoy's state in many forms; here it is /stats/prometheus alone, with this proxy's own metrics", "")
	}
}

// scraped returns an address that one of Envoy's keys has.
func (t *translation) scraped(c *opaque, key string) (string, bool) {
	v, ok := c.text(key)
	if !ok {
		return "", false
	}
	if a, err := netip.ParseAddrPort(v); err != nil || a.Port() == 0 {
		c.wrong(key, "an address such as 0.0.0.0:20200", v)
		return "", false
	}
	return v, true
}

// expose opens the paths that others may ask without mTLS.
func (t *translation) expose() {
	e := &t.own.Proxy.Expose
	if e.Checks {
		t.find(Refused, t.entry, "Proxy.Expose.Checks", "asks for ports at which Consul's agent checks the application; the HTTP API tells these, but neither the path nor the port of the application that each is for, so nothing listens there and these checks fail",
			"give the path of each check in Proxy.Expose.Paths and have the check ask there")
	}
	host := "0.0.0.0"
	if a, err := netip.ParseAddrPort(t.Config.Inbound.Listen); err == nil && t.Config.Service.Called() {
		host = a.Addr().String()
	}
	list := make([]config.Expose, 0, len(e.Paths))
	for i, p := range e.Paths {
		at := fmt.Sprintf("Proxy.Expose.Paths[%d]", i)
		x := config.Expose{Path: p.Path, Port: p.LocalPathPort, Protocol: config.ProtocolHTTP}
		switch p.Protocol {
		case "", "http":
		case "http2":
			x.Protocol = config.ProtocolHTTP2
		default:
			t.find(Refused, t.entry, at+".Protocol", fmt.Sprintf("is %q; nothing listens for %s", p.Protocol, p.Path), "write http or http2")
			continue
		}
		if p.ListenerPort <= 0 || p.ListenerPort > 65535 || p.LocalPathPort <= 0 || p.LocalPathPort > 65535 {
			t.find(Refused, t.entry, at, "has no ports; nothing listens for "+p.Path, "give ListenerPort and LocalPathPort")
			continue
		}
		x.Listen = net.JoinHostPort(host, strconv.Itoa(p.ListenerPort))
		list = append(list, x)
	}
	const path = "inbound.expose"
	if len(list) == 0 || t.Given(path) {
		return
	}
	t.Config.Inbound.Expose = list
	for i := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		for _, p := range []string{at, at + ".listen", at + ".path", at + ".port", at + ".protocol"} {
			t.Came(p, "Consul "+t.entry+" Proxy.Expose.Paths")
		}
	}
}
