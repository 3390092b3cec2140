package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Every source is asked; those that have nothing to do with the request are
// passed over, and only where all have it is an error.
func TestExplain(t *testing.T) {
	web := writeConfig(t, "web.yaml", "service: {name: web}\ndiscovery: {consul: {}}\npolicies: {\"*\": {transport: plaintext}}\noutbound: {upstreams: [{service: api, listen: \"127.0.0.1:9001\"}]}\n")
	db := writeConfig(t, "db.yaml", "service: {name: db}\n")
	asked := ""
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query().Get("method") + " " + r.URL.Query().Get("target") + " " + r.Header.Get("Accept")
		if r.URL.Query().Get("to") != "api" {
			http.Error(w, admin.ErrNotHere.Error()+": another's", http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"service": "api", "direction": "inbound", "request": "POST /x", "reason": "denied", "status": 403}`))
	}))
	defer proxy.Close()
	out, err := execute(t, newExplainCommand(), "--to", "api", "POST", "/x", "--config", web, "--config", db, "--admin", proxy.URL)
	if err != nil || !strings.Contains(out, "web, outbound: POST /x would be refused: no_endpoints") || !strings.Contains(out, "api, inbound: POST /x would be refused: denied, status 403") {
		t.Errorf("%v\n%s", err, out)
	}
	if asked != "POST /x application/json" {
		t.Errorf("asked %q", asked)
	}
	out, err = execute(t, newExplainCommand(), "--to", "api", "--json", "--config", web)
	if err != nil || !strings.HasPrefix(out, "[") || !strings.Contains(out, `"request": "GET /"`) {
		t.Errorf("%v\n%s", err, out)
	}
	_, err = execute(t, newExplainCommand(), "--to", "shop", "--config", web, "--config", db, "--admin", proxy.URL)
	if err == nil || strings.Count(err.Error(), admin.ErrNotHere.Error()) != 3 {
		t.Errorf("nobody's: %v", err)
	}
	for _, args := range [][]string{{}, {"--to", "api", "--config", "no-such.yaml"}, {"--to", "api", "--config", web, "-H", "x"}, {"--to", "api", "--admin", "127.0.0.1:1"}} {
		if _, err := execute(t, newExplainCommand(), args...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
