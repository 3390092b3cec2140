package exchange_test

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// TestConnectionAge: connections on both sides are replaced by and by; no call is
// lost, and one that takes longer goes on.
func TestConnectionAge(t *testing.T) {
	held := make(chan bool)
	p := newPair(t, legs{true, true}, func(s *setup) {
		s.policy.MaxAge, s.http.MaxAge = 100*time.Millisecond, 100*time.Millisecond
	}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			_, _ = io.WriteString(w, "first")
			_ = http.NewResponseController(w).Flush()
			<-held
		}
		_, _ = io.WriteString(w, "last")
	}, nil)
	long, err := p.ask(t, "GET", "/held", nil)
	if err != nil {
		t.Fatal(err)
	}
	sessions := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.sessions)
	}
	calls := 0
	until := time.Now().Add(patience)
	for p.cluster.Metrics().UpstreamConnections.Value() < 4 || sessions() < 4 {
		if time.Now().After(until) {
			t.Fatalf("%d connections from downstream, %d to upstream", sessions(), p.cluster.Metrics().UpstreamConnections.Value())
		}
		if res, got := p.must(t, "POST", "/", nil); res.StatusCode != 200 || got != "last" {
			t.Fatalf("call %d: status %d, %q", calls, res.StatusCode, got)
		}
		calls++
	}
	close(held)
	if b, err := io.ReadAll(long.Body); err != nil || string(b) != "firstlast" {
		t.Errorf("the long call: %q, %v", b, err)
	}
	long.Body.Close()
	for _, r := range p.records() {
		if r.Reason != "ok" {
			t.Errorf("%+v", r)
		}
	}
}
