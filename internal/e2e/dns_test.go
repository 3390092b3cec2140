package e2e

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
)

// An application that asks the sidecar finds its upstreams by name.
func TestNames(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	at := freeAddress(t)
	web, call := m.plain(serve(t, echo("api")), sections{"dns": `{listen: "` + at + `", zones: [mesh.test], forward: ["127.0.0.1:1"], timeout: 100ms}`})
	web.ready()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(call, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.LookupHost(t.Context(), "api.mesh.test."); err != nil || len(got) != 1 || got[0] != host {
		t.Errorf("api.mesh.test is %v, %v; want %s", got, err, host)
	}
	if _, list, err := r.LookupSRV(t.Context(), "", "", "api.mesh.test."); err != nil || len(list) != 1 || strconv.Itoa(int(list[0].Port)) != port {
		t.Errorf("SRV api.mesh.test is %v, %v; want %s", list, err, port)
	}
	if _, err := r.LookupHost(t.Context(), "nobody.mesh.test."); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("nobody.mesh.test: %v", err)
	}
	if status, body := web.get("/metrics"); status != 200 || !strings.Contains(body, `outrigger_dns_queries_total{outcome="answered"}`) {
		t.Errorf("metrics: %d\n%s", status, body)
	}
}
