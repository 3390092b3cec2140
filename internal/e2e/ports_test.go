package e2e

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

var ports struct {
	mu    sync.Mutex
	taken map[int]bool
}

// freePort returns a port that is free on loopback and that no other test has
// been given. It lies below those that the kernel gives to outgoing
// connections, so that none of these takes it while its owner is down.
func freePort(t *testing.T) int {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.taken == nil {
		ports.taken = map[int]bool{}
	}
	for range 1000 {
		p := 12000 + rand.IntN(8000)
		if ports.taken[p] {
			continue
		}
		l, err := net.Listen("tcp", loopback(p))
		if err != nil {
			continue
		}
		_ = l.Close()
		ports.taken[p] = true
		return p
	}
	t.Fatal("no free port between 12000 and 20000 on 127.0.0.1")
	return 0
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// freeAddress returns a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	return loopback(freePort(t))
}
