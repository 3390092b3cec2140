package procstat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Counter counts an event of the kernel over all threads of some processes, as
// `perf stat -p` does. A nil Counter counts nothing.
type Counter struct{ fds []int }

// CountInstructions counts the instructions that processes execute in user
// mode, also in threads and processes that they start later.
func CountInstructions(pids []int) (*Counter, error) {
	return count(pids, unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_INSTRUCTIONS)
}

// InstructionsOffered says why instructions cannot be counted here, nil if
// they can: virtual machines often have no counters, and
// kernel.perf_event_paranoid may forbid them.
func InstructionsOffered() error {
	c, err := CountInstructions([]int{os.Getpid()})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		return errors.New("this machine has no such counter")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return errors.New("not allowed, see kernel.perf_event_paranoid")
	case err != nil:
		return err
	}
	c.Close()
	return nil
}

func count(pids []int, typ uint32, event uint64) (*Counter, error) {
	attr := unix.PerfEventAttr{
		Type:   typ,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Config: event,
		Bits:   unix.PerfBitInherit | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	c := new(Counter)
	for _, pid := range pids {
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("threads of process %d: %w", pid, err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if errors.Is(err, unix.ESRCH) {
				continue // the thread has ended
			}
			if err != nil {
				c.Close()
				return nil, fmt.Errorf("perf_event_open: %w", err)
			}
			c.fds = append(c.fds, fd)
		}
	}
	return c, nil
}

// Read is the count since the counter was opened.
func (c *Counter) Read() (uint64, error) {
	if c == nil {
		return 0, nil
	}
	var sum uint64
	for _, fd := range c.fds {
		var buf [8]byte
		if _, err := unix.Read(fd, buf[:]); err != nil {
			return 0, fmt.Errorf("read a counter: %w", err)
		}
		sum += binary.NativeEndian.Uint64(buf[:])
	}
	return sum, nil
}

// Close ends the counting.
func (c *Counter) Close() {
	if c == nil {
		return
	}
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
	c.fds = nil
}
