package listener

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// trap is an intercepting listener, to which every address of 127.0.0.0/8 leads
// on its port, and one without a socket behind it.
type trap struct {
	*rig
	in     *Listener
	m      *telemetry.Listener
	i      plan.Interception
	port   uint16
	behind *plan.Listener
}

// newTrap starts both. change is made to what the trap is told first.
func newTrap(t *testing.T, change func(*plan.Interception)) *trap {
	t.Helper()
	r := start(t, func(l *plan.Listener) { l.Address, l.Security, l.Direction = "", plan.Plaintext, telemetry.Outbound })
	tr := &trap{rig: r, behind: r.l.Plan(), i: plan.Interception{Socket: true}}
	tr.behind.Index = 0
	metrics, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tr.m = metrics.Listener(telemetry.Outbound, "intercept")
	if tr.in, err = Bind(&plan.Listener{Name: "intercept", Address: "0.0.0.0:0", Intercept: &tr.i, Metrics: tr.m}, r.l.srv, r.l.log); err != nil {
		t.Fatal(err)
	}
	tr.port = tr.in.bound.Port()
	tr.i.Add(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), 0), tr.behind)
	if change != nil {
		change(&tr.i)
	}
	tr.direct(tr.i)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- tr.in.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return tr
}

func (tr *trap) direct(i plan.Interception) {
	tr.in.Direct(&Directory{Interception: &i, Listeners: []*Listener{tr.l}})
}

func (tr *trap) connect(ip string) net.Conn {
	tr.t.Helper()
	c, err := net.Dial("tcp4", net.JoinHostPort(ip, strconv.Itoa(int(tr.port))))
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// refused connects to ip and wants to be reset, be it at once.
func (tr *trap) refused(ip string) {
	tr.t.Helper()
	c, err := net.Dial("tcp4", net.JoinHostPort(ip, strconv.Itoa(int(tr.port))))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	gone(tr.t, c)
}

func (tr *trap) counted(k telemetry.Intercepted, n uint64) {
	tr.t.Helper()
	eventually(tr.t, func() bool { return tr.m.Intercepted(k) == n })
}

func gone(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v; want a reset", n, err)
	}
}

func TestInterceptFinds(t *testing.T) {
	tr := newTrap(t, func(i *plan.Interception) { i.Own = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.9:1")} })
	c := tr.connect("127.0.0.5")
	echoes(t, c, "hello")
	tr.counted(telemetry.InterceptedVirtual, 1)
	if s := tr.l.States(10); len(s) != 1 || s[0].Peer.Original != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), tr.port) {
		t.Errorf("the connection is known as %+v", s)
	}
	tr.refused("127.0.0.6")
	tr.counted(telemetry.InterceptedRefused, 1)

	tr.i.Own = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.6"), tr.port)}
	tr.direct(tr.i)
	tr.refused("127.0.0.6")
	tr.counted(telemetry.InterceptedLoop, 1)

	// Other addresses from now on; what is open stays.
	next := plan.Interception{Socket: true}
	next.Add(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), tr.port), tr.behind)
	tr.direct(next)
	echoes(t, tr.connect("127.0.0.7"), "there")
	tr.refused("127.0.0.5")
	echoes(t, c, "still here")
}

// A connection that waits for the first plan is handed on with it.
func TestInterceptHolds(t *testing.T) {
	tr := newTrap(t, func(i *plan.Interception) { i.Unready, i.MaxHeld, i.HoldTime = true, 2, patience })
	held := []net.Conn{tr.connect("127.0.0.5"), tr.connect("127.0.0.6")}
	eventually(t, func() bool { return tr.m.Held.Value() == 2 })
	tr.refused("127.0.0.5")
	tr.counted(telemetry.HoldFull, 1)
	ready := plan.Interception{Socket: true}
	ready.Add(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), 0), tr.behind)
	tr.direct(ready)
	echoes(t, held[0], "at last")
	gone(t, held[1])
	tr.counted(telemetry.InterceptedVirtual, 1)
	tr.counted(telemetry.InterceptedRefused, 1)
	echoes(t, tr.connect("127.0.0.5"), "at once")
}

func TestInterceptHoldEnds(t *testing.T) {
	tr := newTrap(t, func(i *plan.Interception) { i.Unready, i.MaxHeld, i.HoldTime = true, 2, time.Millisecond })
	tr.refused("127.0.0.5")
	tr.counted(telemetry.HoldExpired, 1)

	tr = newTrap(t, func(i *plan.Interception) { i.Unready, i.MaxHeld, i.HoldTime = true, 2, patience })
	c := tr.connect("127.0.0.5")
	eventually(t, func() bool { return tr.m.Held.Value() == 1 })
	tr.in.Stop()
	gone(t, c)
	tr.counted(telemetry.EarlyRefused, 1)
}

func TestInterceptEarly(t *testing.T) {
	tr := newTrap(t, func(i *plan.Interception) { i.Unready, i.Early = true, plan.EarlyRefuse })
	tr.refused("127.0.0.5")
	tr.counted(telemetry.EarlyRefused, 1)
	tr = newTrap(t, func(i *plan.Interception) { i.Unready, i.Early = true, plan.EarlyAllow })
	tr.i.Unknown = tr.behind
	tr.direct(tr.i)
	echoes(t, tr.connect("127.0.0.77"), "through")
	tr.counted(telemetry.EarlyPassthrough, 1)
}

// A listener that has stopped, or has enough, takes nothing.
func TestInterceptHandsToNobody(t *testing.T) {
	tr := newTrap(t, nil)
	tr.l.Stop()
	tr.refused("127.0.0.5")
	eventually(t, func() bool { return tr.m.Refused.Value() == 1 })
}

// Finding out where a connection goes adds no allocation to accepting it.
func TestInterceptAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	tr := newTrap(t, nil)
	c := tr.connect("127.0.0.5")
	echoes(t, c, "x")
	l := tr.l.snapshot()[0]
	peer := l.wire.RemoteAddr()
	tr.in.originals.Of(l.wire, peer) // makes what it keeps
	if n := testing.AllocsPerRun(100, func() { tr.in.originals.Of(l.wire, peer) }); n != 0 {
		t.Errorf("asking for the destination makes %v allocations", n)
	}
}
