package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/socket"
)

// Held is a number of idle keep-alive connections.
type Held struct{ fds []int }

// Hold opens n connections to a loopback address one after the other, carries
// one request over each and leaves it open. On an error none is left.
func Hold(ctx context.Context, addr netip.AddrPort, n int, request []byte) (*Held, error) {
	if len(request) == 0 {
		request = []byte(DefaultRequest)
	}
	h := &Held{fds: make([]int, 0, n)}
	for i := range n {
		err := ctx.Err()
		if err == nil {
			err = h.add(addr, request)
		}
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("idle connection %d of %d: %w", i+1, n, err)
		}
	}
	return h, nil
}

func (h *Held) add(addr netip.AddrPort, request []byte) error {
	fd, err := socket.Dial(addr)
	if err != nil {
		return err
	}
	h.fds = append(h.fds, fd)
	for sent := 0; sent < len(request); {
		n, err := unix.Write(fd, request[sent:])
		if err != nil {
			return err
		}
		sent += n
	}
	var a answer
	var buf [16 << 10]byte
	for {
		n, err := unix.Read(fd, buf[:])
		if err != nil {
			return err
		}
		if n == 0 {
			return errTruncated
		}
		done, err := a.feed(buf[:n])
		if err != nil {
			return err
		}
		if done && a.close {
			return errors.New("the server does not keep the connection")
		}
		if done {
			return nil
		}
	}
}

// Alive counts the connections that the server has not closed.
func (h *Held) Alive() int {
	alive := 0
	var buf [1]byte
	for _, fd := range h.fds {
		_, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			alive++
		}
	}
	return alive
}

// Close closes them all.
func (h *Held) Close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
}
