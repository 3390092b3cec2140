package plan

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// TestString compares the canonical text of a plan with everything on and one
// with everything off.
func TestString(t *testing.T) {
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := upstream.NewRegistry(context.Background(), wire.NewSweeper(time.Now()), m, slog.New(slog.DiscardHandler))
	re, ou, br := retry.Default(), outlier.Default(), breaker.Default()
	full := r.Acquire(upstream.Spec{
		Name: "api", Protocol: "http", Transport: "mtls 1.3 spiffe://mesh.test/api",
		Policy: upstream.Policy{
			Timeout: 2 * time.Second, ConnectTimeout: time.Second, StreamIdle: 5 * time.Minute, Keepalive: time.Minute, TCPIdle: time.Hour,
			Retry: &re, Outlier: &ou, Breaker: &br, Limits: limit.Default(), Balance: balance.Default(),
		},
	}, telemetry.Outbound)
	bare := r.Acquire(upstream.Spec{
		Name: "web", Protocol: "tcp", Transport: "plaintext", Local: true, Policy: upstream.Policy{ConnectTimeout: time.Second},
	}, telemetry.Inbound)
	canary := r.Acquire(upstream.Spec{Name: "canary", Protocol: "http", Transport: "plaintext", Policy: upstream.Policy{ConnectTimeout: time.Second}}, telemetry.Outbound)
	short := full.Policy()
	table := shop()
	for i, route := range table.routes {
		route.Cluster = full
		switch i {
		case 0:
			route.Cluster, route.Policy = canary, &upstream.Policy{Timeout: time.Second}
			route.Rewrite = Rewrite{On: true, Cut: -1, To: "/new"}
		case 1:
			route.Split = []Share{
				{Below: 9950, Route: &Route{Cluster: full}},
				{Below: Parts, Route: &Route{Cluster: canary, Request: NewEdits([]FieldLine{{"x-canary", "1"}}, nil, nil)}},
			}
		case 2:
			route.Reply = &Reply{Status: 403, Body: []byte("no")}
			route.Response = NewEdits(nil, []FieldLine{{"x-why", "closed"}}, []string{"server"})
		case 4:
			route.Rewrite = Rewrite{On: true, Cut: 5, To: "/"}
			route.Policy = &upstream.Policy{StreamIdle: time.Minute, Retry: short.Retry}
		}
	}
	table.last.Refuse = outcome.NoRoute
	p := &Plan{Version: 7, Clusters: []*upstream.Cluster{full, canary, bare}, Listeners: []*Listener{
		{
			Name: "inbound", Address: "0.0.0.0:15006", Direction: telemetry.Inbound, Protocol: TCP, Security: Strict,
			HandshakeTimeout: 5 * time.Second, MaxHandshakes: 64, Route: Route{Name: "inbound", Cluster: bare},
		},
		{
			Name: "outbound:api", Address: "127.0.0.1:9001", Direction: telemetry.Outbound, Protocol: HTTP,
			HTTP:  HTTPOptions{Limits: http1.Limits{HeadBytes: 61440, Fields: 100}, HeadTimeout: 10 * time.Second},
			Route: Route{Name: "api", Cluster: full}, Routes: table,
		},
	}}
	got := p.String()
	path := filepath.Join("testdata", "plan.golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again := p.String(); again != got {
		t.Errorf("the text changes:\n%s", again)
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		HTTP.String(): "http", TCP.String(): "tcp",
		Plaintext.String(): "plaintext", Strict.String(): "strict", Permissive.String(): "permissive",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
