package listener

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func (c *conn) resume(*telemetry.Listener) (resting bool) {
	s, _ := c.carrier()
	return s.Resume()
}

// carrier returns the session, if the connection speaks HTTP or carries
// streams, or else the detection, if there is one.
func (c *conn) carrier() (*exchange.Session, *exchange.Detection) {
	if s := c.session.Load(); s != nil {
		return s, nil
	}
	if d := c.detection.Load(); d != nil {
		if s := d.Session(); s != nil {
			return s, nil
		}
		return nil, d
	}
	return nil, nil
}

// opaque reports whether the connection is served as TCP.
func (c *conn) opaque(p *plan.Listener) bool {
	return p.Protocol == plan.TCP || p.Protocol == plan.Auto && c.peer.Original.IsValid() && slices.Contains(p.Opaque, c.peer.Original.Port())
}

// begin serves an accepted connection.
func (c *conn) begin(m *telemetry.Listener) (resting bool) {
	p := c.l.Plan()
	if p.Security != plan.Plaintext && !c.secure(p, m) {
		return false
	}
	c.settled.Store(true)
	if c.insecure(c.l.Plan()) {
		return false // the plan has changed since p
	}
	negotiated := ""
	if t := c.wire.TLS(); t != nil {
		negotiated = t.ConnectionState().NegotiatedProtocol
	}
	streams, what := true, telemetry.SpokenHTTP
	switch negotiated {
	case "h2":
		what = telemetry.SpokenHTTP2
	case http2.MeshHTTP, http2.MeshTCP:
		what = telemetry.SpokenMesh
	default:
		streams = false
	}
	switch {
	case p.Original:
		m.Speaks(telemetry.SpokenTCP, telemetry.FoundDeclared)
		c.l.srv.ServeOriginal(c.wire, c.peer, &c.l.current)
		return false
	case c.opaque(p) && !streams:
		m.Speaks(telemetry.SpokenTCP, telemetry.FoundDeclared)
		c.l.srv.ServeTCP(c.wire, c.peer, &c.l.current)
		return false
	case p.Protocol == plan.Auto && negotiated == "":
		d := c.l.srv.NewDetection(c.wire, c.peer, &c.l.current)
		c.detection.Store(d)
		return d.Serve()
	}
	m.Speaks(what, telemetry.FoundDeclared)
	s := c.l.srv.NewSession(c.wire, &c.peer, &c.l.current)
	c.session.Store(s)
	if streams {
		return s.ServeStreams()
	}
	return s.Serve()
}
