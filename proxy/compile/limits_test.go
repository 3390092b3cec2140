package compile

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const turns = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
inbound:
  limits: {queue: {}}
  adaptive: {max_limit: 7, min_limit: 7}
  priorities:
    - {priority: critical, from: ["spiffe://example.org/shop/*"]}
    - {priority: high, match: {path_prefix: /pay}}
  routes:
    - {name: export, match: {path_prefix: /export}, priority: low, limits: {max_requests: 2}}
outbound:
  upstreams:
    - service: api
      listen: "127.0.0.1:9001"
      routes:
        - {name: both, match: {path: /both}, limits: {max_requests: 3, queue: {size: 1}}, split: [{service: api, weight: 50}, {service: v2, weight: 50}]}
`

func TestTurns(t *testing.T) {
	in := input(t, turns)
	p, r := build(t, in)
	own := &p.Listeners[0].Route
	export := p.Listeners[0].Routes.Routes()[0]
	shop, _ := mtls.ParseID("spiffe://example.org/shop/cart")
	other, _ := mtls.ParseID("spiffe://example.org/batch")
	if got := own.PriorityOfConn(shop); got != queue.Critical {
		t.Errorf("shop has %s", got)
	}
	if got := own.PriorityOfConn(other); got != queue.Normal {
		t.Errorf("others have %s", got)
	}
	if got := export.PriorityOfConn(other); got != queue.Low || len(export.Priorities) != 2 {
		t.Errorf("the export has %s", got)
	}
	if own.Cluster.Gate.Most() != 7 || !own.Cluster.Gate.Queueing() {
		t.Errorf("the service has the limit %d", own.Cluster.Gate.Most())
	}
	if own.Gate != nil || export.Gate == nil || export.Gate.Most() != 2 || export.Gate.Queueing() {
		t.Error("the export has no limit of its own, or the service has its")
	}
	both := p.Listeners[1].Routes.Routes()[0]
	if g := both.Gate; g == nil || g.Most() != 3 || both.Split[0].Route.Gate != g || both.Split[1].Route.Gate != g {
		t.Error("the shares of a split do not have its limit in common")
	}
	// Those who are inside are counted on by the plan that follows.
	if !both.Gate.TryEnter(0) {
		t.Fatal("no room")
	}
	d, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	next := d.Build(r, m)
	if next.Listeners[1].Routes.Routes()[0].Gate != both.Gate {
		t.Error("a reload forgets who is inside")
	}
	both.Gate.Leave(0)
	Release(p, r)
	Release(next, r)
}
