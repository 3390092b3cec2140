// Package socket holds raw TCP sockets on loopback and the epoll set that waits for them: the cheapest way to talk HTTP from a measuring process.
package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait to be accepted; the kernel lowers
// it to net.core.somaxconn.
const backlog = 8192

// dialTimeout bounds a connect on loopback, which takes more than a moment
// only when the listener's queue is full.
const dialTimeout = 5 * time.Second

func sockaddr(a netip.AddrPort) (int, unix.Sockaddr, error) {
	ip := a.Addr().Unmap()
	if !ip.IsLoopback() {
		return 0, nil, fmt.Errorf("address %s is not on loopback: the benchmark sends and takes traffic on loopback only", a)
	}
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, nil
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16()}, nil
}

// Listen opens a non-blocking listener on a loopback address; port 0 takes a
// free one. It returns the descriptor and the address it got.
func Listen(a netip.AddrPort) (int, netip.AddrPort, error) {
	family, sa, err := sockaddr(a)
	if err != nil {
		return -1, a, err
	}
	return listen(a, family, sa, "")
}

// ListenEverywhere is Listen for all addresses of 127.0.0.0/8 at the port of a.
// The socket is bound to the interface lo: nothing from outside reaches it.
func ListenEverywhere(a netip.AddrPort) (int, netip.AddrPort, error) {
	if _, _, err := sockaddr(a); err != nil {
		return -1, a, err
	}
	fd, _, err := listen(a, unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port())}, "lo")
	if err != nil {
		return -1, a, err
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return -1, a, fmt.Errorf("listen on %s: %w", a, err)
	}
	return fd, netip.AddrPortFrom(a.Addr(), uint16(got.(*unix.SockaddrInet4).Port)), nil
}

func listen(a netip.AddrPort, family int, sa unix.Sockaddr, device string) (int, netip.AddrPort, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, a, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && device != "" {
		err = unix.BindToDevice(fd, device)
	}
	if err == nil {
		err = errors.Join(unix.Bind(fd, sa), unix.Listen(fd, backlog))
	}
	if err != nil {
		unix.Close(fd)
		return -1, a, fmt.Errorf("listen on %s: %w", a, err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return -1, a, fmt.Errorf("listen on %s: %w", a, err)
	}
	switch s := got.(type) {
	case *unix.SockaddrInet4:
		a = netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		a = netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return fd, a, nil
}

// Accept takes one waiting connection from a listener, non-blocking and
// without Nagle's delay. The error is unix.EAGAIN when none waits.
func Accept(listener int) (int, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, err
	}
	return fd, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// Dial connects to a loopback address within five seconds and returns a
// blocking socket without Nagle's delay, on which one call waits five seconds
// at most.
func Dial(a netip.AddrPort) (int, error) {
	family, sa, err := sockaddr(a)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(dialTimeout))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv), // bounds connect too, see socket(7)
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	if err == nil {
		err = unix.Connect(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", a, err)
	}
	return fd, nil
}

// Read reads into buf without telling the Go scheduler, so fd must be
// non-blocking or known to be readable. 0 without an error is the end.
func Read(fd int, buf []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// Write writes as much of buf as the socket takes at once, without telling
// the Go scheduler; fd must be non-blocking. A closed peer is an error, not a
// signal.
func Write(fd int, buf []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), unix.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// Discard throws away up to n bytes that have arrived, without copying them
// (MSG_TRUNC, tcp(7)); fd must be non-blocking. 0 without an error is the end.
func Discard(fd, n int) (int, error) {
	for {
		got, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(n), unix.MSG_TRUNC, 0, 0)
		switch e {
		case 0:
			return int(got), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}
