package intercept

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// probeTo are addresses that are nobody's (RFC 5737, RFC 3849): a connection
// to one can only succeed where it is brought to the proxy.
var probeTo = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8::1]:80")}

// Probe is what came of one connection that was made to see whether it arrives
// at the proxy.
type Probe struct {
	To      netip.AddrPort `json:"to"`
	UID     uint32         `json:"uid"` // by whom
	OK      bool           `json:"ok"`
	Skipped bool           `json:"skipped,omitempty"` // there was nothing to be found out
	// Words tell what was seen.
	Words string `json:"words"`
}

// Probe makes a connection for IPv4 and IPv6 to an address that is nobody's.
// Where nobody listens on the proxy's port it listens there itself for the
// moment, and looks at the original destination; else it sees by the rules'
// counters and the handshake that the proxy has it.
func (h *Host) Probe(ctx context.Context, c Config) ([]Probe, error) {
	uid, ok := foreignUser(c)
	if !ok {
		return nil, errors.New("every user is exempt from the rules: there is nobody to make a connection as")
	}
	listens, err := h.ns.Listeners()
	if err != nil {
		return nil, err
	}
	var list []Probe
	for _, to := range probeTo {
		p := Probe{To: to, UID: uid}
		a, err := h.Explain(c.Table, Question{Proto: "tcp", To: to, UID: uid, GID: uint32(os.Getgid())})
		if err != nil {
			return nil, err
		}
		want := netip.AddrPortFrom(loopback(to.Addr()), c.OutboundPort)
		switch {
		case a.Trace.Fate != Dropped && (a.Trace.Fate != Redirected || a.Trace.To != want):
			p.Skipped, p.Words = true, "not sent: by the rules it "+a.Verdict
		default:
			if p.Words, err = h.probe(ctx, c, to, want, uid, listens(want)); err == nil {
				p.OK = true
			} else if p.Words = err.Error(); errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
				p.Skipped, p.Words = true, "not sent: this network namespace has no route for it ("+err.Error()+")"
			}
		}
		list = append(list, p)
	}
	return list, nil
}

// foreignUser returns a user whom the rules concern: this one, or one that can
// be taken on.
func foreignUser(c Config) (uint32, bool) {
	in := func(list []Range, id uint32) bool {
		for _, r := range list {
			if r.Lo <= id && id <= r.Hi {
				return true
			}
		}
		return false
	}
	candidates := []uint32{uint32(os.Getuid())}
	if os.Getuid() == 0 {
		for _, r := range c.IncludeUIDs {
			candidates = append(candidates, r.Lo, r.Hi)
		}
		candidates = append(candidates, 65534, 1000, 10001, 4242)
	}
	for _, id := range candidates {
		if !in(c.ProxyUIDs, id) && !in(c.ExcludeUIDs, id) && (len(c.IncludeUIDs) == 0 || in(c.IncludeUIDs, id)) {
			return id, true
		}
	}
	return 0, false
}

// probe makes one connection and says what shows that it came to want.
func (h *Host) probe(ctx context.Context, c Config, to, want netip.AddrPort, uid uint32, proxyThere bool) (string, error) {
	before, err := h.met(c.Table)
	if err != nil {
		return "", err
	}
	var ln net.Listener
	if !proxyThere {
		err := h.ns.Do(func() (err error) {
			ln, err = net.Listen("tcp", want.String())
			return err
		})
		if err != nil {
			return "", fmt.Errorf("nobody listens on %s, and listening there for the probe failed: %w", want, err)
		}
		defer func() { _ = ln.Close() }()
	}
	var conn net.Conn
	err = h.ns.as(uid, func() (err error) {
		d := net.Dialer{Timeout: probeTime}
		conn, err = d.DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if ln == nil {
		after, err := h.met(c.Table)
		if err != nil {
			return "", err
		}
		if after <= before {
			return "", fmt.Errorf("a connection to %s was made, but no rule of ours has seen it: somebody else brings it elsewhere", to)
		}
		return fmt.Sprintf("arrived at the proxy's port %d: the connection to an address that is nobody's was accepted, and the rule has counted it", want.Port()), nil
	}
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(probeTime))
	got, err := ln.Accept()
	if err != nil {
		return "", fmt.Errorf("the connection did not arrive at port %d: %w", want.Port(), err)
	}
	defer func() { _ = got.Close() }()
	orig, err := OriginalDst(got.(*net.TCPConn))
	if err != nil {
		return "", err
	}
	if orig != to {
		return "", fmt.Errorf("the connection to %s arrived at port %d with the original destination %s: another rule has changed it", to, want.Port(), orig)
	}
	return fmt.Sprintf("arrived at port %d with its original destination (nobody listens there now: the probe did)", want.Port()), nil
}

// probeTime bounds a probe: long enough for a held packet to be sent again.
const probeTime = 5 * time.Second

// met is how many packets our redirection has met.
func (h *Host) met(name string) (n uint64, err error) {
	all, err := h.k.all()
	if err != nil {
		return 0, h.explain(err)
	}
	tables, _ := find(all, name)
	for _, t := range tables {
		if c := t.Chain(chainToOutbound); c != nil {
			for _, r := range c.Rules {
				n += r.Packets
			}
		}
	}
	return n, nil
}

// OriginalDst returns where a connection that was redirected was meant to go,
// from conntrack.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	four := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is4()
	var to netip.AddrPort
	var failed error
	err = raw.Control(func(fd uintptr) {
		if four { // the first 16 of 20 bytes are a sockaddr_in
			var v *unix.IPv6Mreq
			if v, failed = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); failed == nil {
				to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(v.Multiaddr[4:8])), binary.BigEndian.Uint16(v.Multiaddr[2:4]))
			}
			return
		}
		var v *unix.IPv6MTUInfo // begins with a sockaddr_in6
		if v, failed = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, unix.SO_ORIGINAL_DST); failed == nil {
			port := binary.NativeEndian.AppendUint16(nil, v.Addr.Port)
			to = netip.AddrPortFrom(netip.AddrFrom16(v.Addr.Addr), binary.BigEndian.Uint16(port))
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("the original destination is not known (not redirected, or not tracked: look for notrack rules): %w", err)
	}
	return to, nil
}

// as runs f inside the namespace, with another user's id for files, and with
// that for sockets.
func (n *Namespace) as(uid uint32, f func() error) error {
	if int(uid) == os.Getuid() {
		return n.Do(f)
	}
	return n.Do(func() error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before, err := unix.SetfsuidRetUid(int(uid))
		if err != nil {
			return fmt.Errorf("taking on user %d: %w", uid, err)
		}
		defer func() { _, _ = unix.SetfsuidRetUid(before) }()
		if now, err := unix.SetfsuidRetUid(-1); err != nil || now != int(uid) {
			return fmt.Errorf("taking on user %d needs the capability CAP_SETUID", uid)
		}
		return f()
	})
}
