package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const httpRules = `{rules: [
  {name: readers, from: ["spiffe://e2e.test/web", "spiffe://e2e.test/batch"], methods: [GET, HEAD], paths: ["/public/*"]},
  {name: writers, from: ["spiffe://e2e.test/batch"], methods: [POST], paths: ["/jobs"]},
  {name: closed, action: deny, from: ["*"], paths: ["/public/secret/*"]}]}`

// Callers may do what a rule allows and nothing else; a refusal names the rule.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, sections{"authorization": strings.ReplaceAll(httpRules, "\n", " ")})
	batch, address := m.outbound("batch", "api", nil)
	batch.ready()
	calls := map[string]string{"web": p.call, "batch": "http://" + address}
	for _, c := range []struct {
		who, method, path string
		status            int
		rule              string
	}{
		{"web", "GET", "/public/a", 200, "readers"},
		{"web", "HEAD", "/public/a", 200, "readers"},
		{"batch", "GET", "/public/a", 200, "readers"},
		{"web", "POST", "/public/a", 403, "default-deny"},
		{"web", "POST", "/jobs", 403, "default-deny"},
		{"batch", "POST", "/jobs", 200, "writers"},
		{"batch", "POST", "/jobs/1", 403, "default-deny"},
		{"web", "GET", "/private", 403, "default-deny"},
		{"web", "GET", "/public/secret/key", 403, "closed"},
		{"web", "GET", "/public/x/../secret/key", 403, "ambiguous-path"},
		{"web", "GET", "/public/%73ecret/key", 403, "closed"},
		{"web", "GET", "/public/..%2fprivate", 403, "ambiguous-path"},
		{"web", "GET", "/public/../private", 403, "ambiguous-path"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.who, c.method, c.path), func(t *testing.T) {
			id := fmt.Sprintf("%s-%s-%s", c.who, c.method, strings.NewReplacer("/", "_", "%", "_").Replace(c.path))
			resp, body := fetch(t, c.method, calls[c.who], func(r *http.Request) {
				r.URL.Opaque = c.path // as it is written
				r.URL.Host, r.Host = strings.TrimPrefix(calls[c.who], "http://"), "api"
				r.Header.Set("X-Request-Id", id)
			})
			if resp.StatusCode != c.status {
				t.Errorf("answer: %d %s", resp.StatusCode, body)
			}
			if c.status == 403 && c.method != "HEAD" && !hasLine(body, "rule: "+c.rule) {
				t.Errorf("the refusal does not name the rule %s: %s", c.rule, body)
			}
			r := p.api.recorded("the request", func(r *record) bool { return r.RequestID == id })
			if r.Rule != c.rule || r.DownstreamID != spiffe(c.who) || (r.Flag == "DN") != (c.status == 403) {
				t.Errorf("api's record: %+v", r)
			}
		})
	}
}

// Rules that are only observed refuse nobody and count whom they would refuse.
func TestAuthorizationObserved(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	rules := `{mode: observe, rules: [{name: nobody, from: ["spiffe://e2e.test/nobody"]}]}`
	p := m.pair(serve(t, echo("api")), nil, sections{"authorization": rules})
	for range 3 {
		mustSee(t, p.call+"/")
	}
	p.api.counts(3, "outrigger_would_have_total", `action="denied"`, `direction="inbound"`)
	if r := p.api.recorded("a request", func(r *record) bool { return r.Direction == "inbound" }); r.Rule != "default-deny" || r.Status != 200 {
		t.Errorf("record: %+v", r)
	}
}
