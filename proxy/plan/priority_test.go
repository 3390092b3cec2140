package plan

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

func TestPriorityOf(t *testing.T) {
	from, err := authz.Compile(authz.Config{Rules: []authz.Rule{{From: []string{"spiffe://example.org/shop"}}}})
	if err != nil {
		t.Fatal(err)
	}
	r := Route{Priority: queue.Low, Priorities: []PriorityRule{
		{Priority: queue.Critical, From: from, Match: Match{Path: Text{Kind: Prefix, Value: "/pay"}}, OnlyHTTP: true},
		{Priority: queue.High, Match: Match{Methods: []string{"PUT"}}, OnlyHTTP: true},
		{Priority: queue.Normal, From: from},
	}}
	shop, _ := mtls.ParseID("spiffe://example.org/shop")
	other, _ := mtls.ParseID("spiffe://example.org/other")
	for _, c := range []struct {
		id   mtls.ID
		head string
		want queue.Priority
	}{
		{shop, "GET /pay/1", queue.Critical},
		{shop, "GET /pay/../x", queue.Normal}, // what is the path? Not one to be first by
		{other, "GET /pay/1", queue.Low},
		{other, "PUT /pay/1", queue.High},
		{shop, "GET /", queue.Normal},
		{mtls.ID{}, "GET /", queue.Low},
	} {
		raw := []byte(c.head + " HTTP/1.1\r\nHost: a\r\n\r\n")
		var req http1.Request
		if _, err := req.Parse(raw, &http1.Limits{}); err != nil {
			t.Fatal(err)
		}
		if got := r.PriorityOf(c.id, &req, raw); got != c.want {
			t.Errorf("%s by %v: %s, want %s", c.head, c.id, got, c.want)
		}
		if !raceEnabled {
			if n := testing.AllocsPerRun(50, func() { r.PriorityOf(c.id, &req, raw) }); n != 0 {
				t.Errorf("%s: %v allocations", c.head, n)
			}
		}
	}
	if r.PriorityOfConn(shop) != queue.Normal || r.PriorityOfConn(other) != queue.Low {
		t.Error("the priorities of connections")
	}
}
