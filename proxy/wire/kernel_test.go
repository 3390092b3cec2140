package wire

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

const tcpEstablished = 1 // TCP_ESTABLISHED in the kernel's numbering

// tcpState returns the kernel's state of the socket.
func tcpState(c *Conn) (state uint8) {
	_ = c.raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state
}

// unread returns how many bytes wait in the socket.
func unread(c *Conn) (n int) {
	_ = c.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return n
}

// eventually waits for something that another goroutine or the kernel does.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, "it comes to pass", ok)
}
