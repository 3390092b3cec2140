package relay

import (
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// pipeSize is what one splice moves at most. The kernel's default is 64 KiB.
const pipeSize = 256 << 10

// pipe is the kernel buffer that splice moves through.
type pipe struct{ r, w int }

// pipes keeps empty pipes, since making one costs two system calls and two
// descriptors.
type pipes struct {
	mu   sync.Mutex
	idle []*pipe
}

const idlePipes = 32

var spare pipes

func (p *pipes) get() (*pipe, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		x := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return x, nil
	}
	p.mu.Unlock()
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	// Refused beyond the user's pipe limit; the default size works as well.
	_, _ = unix.FcntlInt(uintptr(fd[1]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{fd[0], fd[1]}, nil
}

func (p *pipes) put(x *pipe, empty bool) {
	if empty {
		p.mu.Lock()
		if len(p.idle) < idlePipes {
			p.idle = append(p.idle, x)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
	_ = unix.Close(x.r)
	_ = unix.Close(x.w)
}

// splice moves src to dst inside the kernel until src ends, after what is
// buffered.
func (w *way) splice(src, dst *wire.Conn) (Side, error) {
	from := w.from
	for b := src.Buffered(); len(b) > 0; b = src.Buffered() {
		if side, err := w.put(b); err != nil {
			return side, err
		}
	}
	src.Release()
	reader, err := src.Socket().SyscallConn()
	if err != nil {
		return from, err
	}
	writer, err := dst.Socket().SyscallConn()
	if err != nil {
		return other(from), err
	}
	// A pipe is taken when there is something to move, so that an idle relay
	// holds no descriptors.
	s := &splicer{}
	defer s.release()
	in, out := s.in, s.out
	for {
		if err := reader.Read(in); err != nil {
			return from, err
		}
		if s.err != nil {
			return from, s.err
		}
		if s.held == 0 {
			return Nobody, nil
		}
		for s.held > 0 {
			before := s.held
			if err := writer.Write(out); err != nil {
				return other(from), err
			}
			if s.err != nil {
				return other(from), s.err
			}
			w.count.Add(uint64(before - s.held))
			w.r.touch()
		}
		s.release()
	}
}

// splicer is the state between the two halves of a splice.
type splicer struct {
	p    *pipe
	held int
	err  error
}

func (s *splicer) release() {
	if s.p != nil {
		spare.put(s.p, s.held == 0)
		s.p = nil
	}
}

const spliceFlags = unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE

// in moves from the socket into the pipe; false asks to wait for readiness.
func (s *splicer) in(fd uintptr) bool {
	if s.p == nil {
		if s.p, s.err = spare.get(); s.err != nil {
			return true
		}
	}
	n, err := splice(int(fd), s.p.w)
	if err == syscall.EAGAIN {
		s.release()
		return false
	}
	s.held, s.err = n, err
	return true
}

// out moves from the pipe into the socket; false asks to wait for readiness.
func (s *splicer) out(fd uintptr) bool {
	n, err := splice(s.p.r, int(fd))
	if err == syscall.EAGAIN {
		return false
	}
	if n == 0 && err == nil {
		err = io.ErrShortWrite
	}
	s.held -= n
	s.err = err
	return true
}

func splice(from, to int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, pipeSize, spliceFlags)
		if err == syscall.EINTR {
			continue
		}
		return int(max(n, 0)), err
	}
}
