package listener

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// Why the file at the path of a Unix socket is left as it is.
var (
	errNoSocket = errors.New("there is a file that is no socket: remove it, or choose another path")
	errServed   = errors.New("another process listens there: stop it, or choose another path")
)

// socketFile is the file of a Unix socket that a Listener has made.
type socketFile struct {
	path string
	made os.FileInfo
	mode fs.FileMode // what was asked for; 0: nothing was
}

// listenUnix opens a Unix socket at path. One that nobody listens on any more,
// such as that of a process that was killed, is replaced. With mode 0 the umask
// has its way.
func listenUnix(path string, mode fs.FileMode) (net.Listener, *socketFile, error) {
	defer lockDirectory(filepath.Dir(path))()
	ln, err := bindUnix(path, mode)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err = removeStale(path); err == nil {
			ln, err = bindUnix(path, mode)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	ln.SetUnlinkOnClose(false) // see socketFile.remove
	f := &socketFile{path: path}
	if f.made, err = os.Lstat(path); err == nil {
		err = f.permit(mode)
	}
	if err != nil {
		_ = os.Remove(path)
		_ = ln.Close()
		return nil, nil, err
	}
	return ln, f, nil
}

// bindUnix makes the socket and its file. Linux gives the file the permissions
// that the socket has before it is bound, less the umask, so that there is no
// moment in which more than mode is allowed.
func bindUnix(path string, mode fs.FileMode) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if mode == 0 {
			return nil
		}
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), uint32(mode.Perm())) }), err)
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

// permit gives the file the permissions mode, if it has others. With mode 0 it
// keeps what it has.
func (f *socketFile) permit(mode fs.FileMode) error {
	if mode == f.mode || mode == 0 {
		return nil
	}
	now, err := os.Lstat(f.path)
	switch {
	case err != nil:
		return err
	case !os.SameFile(now, f.made):
		return fmt.Errorf("%s is no longer the socket that was made there", f.path)
	case now.Mode().Perm() != mode:
		if err := os.Chmod(f.path, mode); err != nil {
			return err
		}
	}
	f.mode = mode
	return nil
}

// remove removes the file, unless somebody has put another in its place.
func (f *socketFile) remove() {
	if now, err := os.Lstat(f.path); err == nil && os.SameFile(now, f.made) {
		_ = os.Remove(f.path)
	}
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errNoSocket
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return errServed
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	// Its queue is full, we must not connect, or it is a socket of another kind.
	return fmt.Errorf("%w (%w)", errServed, err)
}

// Bounds of waiting for a directory that another process has locked.
const (
	lockTries = 100
	lockStep  = 10 * time.Millisecond
)

// lockDirectory keeps other proxies from looking for stale sockets in dir at the
// same time: one that is bound but not listened on yet looks like one. Where it
// cannot be locked, it goes without.
func lockDirectory(dir string) (unlock func()) {
	d, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for range lockTries {
		if err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			break
		}
		time.Sleep(lockStep)
	}
	return func() { _ = d.Close() }
}

// Where is Address as it is configured.
func (l *Listener) Where() string {
	if l.file != nil {
		return wire.Unix + l.file.path
	}
	return l.Address().String()
}

// localOf is the own address of c.
func (l *Listener) localOf(c *conn) string {
	if l.file != nil {
		return l.Where()
	}
	return c.wire.LocalAddr().String()
}
