package socket

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEchoThroughEpoll(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			ln, at, err := Listen(netip.MustParseAddrPort(addr))
			if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
				t.Skipf("no such address family here: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(ln)
			if at.Port() == 0 {
				t.Fatalf("no port in %s", at)
			}
			if _, err := Accept(ln); !errors.Is(err, unix.EAGAIN) {
				t.Fatalf("accept with nobody waiting: %v", err)
			}
			client, err := Dial(at)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(client)

			for _, coarse := range []bool{false, true} {
				set, err := NewEpoll()
				if err != nil {
					t.Fatal(err)
				}
				set.coarse = coarse
				if events, err := set.Wait(0); err != nil || len(events) != 0 {
					t.Fatalf("empty set: %v, %v", events, err)
				}
				if err := set.Add(ln); err != nil {
					t.Fatal(err)
				}
				if !coarse { // the connection is accepted in the first round
					if events, err := set.Wait(time.Second); err != nil || len(events) != 1 || int(events[0].Fd) != ln {
						t.Fatalf("listener: %v, %v", events, err)
					}
					server, err := Accept(ln)
					if err != nil {
						t.Fatal(err)
					}
					defer unix.Close(server)
					echo(t, set, client, server)
				}
				if err := set.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func echo(t *testing.T, set *Epoll, client, server int) {
	t.Helper()
	if err := set.Add(server); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if _, err := Read(server, buf); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("read of nothing: %v", err)
	}
	if n, err := Write(client, []byte("ping")); n != 4 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	if events, err := set.Wait(time.Second); err != nil || len(events) != 1 || int(events[0].Fd) != server {
		t.Fatalf("wait: %v, %v", events, err)
	}
	if n, err := Read(server, buf); err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if err := set.Watch(server, true); err != nil {
		t.Fatal(err)
	}
	if events, err := set.Wait(time.Second); err != nil || len(events) != 1 || events[0].Events&unix.EPOLLOUT == 0 {
		t.Fatalf("wait to write: %v, %v", events, err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:80", "[2001:db8::1]:80"} {
		a := netip.MustParseAddrPort(addr)
		if _, _, err := Listen(a); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("listen on %s: %v", addr, err)
		}
		if _, err := Dial(a); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("dial %s: %v", addr, err)
		}
	}
}

func TestDialRefused(t *testing.T) {
	ln, at, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(ln)
	if _, err := Dial(at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("dial to a closed port: %v", err)
	}
}
