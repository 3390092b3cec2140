package testkit

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
)

// Ports gives the ports from Low to High-1 to tests. Choose the range below the
// ports that the kernel gives to outgoing connections, so that none of these takes
// one while its owner is down.
type Ports struct {
	Low, High int

	mu    sync.Mutex
	taken map[int]net.Listener // what keeps it
}

// Free returns a port that is free on loopback, for TCP and UDP, and that no other
// test has been given, of this process or of one that runs at the same time.
func (r *Ports) Free(t testing.TB) int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken == nil {
		r.taken = map[int]net.Listener{}
	}
	for range 1000 {
		p := r.Low + rand.IntN(r.High-r.Low)
		if r.taken[p] != nil {
			continue
		}
		address := "127.0.0.1:" + strconv.Itoa(p)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", address)
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = u.Close()
		// A name that one process of the machine can have; it ends with the process.
		mine, err := net.Listen("unix", "@outrigger-test-port-"+strconv.Itoa(p))
		if err != nil {
			continue
		}
		r.taken[p] = mine
		return p
	}
	t.Fatalf("no free port between %d and %d on 127.0.0.1", r.Low, r.High)
	return 0
}

// Nobody returns an address of loopback on which nobody listens, another one for each
// of 0 to 5, and from which nobody calls: one that was free a moment ago may be the
// next that the kernel gives to somebody.
func Nobody(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(1+n))
}
