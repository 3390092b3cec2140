package intercept

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// network is a pod with an application and a proxy, and a client outside, each
// in a namespace of its own; the client is also every other machine.
type network struct {
	*Host
	pod, client *testkit.NetNS
	wg          sync.WaitGroup
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	h, pod := newHost(t)
	n := &network{Host: h, pod: pod, client: testkit.NewNetNS(t)}
	t.Cleanup(n.wg.Wait)
	pod.Join(t, "eth0", []string{"10.0.0.1/24", "fd00::1/64"}, n.client, "eth0", []string{"10.0.0.2/24", "fd00::2/64"})
	for _, a := range []string{"10.0.1.1/32", "192.168.0.1/32"} {
		n.client.IP(t, "addr add "+a+" dev lo")
	}
	n.client.IP(t, "addr add fd00:1::1/128 dev lo nodad")
	pod.IP(t, "route add default via 10.0.0.2")
	pod.IP(t, "-6 route add default via fd00::2")
	return n
}

// transparent lets a socket take packets to any address.
func transparent(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) }); e != nil {
		return e
	}
	return err
}

// listen serves an address by telling each caller who serves it, where the
// connection was meant to go, and from where it comes.
func (n *network) listen(t *testing.T, ns *testkit.NetNS, who, addr string) net.Listener {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() (err error) {
		lc := net.ListenConfig{Control: transparent}
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(context.Background(), "tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	n.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			to := c.LocalAddr().(*net.TCPAddr).AddrPort()
			to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
			if orig, err := OriginalDst(c.(*net.TCPConn)); err == nil {
				to = orig
			}
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			_, _ = fmt.Fprintf(c, "%s %s %s\n", who, to, from)
			_ = c.Close()
		}
	})
	return ln
}

// answer serves UDP by telling who serves it.
func (n *network) answer(t *testing.T, ns *testkit.NetNS, who, addr string) {
	t.Helper()
	var pc net.PacketConn
	err := ns.Do(func() (err error) {
		pc, err = net.ListenPacket("udp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	n.wg.Go(func() {
		b := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte(who+"\n"), from)
		}
	})
}

// askTime is long enough for a packet that is held on a busy machine.
const askTime = 30 * time.Second

// ask connects as the packet says and returns what is told.
func (n *network) ask(p Packet) string {
	ns := n.pod
	if p.In {
		ns = n.client
	}
	var conn net.Conn
	err := ns.Do(func() (err error) {
		if _, err := unix.SetfsgidRetGid(int(p.GID)); err != nil {
			return err
		}
		if _, err := unix.SetfsuidRetUid(int(p.UID)); err != nil {
			return err
		}
		d := net.Dialer{Timeout: askTime}
		if p.In {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Src.Addr(), 0))
		}
		conn, err = d.Dial(p.Proto, p.Dst.String())
		return err
	})
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) {
		return "refused"
	}
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(askTime))
	if p.Proto == "udp" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return err.Error()
		}
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

// expected is what a packet is told when it has met its fate.
func expected(p Packet, t Trace) string {
	to := p.Dst
	switch t.Fate {
	case Refused:
		return "refused"
	case Redirected, Given:
		to = t.To
	}
	who := "app"
	switch {
	case t.Fate == Passes && !p.In && !p.Local(to.Addr()):
		who = "server"
	case to.Port() == 51:
		who = "outbound"
	case to.Port() == 55:
		who = "inbound"
	case to.Port() == 8600:
		who = "resolver"
	case t.Fate == Redirected && !p.Local(to.Addr()):
		who = "server"
	}
	if p.Proto == "udp" {
		return who
	}
	return fmt.Sprintf("%s %s", who, p.Dst)
}

