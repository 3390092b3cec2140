package sidecar

import (
	"fmt"
	"net/netip"
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

// expose says that no path of the application is open to callers without a
// certificate.
func (t *translation) expose() {
	const remedy = "have the path asked at the application's own port"
	e := &t.own.Proxy.Expose
	if e.Checks {
		t.find(Refused, t.entry, "Proxy.Expose.Checks", "asks for ports at which Consul's agent checks the application through the sidecar; nothing listens there, so these checks fail",
			remedy+", and remove it")
	}
	for i, p := range e.Paths {
		t.find(Refused, t.entry, fmt.Sprintf("Proxy.Expose.Paths[%d]", i), fmt.Sprintf("asks for %s at port %d without mTLS; nothing listens there", p.Path, p.ListenerPort), remedy)
	}
}
