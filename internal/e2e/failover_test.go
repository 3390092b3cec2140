package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// When all instances of a service die, those of another one, with an identity of
// its own, answer in their place, and no client loses a request; when they are
// there again, they have them back.
func TestFailover(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.instances(2, echo, nil)
	standby, at := m.inbound("standby", serve(t, named("standby-1", echo("standby-1"))), nil)
	standby.ready()
	all := addresses(list)
	all["standby"] = []string{at}
	m.catalog(all)
	web, call := m.outbound("web", "api", sections{"policies": `
  api: {failover: [standby], retry: {attempts: 3}, outlier: {max_ejected_percent: 100, keep_endpoints: 0, consecutive_local_failures: 2, base_ejection: 500ms, max_ejection: 500ms}}
`})
	web.ready()
	l := startLoad(t, "http://"+call+"/", loadOptions{Workers: 4})
	l.more(t, 60)
	if n := l.answered("standby-1"); n != 0 {
		t.Fatalf("standby has answered %d requests while api is well", n)
	}

	for _, in := range list {
		in.kill()
	}
	eventually(t, patience, "standby answers", func() (bool, string) { return l.answered("standby-1") > 100, "" })
	admin := strings.TrimPrefix(web.admin, "http://")
	eventually(t, patience, "explain tells of it", func() (bool, string) {
		status, body := web.get("/explain?to=api&format=json")
		return status == 200 && strings.Contains(body, `"cluster":"standby"`) || strings.Contains(body, `"cluster": "standby"`), fmt.Sprintf("%s: %d %s", admin, status, body)
	})
	if n := web.metric("outrigger_balance_failovers_total", `cluster="api"`); n == 0 {
		t.Error("no attempt was counted as failover")
	}
	rec := web.recorded("a request that standby has answered", func(r *record) bool { return r.UpstreamID == spiffe("standby") })
	if rec.Cluster != "api" || rec.Reason != "ok" {
		t.Errorf("%+v", rec)
	}

	for _, in := range list {
		in.start()
		in.ready()
	}
	back := l.answered("api-1") + l.answered("api-2")
	eventually(t, patience, "api has its requests back", func() (bool, string) {
		return l.answered("api-1")+l.answered("api-2") > back+50, ""
	})
	l.mustEnd(t, 200)
}