// What Walk says of rules read from the kernel is what the kernel does, for
// connections of several users, to and from several addresses, by IPv4 and
// IPv6.
func TestKernelDoesWhatWalkSays(t *testing.T) {
	n := newNetwork(t)
	for port := 1; port <= 60; port++ {
		who := map[int]string{51: "outbound", 55: "inbound"}[port]
		if who == "" {
			who = "app"
		}
		n.listen(t, n.pod, who, fmt.Sprintf("[::]:%d", port))
		n.listen(t, n.client, "server", fmt.Sprintf("[::]:%d", port))
	}
	n.listen(t, n.pod, "resolver", "127.0.0.1:8600")
	n.answer(t, n.pod, "resolver", "127.0.0.1:8600")
	n.answer(t, n.client, "server", "10.0.0.2:53")
	n.answer(t, n.client, "server", "[fd00::2]:53")

	local, err := n.ns.Local()
	if err != nil {
		t.Fatal(err)
	}
	fates := map[Fate]int{}
	for seed := range uint64(12) {
		r := chance{rand.New(rand.NewPCG(seed, 2))}
		c := r.config()
		if seed%4 == 3 {
			c.Mode, c.InboundPort = TProxy, 55
		}
		if err := n.Install(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		all, err := n.k.all()
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			p := r.packet()
			p.Local, p.Listens = local, func(netip.AddrPort) bool { return true }
			if p.In { // to the pod, from the client
				i := r.IntN(3)
				p.Src = netip.AddrPortFrom(netip.MustParseAddr([]string{"10.0.0.2", "10.0.1.1", "fd00:1::1"}[i]), 0)
				p.Dst = netip.AddrPortFrom(netip.MustParseAddr([]string{"10.0.0.1", "10.0.0.1", "fd00::1"}[i]), p.Dst.Port())
				p.Proto = "tcp"
			}
			switch {
			case p.Proto == "udp" && (p.Dst.Port() != 53 || p.Dst.Addr().String() != "10.0.0.2" && p.Dst.Addr().String() != "fd00::2"):
				continue
			}
			trace := Walk(all, p)
			fates[trace.Fate]++
			want := expected(p, trace)
			if got := n.ask(p); got != want && !strings.HasPrefix(got, want+" ") {
				t.Fatalf("seed %d: in %v, %s from %s to %s, user %d, group %d: %q, but by the rules it %s %s, which is %q\n%s",
					seed, p.In, p.Proto, p.Src, p.Dst, p.UID, p.GID, got, trace.Fate, trace.To, want, lines(all))
			}
		}
	}
	for _, f := range []Fate{Passes, Redirected, Given} {
		if fates[f] < 5 {
			t.Errorf("only %d connections met the fate %q: %v", fates[f], f, fates)
		}
	}
}

func basic(t *testing.T) Config {
	t.Helper()
	c := Config{ProxyUIDs: []Range{{3, 3}}, InboundPort: 20000}
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	return c
}

func outPacket(to string) Packet {
	return Packet{Proto: "tcp", Dst: netip.MustParseAddrPort(to), UID: 1000, GID: 1000}
}

func inPacket(to string) Packet {
	p := outPacket(to)
	p.In, p.Src = true, netip.MustParseAddrPort("10.0.0.2:0")
	if p.Dst.Addr().Is6() {
		p.Src = netip.MustParseAddrPort("[fd00::2]:0")
	}
	return p
}

