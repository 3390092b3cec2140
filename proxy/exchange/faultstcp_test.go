package exchange_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// greeter says who it is and sends back what comes, to its end.
func greeter(c *originConn) {
	c.send("hello ")
	_, _ = io.Copy(c.Conn, c.br)
}

// firstBytes is what comes on a connection. It may be reset before it stands.
func (b *bed) firstBytes() (got string, reset bool) {
	b.t.Helper()
	if b.mode == mtlsDown {
		return b.dial().rest()
	}
	sock, err := net.Dial("tcp", b.ln.Addr().String())
	if err != nil {
		return "", errors.Is(err, syscall.ECONNRESET)
	}
	defer sock.Close()
	_ = sock.SetDeadline(time.Now().Add(patience))
	p, err := io.ReadAll(sock)
	return string(p), errors.Is(err, syscall.ECONNRESET)
}

// A TCP connection is held, and then carried as if nothing had been.
func TestFaultTCPDelay(t *testing.T) {
	const delay = 30 * time.Millisecond
	run(t, allModes, func(s *setup) { s.tcp = true }, func(t *testing.T, b *bed) {
		b.start(greeter)
		b.fail(func(f *plan.Fault) { f.Name, f.Config.Delay = "slow", delay.String() })
		c := b.dial()
		c.send("there")
		c.expect("hello there")
		_ = c.Close()
		if r := b.wantEnds("ok")[0]; r.Fault != "slow" || r.Protocol != "tcp" {
			t.Errorf("%+v", r)
		}
		if e := b.server.Ledger.Last(1, false)[0]; e.Duration < delay || !strings.HasPrefix(e.Attempts[0].Fault, "slow: held for ") {
			t.Errorf("%+v", e)
		}
	})
}

// A reset is one for the caller too; an abort, which takes an answer, is nothing.
func TestFaultTCPReset(t *testing.T) {
	run(t, allModes, func(s *setup) { s.tcp, s.policy.Retry = true, retrying(3) }, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) { c.stall() })
		b.fail(func(f *plan.Fault) { f.Name, f.Config.Reset = "cut", true })
		if got, reset := b.firstBytes(); got != "" || !reset {
			t.Errorf("read %q, reset %v", got, reset)
		}
		if r := b.wantEnds("fault_injected")[0]; r.Fault != "cut" || r.Attempts != 1 || r.Detail != "fault cut: reset" {
			t.Errorf("%+v", r)
		}
		if m := b.cluster.Metrics().FaultTotals(); m.Met != 1 || m.MetFailed != 1 || m.Ended != 1 {
			t.Errorf("%+v", m)
		}
	})
	run(t, []mode{plain}, func(s *setup) { s.tcp = true }, func(_ *testing.T, b *bed) {
		b.start(greeter)
		b.fail(func(f *plan.Fault) { f.Config.Abort = 503 })
		c := b.dial()
		c.expect("hello ")
	})
}

// At a rate all bytes arrive in both directions, and no sooner than they can.
func TestFaultTCPBandwidth(t *testing.T) {
	const size, rate = 4000, "20kB/s"
	const least = 150 * time.Millisecond // of the 200 that it takes
	for _, response := range []bool{true, false} {
		run(t, allModes, func(s *setup) { s.tcp, s.policy.TCPIdle = true, time.Minute }, func(t *testing.T, b *bed) {
			b.start(greeter)
			b.fail(func(f *plan.Fault) {
				if response {
					f.Config.ResponseRate = rate
				} else {
					f.Config.RequestRate = rate
				}
			})
			c := b.dial()
			want := string(octets(size))
			c.send(want)
			c.expect("hello " + want)
			_ = c.Close()
			b.wantEnds("ok")
			if e := b.server.Ledger.Last(1, false)[0]; e.Duration < least || e.BytesIn != size || e.BytesOut != size+6 {
				t.Errorf("%v, %d in, %d out", e.Duration, e.BytesIn, e.BytesOut)
			}
		})
	}
}

// What is held goes on when the fault ends; a connection that is ended from
// outside is not held any longer.
func TestFaultTCPEnds(t *testing.T) {
	held := func(b *bed) {
		eventually(b.t, "the connection is held", func() bool { return b.cluster.Metrics().FaultTotals().Injected[telemetry.FaultDelay] == 1 })
	}
	run(t, allModes, func(s *setup) { s.tcp = true }, func(t *testing.T, b *bed) {
		b.start(greeter)
		v := b.fail(func(f *plan.Fault) { f.Config.Delay = "1m" })
		c := b.dial()
		if b.mode == mtlsDown {
			c.send("x") // the handshake
		}
		held(b)
		if _, err := b.faults.Stop(v.Fault.Name); err != nil {
			t.Fatal(err)
		}
		c.expect("hello ")
	})
	run(t, []mode{plain}, func(s *setup) { s.tcp = true }, func(_ *testing.T, b *bed) {
		b.start(greeter)
		b.fail(func(f *plan.Fault) { f.Config.Delay = "1m" })
		b.dial()
		held(b)
		b.expireAll()
		b.kept(outcome.StreamIdle)
	})
	run(t, []mode{plain}, func(s *setup) { s.tcp = true }, func(t *testing.T, b *bed) {
		b.start(greeter)
		v := b.fail(func(f *plan.Fault) { f.Config.ResponseRate = "16B/s" })
		c := b.dial()
		want := string(octets(4000))
		c.send(want)
		c.expect("h") // a part has come
		if _, err := b.faults.Stop(v.Fault.Name); err != nil {
			t.Fatal(err)
		}
		c.expect("ello " + want)
	})
}
