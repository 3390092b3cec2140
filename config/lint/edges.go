package lint

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/hedge"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// edge is a way on which one service calls another: an upstream, or a route of
// one with what it changes.
type edge struct {
	l       *config.Loaded
	from    string
	to      string
	via     string // the route; empty for the upstream itself
	path    string // of the policy
	over    string // of the route that changes it; else empty
	tcp     bool
	timeout time.Duration // 0 none
	retry   *retry.Config // nil when off
	connect time.Duration
	hedge   *hedge.Config // nil when off
	mtls    bool          // it leads to another sidecar, which believes what it is told
}

// edgesOf are the ways that lead out of a proxy.
func edgesOf(l *config.Loaded) []edge {
	var list []edge
	c := l.Config
	for i := range c.Outbound.Upstreams {
		u := &c.Outbound.Upstreams[i]
		list = append(list, newEdge(l, u.Service, "", "", nil))
		for k := range u.Routes {
			r := &u.Routes[k]
			path := "outbound.upstreams[" + strconv.Itoa(i) + "].routes[" + strconv.Itoa(k) + "]"
			to := []string{u.Service}
			switch {
			case r.Respond != nil:
				continue
			case r.To != "":
				to = []string{r.To}
			case len(r.Split) > 0:
				to = nil
				for _, s := range r.Split {
					to = append(to, s.Service)
				}
			}
			for _, name := range to {
				list = append(list, newEdge(l, name, r.Title(k), path, r))
			}
		}
	}
	return list
}

func newEdge(l *config.Loaded, to, via, path string, r *config.Route) edge {
	p := l.Config.Policy(to)
	e := edge{
		l: l, from: l.Config.Service.Name, to: to, via: via, path: config.PolicyPath(to), over: path, timeout: p.Timeout, retry: p.Retry, connect: p.ConnectTimeout,
		tcp: l.Config.ServiceProtocol(to) == config.ProtocolTCP, hedge: p.Hedge, mtls: p.Transport == config.TransportMTLS,
	}
	if r != nil {
		if r.Timeout != nil {
			e.timeout = *r.Timeout
		}
		e.retry = r.Retry.Apply(p.Retry)
		e.hedge = r.Hedge.Apply(p.Hedge)
	}
	return e
}

// at is the path of a key: the route's own where the route says it.
func (e *edge) at(key string) string {
	if e.over != "" && e.l.Origin(e.over+"."+key).Position.File != "" {
		return e.over + "." + key
	}
	return e.path + "." + key
}

// name says in words which way it is.
func (e *edge) name() string {
	if e.via == "" {
		return e.from + " -> " + e.to
	}
	return e.from + " -> " + e.to + " (route " + e.via + ")"
}

// tries is how many attempts a request may have.
func (e *edge) tries() int {
	if e.retry == nil || e.retry.Mode == guard.Observe {
		return 1
	}
	return max(e.retry.Attempts, 1)
}

// longest is how long the edge may keep its caller, and whether that is bounded.
func (e *edge) longest() (time.Duration, bool) {
	total := e.timeout
	if e.retry != nil && e.retry.PerTryTimeout > 0 {
		all := time.Duration(e.tries()) * (e.retry.PerTryTimeout + e.connect)
		for n := 1; n < e.tries(); n++ {
			all += e.retry.MostWait(n)
		}
		if total == 0 || all < total {
			total = all
		}
	}
	return total, total > 0
}
