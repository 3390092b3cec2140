package wire

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Transparent is for the Control of a net.ListenConfig: connections to any
// address may then be brought to the socket by TPROXY. It needs CAP_NET_ADMIN.
func Transparent(network, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) { err = transparent(fd, network) }), err)
}

func transparent(fd uintptr, network string) error {
	if network == "tcp6" {
		return unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}

// From is for the Control of a net.Dialer: the connection comes from address a,
// which need not be this machine's, and a port that the kernel chooses.
func From(a netip.Addr) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			if err = transparent(fd, network); err != nil {
				return
			}
			if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
				return
			}
			if a.Is4() {
				err = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: a.As4()})
			} else {
				err = unix.Bind(int(fd), &unix.SockaddrInet6{Addr: a.As16()})
			}
		}), err)
	}
}
