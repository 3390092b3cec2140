package upstream

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// DialOriginal makes a connection to dst, which need not be an endpoint of the
// cluster, without TLS. from is the address that it comes from; the zero Addr
// leaves that to the kernel.
func (c *Cluster) DialOriginal(dst netip.AddrPort, from netip.Addr) (*wire.Conn, *outcome.Error) {
	fail := func(r outcome.Reason, err error) *outcome.Error {
		c.metrics.ConnectFailed(r)
		return &outcome.Error{Reason: r, Op: "connect " + dst.String(), Err: err}
	}
	d := net.Dialer{KeepAlive: c.registry.dialer.KeepAlive}
	if from.IsValid() {
		d.Control = wire.From(from)
	}
	ctx, cancel := context.WithDeadline(c.registry.ctx, time.Now().Add(c.Policy().ConnectTimeout))
	defer cancel()
	w, r, err := c.registry.dial(ctx, &d, dst.String())
	if err != nil {
		return nil, fail(r, err)
	}
	c.metrics.UpstreamConnections.Inc()
	return w, nil
}
