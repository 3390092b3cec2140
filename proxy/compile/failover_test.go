package compile

import (
	"slices"
	"strings"
	"testing"
)

const overflowing = `
service:   {name: web}
discovery: {file: {path: catalog.yaml}}
outbound:
  upstreams:
    - {service: api, listen: "127.0.0.1:9001", routes: [{name: beta, match: {path: /beta}, to: beta}]}
    - {service: api, name: api-too, listen: "127.0.0.1:9002"}
policies:
  "*": {transport: plaintext}
  api: {failover: [api-east, api-west]}
  api-east: {failover: [api-west], connect_timeout: 3s}
  beta: {failover: [api]}
`

// TestFailover: the clusters of services that are called have those that take
// their place, which are followed, too; those have none of their own.
func TestFailover(t *testing.T) {
	in := input(t, overflowing)
	d, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Services(); !slices.Equal(got, []string{"api", "api-east", "api-west", "beta"}) {
		t.Errorf("followed are %v", got)
	}
	p, r := build(t, in)
	defer Release(p, r)
	got := map[string]string{}
	for _, c := range p.Clusters {
		var names []string
		for _, o := range c.Failover() {
			names = append(names, o.Name()+" "+o.Policy().ConnectTimeout.String())
		}
		got[c.Name()] = strings.Join(names, ", ")
	}
	for name, want := range map[string]string{"api": "api-east 3s, api-west 1s", "beta": "api 1s", "api-east": "", "api-west": ""} {
		if got[name] != want {
			t.Errorf("failover of %s is %q, want %q", name, got[name], want)
		}
	}
	if l := p.Listeners[1]; l.Name != "outbound:api-too" || l.Route.Name != "api-too" || l.Route.Cluster.Name() != "api" {
		t.Errorf("%s leads by %s to %s", l.Name, l.Route.Name, l.Route.Cluster.Name())
	}
}
