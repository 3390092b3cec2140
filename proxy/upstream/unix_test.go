package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// unixServer listens at path until the test ends.
func unixServer(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.(*net.UnixListener)
}

// An endpoint may be a Unix socket: its connections are kept as others are, and
// another path, or an address, is another endpoint.
func TestUnixEndpoint(t *testing.T) {
	b, dir := newBed(t), t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	unixServer(t, one)
	c := b.r.Acquire(spec(func(s *Spec) { s.Local = true; s.Policy.ConnectTimeout = 20 * time.Second }), telemetry.Inbound)
	local := func(s EndpointSpec) *Endpoint {
		s.Weight, s.Healthy = 1, true
		c.SetLocal([]EndpointSpec{s})
		e := c.Pick(b.sw.Now(), &Wish{}, &Tried{})
		if e == nil {
			t.Fatal("there is no endpoint")
		}
		return e
	}
	e := local(EndpointSpec{Socket: one})
	if e.Address() != "unix:"+one || e.AddrPort().IsValid() {
		t.Errorf("address %s, %s", e.Address(), e.AddrPort())
	}
	conn := b.get(e, Want{})
	e.Put(conn, b.sw.Now())
	if again := b.get(e, Want{}); again != conn {
		t.Error("the connection was not kept")
	}
	e.Drop(conn)
	if local(EndpointSpec{Socket: one}) != e {
		t.Error("the same path is another endpoint")
	}
	missing := local(EndpointSpec{Socket: two})
	if missing == e {
		t.Fatal("another path is the same endpoint")
	}
	if _, oe := missing.Get(Want{Now: b.sw.Now()}); oe == nil || oe.Reason != outcome.ConnectFailed || !errors.Is(oe.Err, syscall.ENOENT) {
		t.Errorf("a missing socket: %v", oe)
	}
	if e := local(EndpointSpec{Address: b.server()}); e.Address() == "unix:"+two {
		t.Error("an address is the same endpoint as a path")
	} else {
		e.Drop(b.get(e, Want{}))
	}
	b.wantConnections(c, 0, 0)
}

// Where the queue of a socket is full, a connection waits for a place in it, but
// not longer than it may.
func TestUnixQueueFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	ln, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for {
		c, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if held = append(held, c); len(held) > 100 {
			t.Fatal("the queue takes all")
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := dialUnix(ended, new(net.Dialer), path); err == nil {
		_ = c.Close()
		t.Error("there was a place in a full queue")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan error, 1)
	go func() {
		c, err := dialUnix(ctx, new(net.Dialer), path)
		if err == nil {
			_ = c.Close()
		}
		got <- err
	}()
	for range held {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	if err := <-got; err != nil {
		t.Errorf("there is room by now: %v", err)
	}
}
