package compile

import (
	"strings"
	"testing"
)

const parted = `
service:   {name: web}
discovery: {file: {path: catalog.yaml}}
outbound:
  upstreams:
    - service: api
      listen: "127.0.0.1:9001"
      routes:
        - {name: beta, match: {path: /beta}, subset: v2}
        - {name: canary, match: {path: /c}, split: [{service: api, subset: v1, weight: 90}, {service: api, subset: v2, weight: 10}]}
        - {name: plain, match: {path: /p}, timeout: 1s}
policies:
  "*": {transport: plaintext}
  api: {subset_fallback: any, subsets: {v2: {version: "2"}, v1: {version: "1", tag.blue: "true"}}}
`

// TestSubsets: routes and shares have the subsets that they name, of the
// cluster's policy.
func TestSubsets(t *testing.T) {
	p, r := build(t, input(t, parted))
	defer Release(p, r)
	l := p.Listeners[0]
	c := l.Route.Cluster
	if got := c.Policy().Subsets; len(got) != 2 || got[0].Name != "v1" || got[0].Match.String() != "tag.blue=true, version=1" || !got[1].Any {
		t.Errorf("%+v", got)
	}
	v1, v2 := c.Subset("v1"), c.Subset("v2")
	canary := find(t, l, "canary")
	if find(t, l, "beta").Subset != v2 || canary.Split[0].Route.Subset != v1 || canary.Split[1].Route.Subset != v2 ||
		find(t, l, "plain").Subset != nil || l.Route.Subset != nil || v1 == nil || v2 == nil {
		t.Error("routes have other subsets")
	}
	text := p.String()
	for _, want := range []string{"-> api/v2", "90% api/v1 10% api/v2", "    subset     v1: tag.blue=true, version=1, any=true\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan does not say %q:\n%s", want, text)
		}
	}
}
