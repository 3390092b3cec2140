package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// A permissive port takes callers with and without mTLS, tells them apart, and
// counts those that are not in the mesh yet.
func TestPermissive(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	inbound := freeAddress(t)
	rules := `{rules: [{name: mesh, from: ["spiffe://e2e.test/web"]}, {name: legacy, from: [anonymous], paths: ["/open/*"]}]}`
	api, _ := m.inbound("api", serve(t, echo("api")), sections{
		"inbound": fmt.Sprintf(`{listen: "%s", mtls: permissive}`, inbound), "authorization": rules,
	})
	m.catalog(map[string][]string{"api": {inbound}})
	web, call := m.outbound("web", "api", nil)
	api.ready()
	web.ready()
	if s := mustSee(t, "http://"+call+"/mesh"); s.Header.Get("X-Forwarded-Client-Cert") == "" {
		t.Error("a caller with mTLS is not named to the application")
	}
	for range 2 {
		resp, body := fetch(t, http.MethodGet, "http://"+inbound+"/open/page", func(r *http.Request) {
			r.Header.Set("X-Forwarded-Client-Cert", "URI="+spiffe("web"))
		})
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("plaintext: %d %s", resp.StatusCode, body)
		}
		if v := parseSeen(t, body).Header.Values("X-Forwarded-Client-Cert"); len(v) != 0 {
			t.Errorf("a plaintext caller passes for %q", v)
		}
	}
	resp, body := fetch(t, http.MethodGet, "http://"+inbound+"/mesh", nil)
	if resp.StatusCode != http.StatusForbidden || !hasLine(body, "rule: default-deny") {
		t.Errorf("plaintext where only the mesh may: %d %s", resp.StatusCode, body)
	}
	api.counts(3, "outrigger_listener_plaintext_connections_total")
	if n := api.metric("outrigger_listener_plaintext_connections_total"); n != 3 {
		t.Errorf("%v plaintext connections are counted; there were 3", n)
	}
	if r := api.recorded("the mesh's request", func(r *record) bool { return r.Rule == "mesh" }); r.DownstreamID != spiffe("web") {
		t.Errorf("record: %+v", r)
	}
	if r := api.recorded("the plaintext request", func(r *record) bool { return r.Rule == "legacy" }); r.DownstreamID != "" {
		t.Errorf("record: %+v", r)
	}
}
