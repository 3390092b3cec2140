package listener

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
)

// live opens many connections of two callers in turn, and says hello on each.
func live(t *testing.T, r *rig, many int, hello func(*tls.Conn) error) []*tls.Conn {
	t.Helper()
	certs := []tls.Certificate{authority().Issue(callerID, nil), authority().Issue("spiffe://test.example/other", nil)}
	list := make([]*tls.Conn, many)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < many; i += 8 {
				raw, err := net.Dial("tcp", r.l.Address().String())
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { _ = raw.Close() })
				_ = raw.SetDeadline(time.Now().Add(5 * time.Minute))
				list[i] = tls.Client(raw, clientTLS(certs[i%2]))
				if err := hello(list[i]); err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return list
}

// TestRulesHoldForAThousandLiveConnections: those whom new rules refuse are
// ended, all of them and nobody else; how long it took is told and not judged.
func TestRulesHoldForAThousandLiveConnections(t *testing.T) {
	const many = 1000
	r := start(t, func(p *plan.Listener) { p.Route.Authz = policy(t, "*") })
	echo := func(c *tls.Conn) error {
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 5))
		return err
	}
	list := live(t, r, many, echo)
	begin := time.Now()
	r.change(func(p *plan.Listener) { p.Route.Authz = policy(t, callerID) })
	if n := r.l.Recheck(); n != many/2 {
		t.Errorf("%d were ended, want %d", n, many/2)
	}
	for i, c := range list {
		if i%2 == 1 {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Fatalf("connection %d goes on", i)
			}
		}
	}
	t.Logf("%d of %d connections were ended and seen to be in %s", many/2, many, time.Since(begin))
	for i := 0; i < many; i += 2 {
		if err := echo(list[i]); err != nil {
			t.Fatalf("connection %d, which is allowed: %v", i, err)
		}
	}
}

// Kept connections of HTTP/1.1 stay, and their next request is decided by the new
// rules, back and forth.
func TestRulesHoldForKeptConnections(t *testing.T) {
	const many = 200
	r := start(t, func(p *plan.Listener) {
		p.Protocol, p.Route.Authz = plan.HTTP, policy(t, callerID)
		p.Route.Reply = &plan.Reply{Status: http.StatusNoContent, Reason: "No Content"}
	})
	status := func(c *tls.Conn) (int, error) {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return 0, err
		}
		a, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, a.Body)
		return a.StatusCode, err
	}
	list := live(t, r, many, func(c *tls.Conn) error { _, err := status(c); return err })
	for round, allowed := range []string{"spiffe://test.example/other", callerID} {
		r.change(func(p *plan.Listener) { p.Route.Authz = policy(t, allowed) })
		if n := r.l.Recheck(); n != 0 {
			t.Errorf("round %d: %d idle connections were ended", round, n)
		}
		for i, c := range list {
			want := http.StatusForbidden
			if (i%2 == 1) == (round == 0) {
				want = http.StatusNoContent
			}
			if got, err := status(c); got != want || err != nil {
				t.Fatalf("round %d, connection %d: %d, %v; want %d", round, i, got, err, want)
			}
		}
	}
}
