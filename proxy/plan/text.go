package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// String returns the canonical text of the plan: what the admin API shows and
// what reviews compare.
func (p *Plan) String() string {
	var b strings.Builder
	var shown []*upstream.Cluster
	fmt.Fprintf(&b, "plan %d\n", p.Version)
	for _, l := range p.Listeners {
		fmt.Fprintf(&b, "listener %s\n", l.Name)
		if l.Address != "" {
			fmt.Fprintf(&b, "  address      %s\n", l.Address)
		}
		if l.SocketMode != 0 {
			fmt.Fprintf(&b, "  socket mode  %04o\n", l.SocketMode)
		}
		fmt.Fprintf(&b, "  direction    %s\n", l.Direction)
		if l.Intercept != nil {
			b.WriteString(l.Intercept.text(p.Listeners))
			continue
		}
		fmt.Fprintf(&b, "  protocol     %s\n", l.Protocol)
		fmt.Fprintf(&b, "  security     %s\n", l.Security)
		if l.Direction == telemetry.Inbound {
			fmt.Fprintf(&b, "  connections  %s, %s handshakes at once, each within %s\n", most(l.MaxConnections), most(l.MaxHandshakes), l.HandshakeTimeout)
		}
		if l.Protocol == Auto {
			fmt.Fprintf(&b, "  detection    the endpoint is called when %s have passed in silence\n", l.DetectWait)
		}
		if l.Protocol != TCP {
			fmt.Fprintf(&b, "  head         %d bytes, %d fields, within %s; idle %s\n", l.HTTP.Limits.HeadBytes, l.HTTP.Limits.Fields, none(l.HTTP.HeadTimeout), none(l.HTTP.IdleTimeout))
		}
		if l.Routes != nil {
			for _, r := range l.Routes.routes {
				fmt.Fprintf(&b, "  route        %s: %s\n", r.Name, r.text())
			}
			fmt.Fprintf(&b, "  else         %s\n", l.Routes.last.text())
		}
		fmt.Fprintf(&b, "  cluster      %s\n", l.Route.Cluster.Name())
		cluster(&b, l.Route.Cluster)
		shown = append(shown, l.Route.Cluster)
	}
	for _, c := range p.Clusters {
		if !slices.Contains(shown, c) {
			fmt.Fprintf(&b, "cluster %s\n", c.Name())
			cluster(&b, c)
		}
	}
	return b.String()
}

func cluster(b *strings.Builder, c *upstream.Cluster) {
	pol := c.Policy()
	fmt.Fprintf(b, "    transport  %s\n", c.Transport())
	fmt.Fprintf(b, "    timeouts   request %s, connect %s, stream idle %s, keepalive %s, tcp idle %s\n",
		none(pol.Timeout), pol.ConnectTimeout, none(pol.StreamIdle), none(pol.Keepalive), none(pol.TCPIdle))
	fmt.Fprintf(b, "    balance    %+v\n", pol.Balance)
	for i := range pol.Subsets {
		s := &pol.Subsets[i]
		fmt.Fprintf(b, "    subset     %s: %s, any=%v\n", s.Name, s.Match, s.Any)
	}
	section(b, "retry", pol.Retry)
	section(b, "outlier", pol.Outlier)
	section(b, "breaker", pol.Breaker)
	if pol.Hedge != nil {
		section(b, "hedge", pol.Hedge)
	}
	l := &pol.Limits
	fmt.Fprintf(b, "    limits     {Mode:%s MaxConnections:%d MaxPending:%d MaxRequests:%d MaxRequestsPerEndpoint:%d}\n",
		l.Mode, l.MaxConnections, l.MaxPending, l.MaxRequests, l.MaxRequestsPerEndpoint)
	section(b, "queue", l.Queue)
	section(b, "adaptive", pol.Adaptive)
}

func section[T any](b *strings.Builder, name string, v *T) {
	if v == nil {
		fmt.Fprintf(b, "    %-10s off\n", name)
		return
	}
	fmt.Fprintf(b, "    %-10s %+v\n", name, *v)
}

func none(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

func most(n int) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("at most %d", n)
}
