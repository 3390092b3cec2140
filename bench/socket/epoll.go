package socket

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Epoll is a level-triggered set of descriptors. It is used by one thread.
type Epoll struct {
	fd     int
	coarse bool // epoll_pwait2 is missing (Linux before 5.11): timeouts in milliseconds
	events [256]unix.EpollEvent
}

// NewEpoll opens an empty set.
func NewEpoll() (*Epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &Epoll{fd: fd}, nil
}

// Close closes the set and none of its members.
func (e *Epoll) Close() error { return unix.Close(e.fd) }

// Add watches fd for reading; closing fd removes it.
func (e *Epoll) Add(fd int) error {
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// Watch changes what fd is watched for: to be writable, or to be readable.
func (e *Epoll) Watch(fd int, writable bool) error {
	events := uint32(unix.EPOLLIN)
	if writable {
		events = unix.EPOLLOUT
	}
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// Wait returns the ready descriptors, none when the timeout passed or a
// signal came. The slice is valid until the next call. Timeouts are exact to
// the kernel's timers where it has epoll_pwait2, and rounded up to
// milliseconds elsewhere.
func (e *Epoll) Wait(timeout time.Duration) ([]unix.EpollEvent, error) {
	timeout = max(0, timeout)
	if e.coarse {
		n, err := unix.EpollWait(e.fd, e.events[:], int((timeout+time.Millisecond-1)/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			return nil, nil
		}
		return e.events[:max(0, n)], err
	}
	ts := unix.NsecToTimespec(int64(timeout))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(e.fd), uintptr(unsafe.Pointer(&e.events[0])),
		uintptr(len(e.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0:
		return e.events[:n], nil
	case unix.EINTR:
		return nil, nil
	case unix.ENOSYS:
		e.coarse = true
		return e.Wait(timeout)
	}
	return nil, errno
}
