package testkit

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Ports gives the ports from Low to High-1 to the tests of a package. Choose the
// range below the ports that the kernel gives to outgoing connections, so that
// none of these takes one while its owner is down, and apart from other packages'.
type Ports struct {
	Low, High int

	mu    sync.Mutex
	taken map[int]bool
}

// Free returns a port that is free on loopback, for TCP and UDP, and that no other test has been
// given.
func (r *Ports) Free(t testing.TB) int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken == nil {
		r.taken = map[int]bool{}
	}
	for range 1000 {
		p := r.Low + rand.IntN(r.High-r.Low)
		if r.taken[p] {
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
		r.taken[p] = true
		return p
	}
	t.Fatalf("no free port between %d and %d on 127.0.0.1", r.Low, r.High)
	return 0
}
