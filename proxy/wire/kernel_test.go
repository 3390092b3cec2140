package wire

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	for stop := time.Now().Add(patience); !ok(); {
		if time.Now().After(stop) {
			t.Fatal("it did not come to pass")
		}
		time.Sleep(100 * time.Microsecond)
	}
}
