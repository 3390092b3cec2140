package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// A rate that is divided among peers is kept by all of them together, and
// follows what discovery finds of the own service.
func TestRateLimitPeers(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := serve(t, named("api", echo("api")))
	m.catalog(map[string][]string{"api": {"127.0.0.1:1", "127.0.0.2:1"}})
	limits := `{name: all, rate: {requests: 12, per: 1h}, scope: peers, min_peers: 2, tell: always}, {name: own, rate: {requests: 1000}}`
	var sides [2]*sidecar
	var calls [2]string
	for i := range sides {
		listen := freeAddress(t)
		sides[i], _ = m.inbound("api", app, sections{
			"inbound":   fmt.Sprintf(`{listen: "%s", mtls: "off", rate_limits: [%s]}`, listen, limits),
			"discovery": m.discovery(),
		})
		sides[i].ready()
		calls[i] = "http://" + listen
	}
	shares := func(i, want int) {
		t.Helper()
		eventually(t, patience, fmt.Sprintf("the rate is in %d shares", want), func() (bool, string) {
			var v []struct{ Shares int }
			sides[i].view("/rate-limits", &v)
			return len(v) == 2 && v[0].Shares == want && v[1].Shares == 1, fmt.Sprint(v)
		})
	}
	passed := func(i, asked int) (n int) {
		t.Helper()
		for range asked {
			if res, _ := fetch(t, http.MethodGet, calls[i]+"/", nil); res.StatusCode == 200 {
				n++
			} else if res.StatusCode != 429 {
				t.Fatalf("status %d", res.StatusCode)
			}
		}
		return n
	}
	shares(0, 2)
	shares(1, 2)
	if a, b := passed(0, 8), passed(1, 3); a != 6 || b != 3 {
		t.Errorf("of 12 in 2 shares %d and %d passed", a, b)
	}
	sides[0].counts(2, "outrigger_rate_limit_shares", `limit="all"`)

	// Four more come: half of the second's share is left, which now is of 2.
	m.catalog(map[string][]string{"api": {"127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1", "127.0.0.4:1", "127.0.0.5:1", "127.0.0.6:1"}})
	shares(0, 6)
	shares(1, 6)
	if a, b := passed(0, 4), passed(1, 4); a != 0 || b != 1 {
		t.Errorf("of 12 in 6 shares, of which one is spent and one half so, %d and %d passed", a, b)
	}
	// All but one go: no fewer than min_peers count.
	m.catalog(map[string][]string{"api": {"127.0.0.1:1"}})
	shares(0, 2)
	sides[0].says("rate limit divided anew", "limit=all", "shares=2", "before=6", "alive=1")
}
