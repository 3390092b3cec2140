package wire

import (
	"syscall"
	"unsafe"
)

// The calls below do not tell the scheduler that a system call is being made,
// so the descriptor must be non-blocking. That saves the hand-over of the
// processor, which costs more than the call itself on a busy proxy
// (docs/BENCHMARKS.md).

func rawRead(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

func rawWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// peeked is what rawPeek found.
type peeked uint8

const (
	peekNothing peeked = iota // neither data nor an end: open and idle
	peekData
	peekEnd // the peer's end, or an error
)

// rawPeek looks at what the next read would find without taking it.
func rawPeek(fd uintptr) peeked {
	var b [1]byte
	n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	switch {
	case e == syscall.EAGAIN:
		return peekNothing
	case e == 0 && n > 0:
		return peekData
	}
	return peekEnd
}

// rawWakeReader makes the poller look at a socket again. It changes nothing
// else where the peer has ended its sending side already.
func rawWakeReader(fd uintptr) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SHUTDOWN, fd, syscall.SHUT_RD, 0)
}
