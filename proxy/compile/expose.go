package compile

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// expose prepares the listener of a path that others may ask without mTLS, and
// the cluster of the application behind it. Whatever else is asked for there is
// refused, and x-forwarded-client-cert is removed.
func (c *compiler) expose(i int) {
	in := &c.cfg.Inbound
	e, path := &in.Expose[i], "inbound.expose["+strconv.Itoa(i)+"]"
	c.listener = "expose:" + e.Listen
	app, ok := c.application(e.Port)
	if !ok {
		return
	}
	l := &plan.Listener{
		Name: c.listener, Address: e.Listen, Direction: telemetry.Inbound, Protocol: plan.HTTP, Exposed: true,
		HandshakeTimeout: in.HandshakeTimeout, MaxHandshakes: in.MaxHandshakes, MaxConnections: in.MaxConnections,
		HTTP: c.http(), Route: plan.Route{Name: c.listener},
	}
	l.HTTP.MaxAge, l.HTTP.AgeGrace = in.MaxConnectionAge, in.MaxConnectionAgeGrace
	c.draft.specs = append(c.draft.specs, clusterSpec{
		dir:   telemetry.Inbound,
		local: []upstream.EndpointSpec{app},
		spec: upstream.Spec{
			Name: c.listener, Protocol: string(e.Protocol), Local: true, Transport: "plaintext",
			Policy: upstream.Policy{
				Timeout: in.Timeout, ConnectTimeout: in.ConnectTimeout, StreamIdle: in.StreamIdleTimeout,
				Keepalive: in.KeepaliveTimeout, TCPIdle: in.TCPIdleTimeout, Limits: in.Limits, WebSocket: in.WebSocket,
				Retry: localRetry(), HTTP2: e.Protocol.HTTP2(),
			},
		},
	})
	spec := len(c.draft.specs) - 1
	c.use(&l.Route, spec)
	c.routes(path+".routes", l, []config.Route{{Name: e.Path, Match: config.RouteMatch{Path: e.Path}}}, config.UnmatchedRefuse, spec)
	c.add(l)
}