// Before the proxy listens connections are refused, held until it does, or let
// through, outbound and inbound, by each means.
func TestBeforeReady(t *testing.T) {
	for _, mode := range []Mode{Redirect, TProxy} {
		t.Run(string(mode), func(t *testing.T) {
			n := newNetwork(t)
			n.listen(t, n.pod, "app", "[::]:8080")
			n.listen(t, n.client, "server", "[::]:80")
			c := basic(t)
			c.Mode = mode
			if err := n.Install(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			for _, p := range []Packet{outPacket("10.0.1.1:80"), outPacket("[fd00:1::1]:80"), inPacket("10.0.0.1:8080"), inPacket("[fd00::1]:8080")} {
				if got := n.ask(p); got != "refused" {
					t.Errorf("refuse: to %s: %q", p.Dst, got)
				}
			}

			c.BeforeReady = Hold
			if err := n.Install(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			packets := []Packet{outPacket("10.0.1.1:80"), outPacket("[fd00:1::1]:80"), inPacket("10.0.0.1:8080"), inPacket("[fd00::1]:8080")}
			got := make([]string, len(packets))
			var asking sync.WaitGroup
			for i, p := range packets {
				asking.Go(func() { got[i] = n.ask(p) })
			}
			awaitDrops(t, n.Host, c, 4)
			var lns []net.Listener
			for _, a := range []string{"127.0.0.1:15001", "[::1]:15001"} {
				lns = append(lns, n.listen(t, n.pod, "outbound", a))
			}
			lns = append(lns, n.listen(t, n.pod, "inbound", "[::]:20000"))
			asking.Wait()
			for i, p := range packets {
				want := fmt.Sprintf("outbound %s ", p.Dst)
				if p.In {
					want = fmt.Sprintf("inbound %s %s", p.Dst, p.Src.Addr())
				}
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("hold: to %s: %q, want %q", p.Dst, got[i], want)
				}
			}
			for _, ln := range lns {
				_ = ln.Close()
			}

			// What allows until the proxy is ready has no rules until then.
			if _, err := n.Remove(c.Table); err != nil {
				t.Fatal(err)
			}
			c.BeforeReady = Allow
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := n.Install(ctx, c); err == nil || !strings.Contains(err.Error(), "nobody listens") {
				t.Errorf("allow, and nobody listens: %v", err)
			}
			if got := n.ask(outPacket("10.0.1.1:80")); !strings.HasPrefix(got, "server") {
				t.Errorf("allow: %q", got)
			}
			n.listen(t, n.pod, "outbound", "127.0.0.1:15001")
			n.listen(t, n.pod, "inbound", "[::]:20000")
			if err := n.Install(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if got := n.ask(outPacket("10.0.1.1:80")); !strings.HasPrefix(got, "outbound") {
				t.Errorf("allow, once the proxy listens: %q", got)
			}
		})
	}
}

// awaitDrops waits until n packets have been held.
func awaitDrops(t *testing.T, h *Host, c Config, n uint64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s, err := h.Status(c.Table, nil)
		if err != nil {
			t.Fatal(err)
		}
		var drops uint64
		for _, k := range s.Counters {
			if strings.HasSuffix(k.Rule, "drop") {
				drops += k.Packets
			}
		}
		if drops >= n {
			return
		}
	}
	t.Fatal("nothing is held")
}

// The proxy calls the application from its caller's address, and the answers
// come back to the proxy.
func TestSourceIsKept(t *testing.T) {
	n := newNetwork(t)
	n.listen(t, n.pod, "app", "[::]:8080")
	c := basic(t)
	c.Mode = TProxy
	if err := n.Install(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"10.0.0.1:8080": "10.0.1.1", "[fd00::1]:8080": "fd00:1::1"} {
		var line string
		err := n.pod.Do(func() error {
			_, _ = unix.SetfsuidRetUid(3)
			// A transparent socket may be bound to any address.
			d := net.Dialer{Timeout: askTime, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), Control: func(_, _ string, rc syscall.RawConn) (err error) {
				if e := rc.Control(func(fd uintptr) {
					if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); err == nil && strings.Contains(from, ":") {
						err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
					}
				}); e != nil {
					return e
				}
				return err
			}}
			conn, err := d.Dial("tcp", to)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			line, err = bufio.NewReader(conn).ReadString('\n')
			return err
		})
		if want := fmt.Sprintf("app %s %s\n", to, from); err != nil || line != want {
			t.Errorf("%q %v, want %q", line, err, want)
		}
	}
	// Without the routing rule the answers would go to the network.
	if ok, err := n.k.routed(c.Mark); !ok || err != nil {
		t.Errorf("routed: %v %v", ok, err)
	}
	if _, err := n.Remove(c.Table); err != nil {
		t.Fatal(err)
	}
	if ok, err := n.k.routed(c.Mark); ok || err != nil {
		t.Errorf("routed after removal: %v %v", ok, err)
	}
}

// tell connects from here and returns what is told.
func tell(to string) string {
	conn, err := net.DialTimeout("tcp", to, askTime)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return line
}
