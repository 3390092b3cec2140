package compile

import (
	"strings"
	"testing"
)

// A route has exchanges drawn for as soon as one guard on their way has a
// percentage, and no other route has.
func TestPartial(t *testing.T) {
	const text = `
service:   {name: web, port: 8080}
identity:  {files: {cert: a, key: b, bundle: c}}
discovery: {file: {path: catalog.yaml}}
authorization: {mode: AUTHZ, rules: [{name: all, from: ["*"]}]}
inbound:   {limits: {mode: LIMITS}, rate_limits: [{name: r, rate: {requests: 1, per: 1s}, mode: RATE}]}
policies:
  api: {breaker: {mode: BREAKER}, rate_limits: [{name: r, rate: {requests: 1, per: 1s}, mode: OUT}]}
outbound:
  upstreams: [{service: api, listen: "127.0.0.1:9001"}, {service: other, listen: "127.0.0.1:9002"}]
`
	names := []string{"AUTHZ", "LIMITS", "RATE", "BREAKER", "OUT"}
	for i := range len(names) + 1 {
		with, inbound, api := text, false, false
		for k, name := range names {
			mode := []string{"enforce", "observe"}[k%2]
			if k == i {
				mode, inbound, api = "25%", k < 3, k >= 3
			}
			with = strings.Replace(with, name, mode, 1)
		}
		p, r := build(t, input(t, with))
		for _, l := range p.Listeners {
			want := map[string]bool{"web": inbound, "api": api}[l.Route.Cluster.Name()]
			if l.Route.Partial != want {
				t.Errorf("%d: that %s has a draw is %v, want %v", i, l.Route.Cluster.Name(), l.Route.Partial, want)
			}
		}
		Release(p, r)
	}
}
