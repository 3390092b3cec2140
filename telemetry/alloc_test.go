package telemetry

import (
	"io"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// These run for each exchange, so none of them may allocate.
func TestHotPathDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("not under the race detector")
	}
	m := newMetrics(t, 0)
	l, c, e, d := m.Listener(Inbound, "public"), m.Cluster("api", Outbound), m.Endpoint("api", "10.0.0.1:80"), m.Discovery("api")
	al, err := NewAccessLog(AccessLogConfig{Sink: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	r := fullRecord()
	for range 2 { // both buffers have grown
		for range 2 * flushBytes / 900 {
			al.Write(r)
		}
		if err := al.flush(); err != nil {
			t.Fatal(err)
		}
	}
	header := []byte("00-" + specTrace + "-" + specSpan + "-01")
	dst := make([]byte, 0, 64)
	tr, err := NewTracer(TracerConfig{Endpoint: "http://127.0.0.1:4317"})
	if err != nil {
		t.Fatal(err)
	}
	unsampled := fullRecord()
	unsampled.Trace.Flags = 0
	method := []byte("/package.Service/Method")
	var ok bool
	var tc TraceContext
	for name, f := range map[string]func(){
		"Listener": func() {
			l.Connections.Inc()
			l.Active.Inc()
			l.BytesIn.Add(10)
			l.Active.Dec()
			l.HandshakeFailed(HandshakeExpired)
		},
		"Cluster": func() {
			c.Begin(3)
			c.Finish(3, outcome.OK, 200, time.Millisecond)
			c.Begin(3)
			c.Finish(3, outcome.UpstreamReset, 503, time.Hour)
			c.Retried(outcome.ConnectFailed)
			c.RetryWithheld(RetryBudgetSpent)
			c.Limited(LimitPending)
			c.WouldHave(WouldEject)
			c.ConnectFailed(outcome.ConnectTimeout)
		},
		"Cluster.Call": func() {
			c.Call(3, method, 0, true, time.Millisecond)
			c.Call(3, method[:3], 14, false, time.Millisecond)
		},
		"Endpoint":           func() { e.Attempt(ResultFailure); e.Ejections.Inc() },
		"Discovery":          func() { d.Updates.Inc(); d.Errors.Inc() },
		"Process":            func() { m.Process().Reloaded(testStart, true) },
		"AccessLog.Write":    func() { al.Write(r) },
		"ParseTraceparent":   func() { tc, ok = ParseTraceparent(header) },
		"AppendTraceparent":  func() { dst = AppendTraceparent(dst[:0], tc) },
		"AppendRequestID":    func() { dst = AppendRequestID(dst[:0], 1, 2) },
		"Tracer.Start":       func() { tc = tr.Child(tr.Start(TraceContext{}, 1, 2, 3), 4) },
		"Export, no sample":  func() { tr.Export(unsampled) },
		"Record.Reset":       func() { unsampled.Reset() },
		"Record.AddAttempt":  func() { unsampled.AddAttempt(Attempt{}) },
		"Distribution, read": func() { d := c.Totals().Durations; _ = d.Quantile(0.99) },
	} {
		// Few enough that the log's buffer does not grow again.
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if !ok || len(dst) == 0 {
		t.Error("nothing was measured")
	}
}

func BenchmarkClusterFinish(b *testing.B) {
	m := newMetrics(b, 0)
	c := m.Cluster("api", Outbound)
	b.ReportAllocs()
	for b.Loop() {
		c.Begin(1)
		c.Finish(1, outcome.OK, 200, 3*time.Millisecond)
	}
}

func BenchmarkAccessLogWrite(b *testing.B) {
	l, err := NewAccessLog(AccessLogConfig{Sink: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	r := fullRecord()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if l.Write(r); i%64 == 0 {
			if err := l.flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
