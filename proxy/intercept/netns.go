package intercept

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. Nil is that of the process.
type Namespace struct{ file *os.File }

// OpenNamespace opens the namespace at path, such as /proc/1234/ns/net or
// /var/run/netns/pod. An empty path is that of the process.
func OpenNamespace(path string) (*Namespace, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	// NS_GET_NSTYPE says what kind it is, and fails where it is none.
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = f.Close()
		return nil, fmt.Errorf("network namespace: %s is none; give one such as /proc/PID/ns/net", path)
	}
	return &Namespace{f}, nil
}

// Close closes the namespace's file.
func (n *Namespace) Close() error {
	if n == nil {
		return nil
	}
	return n.file.Close()
}

// fd is what netlink sockets are opened with; 0 is the process's namespace.
func (n *Namespace) fd() int {
	if n == nil {
		return 0
	}
	return int(n.file.Fd())
}

// Do runs f on a thread that is inside the namespace. f must start no
// goroutine and keep no other from running on its thread.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked when it could not be brought back: it
		// ends with the goroutine.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = home.Close() }()
		if err := unix.Setns(n.fd(), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, back)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
