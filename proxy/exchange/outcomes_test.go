package exchange

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// What is logged of an exchange is its record with what the retry policy said of
// each attempt.
func TestOutcomeOfARecord(t *testing.T) {
	cfg := outcomes.Default()
	cfg.Path = filepath.Join(t.TempDir(), "outcomes")
	log, err := outcomes.New(outcomes.Options{Config: cfg, Log: slog.Default(), Now: func() time.Duration { return time.Second }})
	if err != nil {
		t.Fatal(err)
	}
	rec := telemetry.Record{Status: 200, Duration: 9 * time.Millisecond}
	rec.AddAttempt(telemetry.Attempt{Endpoint: "10.0.0.1:80", Reason: outcome.ConnectFailed, Duration: time.Millisecond})
	rec.AddAttempt(telemetry.Attempt{Endpoint: "10.0.0.2:80", Status: 200, Offset: 5 * time.Millisecond, Duration: 3 * time.Millisecond, Sent: time.Microsecond, First: time.Millisecond})
	var n notes
	n.answers.note(1, retry.Decision{Again: true, Wait: 4 * time.Millisecond, Why: retry.Again})
	n.called(time.Second)
	n.called(2 * time.Second)
	if n.caller != time.Second {
		t.Errorf("of two deadlines the caller's is %s", n.caller)
	}
	o := outcomes.Exchange{At: time.Second, Method: "GET"}
	var tried upstream.Tried
	n.log(log, &o, &rec, telemetry.Inbound, nil, &tried)
	if err := log.Configure(outcomes.Config{}); err != nil { // writes what waits and closes
		t.Fatal(err)
	}
	b, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := outcomes.NewReader(b).Read()
	if err != nil {
		t.Fatal(err)
	}
	x, a := r.Exchange, r.Attempts
	if x.Marks != outcomes.Inbound || x.Attempts != 2 || x.Duration != rec.Duration || x.Method != "GET" || len(a) != 2 {
		t.Fatalf("%+v %+v", x, a)
	}
	if a[0].Marks != outcomes.Asked || a[0].Why != retry.Again || a[0].Wait != 4*time.Millisecond || a[0].Reason != outcome.ConnectFailed {
		t.Errorf("%+v", a[0])
	}
	if want := (outcomes.Attempt{Endpoint: "10.0.0.2:80", Status: 200, Offset: 5 * time.Millisecond, Duration: 3 * time.Millisecond, Sent: time.Microsecond, First: time.Millisecond}); a[1] != want {
		t.Errorf("%+v, want %+v", a[1], want)
	}
	if a[1].RTT() != time.Millisecond-time.Microsecond || a[0].RTT() != time.Millisecond {
		t.Errorf("round trips %s and %s", a[0].RTT(), a[1].RTT())
	}
}
