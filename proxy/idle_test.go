package proxy

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
)

// idlers is how many connections are measured.
const idlers = 1000

// What an idle connection may take of the heap and of stacks, in bytes.
const (
	mostHTTP1 = 2560
	mostHTTP2 = 4 << 10
)

// A connection that has carried a request and rests holds little, and goes on
// when the next one comes.
func TestIdleConnectionsHoldLittle(t *testing.T) {
	const left = 10 // for the proxy's end
	var open []int
	t.Cleanup(func() {
		for _, fd := range open {
			_ = syscall.Close(fd)
		}
	})
	listen := address(t)
	p := run(t, fmt.Sprintf("service: {name: web, port: %d}\nadmin: {listen: \"\"}\ntelemetry: {access_log: {path: \"off\"}}\n"+
		"drain: {delay: 0s, timeout: 0s}\ninbound: {listen: \"%s\", mtls: \"off\"}\n", answering(t), listen))
	for _, c := range []struct {
		name         string
		first, again string
		most         int64
	}{
		{"HTTP/1.1", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", mostHTTP1},
		{
			"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x00\x04\x01\x00\x00\x00\x00" +
				"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x84\x86\x01\x01a",
			"\x00\x00\x06\x01\x05\x00\x00\x00\x03\x82\x84\x86\x01\x01a", mostHTTP2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			hold := func(n int) (fds []int) {
				for range n {
					fd := connectRaw(t, listen)
					fds = append(fds, fd)
					ask(t, fd, c.first)
				}
				soon(t, "all rest", func() bool { return p.resting.Len() >= len(open)+n })
				return fds
			}
			warm := hold(32)
			for _, fd := range warm {
				_ = syscall.Close(fd)
			}
			soon(t, "none is left", func() bool { return p.sweeper.Len() <= len(open)+1 })
			before := inUse()
			held := hold(idlers)
			after := inUse()
			each := (after.heap + after.stacks - before.heap - before.stacks) / idlers
			t.Logf("%d bytes each: heap %d, stacks %d", each, (after.heap-before.heap)/idlers, (after.stacks-before.stacks)/idlers)
			if each > c.most {
				t.Errorf("%d bytes for each idle connection, more than %d", each, c.most)
			}
			for _, fd := range held[left:] {
				ask(t, fd, c.again)
				_ = syscall.Close(fd)
			}
			soon(t, "the others have gone", func() bool { return p.sweeper.Len() <= len(open)+left+1 })
			open = append(open, held[:left]...)
		})
	}
}

type held struct{ heap, stacks int64 }

func inUse() held {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return held{int64(m.HeapAlloc), int64(m.StackInuse)}
}

// connectRaw opens a connection as a raw descriptor, which takes nothing of what
// is measured.
func connectRaw(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// ask sends a request and reads until the answer's end.
func ask(t *testing.T, fd int, request string) {
	t.Helper()
	if _, err := syscall.Write(fd, []byte(request)); err != nil {
		t.Fatal(err)
	}
	var b [4096]byte
	for {
		n, err := syscall.Read(fd, b[:])
		if err != nil || n == 0 {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		if b[n-1] == '.' {
			return
		}
	}
}

// answering is an application that answers every request with a few bytes.
func answering(t *testing.T) (port int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok."); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).Port
}
