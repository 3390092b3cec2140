package telemetry

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// routeResult says who is answerable for how an exchange ended.
type routeResult uint8

const (
	routeOK routeResult = iota
	routeDownstream
	routeUpstream
	routeLocal

	routeResultCount
)

var routeResultNames = [routeResultCount]string{"ok", "downstream", "upstream", "local"}

func routeResultOf(r outcome.Reason) routeResult {
	switch r.Row().Source {
	case outcome.SourceDownstream:
		return routeDownstream
	case outcome.SourceUpstream:
		return routeUpstream
	case outcome.SourceLocal:
		return routeLocal
	}
	return routeOK
}

// Route holds the metrics of one route of a listener that has several.
type Route struct {
	handle

	shards []routeShard
	mask   uint32
}

type routeShard struct {
	requests [routeResultCount][classCount]Counter
	duration histogram
	_        pad
}

// Route returns the handle of a listener's route; Release it when the plan that
// has it is replaced.
func (m *Metrics) Route(direction Direction, listener, route string) *Route {
	listener, route = label(listener), label(route)
	labels := []attribute.KeyValue{
		attribute.String("direction", direction.String()), attribute.String("listener", listener), attribute.String("route", route),
	}
	return acquire(m, handleKey{kindRoute, direction, listener, route}, labels, func(h handle) *Route {
		n := shardCount()
		return &Route{handle: h, shards: make([]routeShard, n), mask: uint32(n - 1)}
	})
}

// Finish counts a request that took the route: why it ended, the status sent
// downstream (0 if none), and how long it took. The shard is as in Cluster.Begin.
func (c *Route) Finish(shard uint32, r outcome.Reason, status uint16, took time.Duration) {
	s := &c.shards[shard&c.mask]
	s.requests[routeResultOf(r)][classOf(status)].Inc()
	s.duration.observe(took)
}

func (c *Route) collect(s *scrape) {
	var n [routeResultCount][classCount]uint64
	var d Distribution
	for i := range c.shards {
		for r := range n {
			for k := range n[r] {
				n[r][k] += c.shards[i].requests[r][k].Value()
			}
		}
		c.shards[i].duration.addTo(&d)
	}
	for r := range n {
		for k := range n[r] {
			s.cell(mRouteRequests, uint16(r*classCount+k), n[r][k], routeResultNames[r], classNames[k])
		}
	}
	s.histogram(mRouteDuration, &d)
}
