package config

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Detection says how it is found out what a connection speaks: HTTP/1.1,
// HTTP/2, TLS of the application's own, which is passed through, or anything
// else, which is TCP.
type Detection struct {
	// How long a caller may be silent before an endpoint is called as well; then whichever side speaks first decides.
	// Where endpoints have spoken first before, they are called at once.
	Wait time.Duration `yaml:"wait"`
	// Ports of an upstream's listen, and of the service, on which auto means tcp. By default those that Linkerd takes
	// for opaque: SMTP, MySQL and its replication, PostgreSQL, Redis, Elasticsearch and memcached.
	OpaquePorts []int `yaml:"opaque_ports"`
}

// Resolve returns p, or tcp where p is auto and that means tcp on port.
func (d *Detection) Resolve(p Protocol, port int) Protocol {
	if p == ProtocolAuto && slices.Contains(d.OpaquePorts, port) {
		return ProtocolTCP
	}
	return p
}

// ServiceProtocol is what is spoken with a service: what its own upstream says,
// else the upstream in whose routes it is named first, else the service whose
// failover it is.
func (c *Config) ServiceProtocol(service string) Protocol {
	for i := range c.Outbound.Upstreams {
		if u := &c.Outbound.Upstreams[i]; u.Service == service {
			addr, _ := parseListen(u.Listen) // a mistake in it is told elsewhere
			return c.Detection.Resolve(u.Protocol, int(addr.Port()))
		}
	}
	if c.Outbound.isUDP(service) {
		return ProtocolUDP
	}
	if p, ok := c.Outbound.targetProtocol(service); ok {
		return p
	}
	if p, ok := c.failoverProtocol(service); ok {
		return p
	}
	return ProtocolHTTP
}

// DefaultDetection returns the values of an empty section. The ports are those
// of proxy.opaquePorts in the chart of Linkerd's control plane.
func DefaultDetection() Detection {
	return Detection{
		Wait:        50 * time.Millisecond,
		OpaquePorts: []int{25, 587, 3306, 4444, 5432, 6379, 9300, 11211},
	}
}

// maxDetectionWait is the longest time for which the clients of a protocol in
// which the server speaks first may be kept waiting.
const maxDetectionWait = 10 * time.Second

// Validate calls add for each mistake.
func (d Detection) Validate(add func(field, problem string)) {
	if d.Wait < 0 || d.Wait > maxDetectionWait {
		add("wait", fmt.Sprintf("is %s; write a time from 0 to %s", formatDuration(d.Wait), formatDuration(maxDetectionWait)))
	}
	for i, port := range d.OpaquePorts {
		if port < 1 || port > 65535 {
			add("opaque_ports["+strconv.Itoa(i)+"]", fmt.Sprintf("is %d; write a number from 1 to 65535", port))
		}
	}
}
