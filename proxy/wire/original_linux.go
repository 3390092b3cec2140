package wire

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"
)

// Originals asks the kernel where connections were going before it redirected
// them. It is for one goroutine.
type Originals struct {
	ask   func(fd uintptr)
	v6    bool
	addr  [28]byte // sockaddr_in or sockaddr_in6
	errno syscall.Errno
}

// soOriginalDst is SO_ORIGINAL_DST (linux/netfilter_ipv4.h) and as well
// IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv6/ip6_tables.h).
const soOriginalDst = 80

// Of returns where c was going. It reports false where the kernel does not know
// of c, as it was not redirected or connections are not tracked.
func (o *Originals) Of(c *Conn, remote netip.AddrPort) (dst netip.AddrPort, ok bool) {
	if o.ask == nil {
		o.ask = o.call
	}
	o.v6 = remote.Addr().Is6()
	if c.raw.Control(o.ask) != nil || o.errno != 0 {
		return dst, false
	}
	port := binary.BigEndian.Uint16(o.addr[2:])
	if o.v6 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(o.addr[8:24])).Unmap(), port), true
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(o.addr[4:8])), port), true
}

func (o *Originals) call(fd uintptr) {
	level := uintptr(syscall.SOL_IP)
	if o.v6 {
		level = syscall.SOL_IPV6
	}
	n := uint32(len(o.addr))
	_, _, o.errno = syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, fd, level, soOriginalDst,
		uintptr(unsafe.Pointer(&o.addr)), uintptr(unsafe.Pointer(&n)), 0)
}
