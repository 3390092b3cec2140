package testkit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// NetNS is a network namespace of a test. It has no name: it and its
// interfaces are gone when its file is closed, whatever becomes of the test.
type NetNS struct{ File *os.File }

// NewNetNS makes a network namespace with lo up, or skips the test where that
// is not allowed.
func NewNetNS(t *testing.T) *NetNS {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		Missing(t, "no ip command to set up network namespaces with (package iproute2)")
	}
	n := &NetNS{}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		n.File, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if errors.Is(err, os.ErrPermission) {
		Missing(t, "no network namespace can be made, which needs root: "+err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.File.Close() })
	// Nobody else is there: addresses need no search for duplicates, which takes
	// seconds in which neighbours are not found.
	err = n.Do(func() error {
		for _, name := range []string{"default/accept_dad", "all/accept_dad", "default/dad_transmits"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name, []byte("0"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n.IP(t, "link set lo up")
	return n
}

// Path is where the namespace can be opened while the test runs.
func (n *NetNS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.File.Fd()) }

// Do runs f on a thread of its own inside the namespace. Sockets that f makes
// stay in the namespace, and a process that it starts is inside. The thread is
// not used again, so that f may change its user.
func (n *NetNS) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.File.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on a thread that ends afterwards.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// IP runs the ip command inside the namespace.
func (n *NetNS) IP(t *testing.T, args string) {
	t.Helper()
	err := n.Do(func() error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Join connects two namespaces by a pair of interfaces with these addresses,
// such as 10.9.0.1/24; addresses of IPv6 are usable at once.
func (n *NetNS) Join(t *testing.T, name string, addrs []string, peer *NetNS, peerName string, peerAddrs []string) {
	t.Helper()
	n.IP(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", name, peerName, peer.Path()))
	for _, e := range []struct {
		ns    *NetNS
		name  string
		addrs []string
	}{{n, name, addrs}, {peer, peerName, peerAddrs}} {
		for _, a := range e.addrs {
			extra := ""
			if strings.Contains(a, ":") {
				extra = " nodad"
			}
			e.ns.IP(t, "addr add "+a+" dev "+e.name+extra)
		}
		e.ns.IP(t, "link set "+e.name+" up")
	}
	n.awaitLink(t, name)
	peer.awaitLink(t, peerName)
}

// awaitLink waits until the interface has its link-local address, without which
// it finds no neighbour by IPv6. Where IPv6 is off there is none.
func (n *NetNS) awaitLink(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		found := false
		err := n.Do(func() error {
			dev, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			list, err := dev.Addrs()
			for _, a := range list {
				if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() == nil && ip.IP.IsLinkLocalUnicast() {
					found = true
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if found {
			return
		}
	}
	t.Fatalf("interface %s has no link-local address", name)
}
