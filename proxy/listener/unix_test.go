package listener

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func dialUnix(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UnixConn)
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// A connection by a Unix socket is served as any other, without an address of its
// peer; the permissions follow the plan; at the end the file is gone.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	r := start(t, func(p *plan.Listener) {
		p.Address, p.SocketMode = wire.Unix+path, 0o600
		p.Direction, p.Security, p.TLS = telemetry.Outbound, plan.Plaintext, nil
	})
	if got := modeOf(t, path); got != fs.ModeSocket|0o600 {
		t.Errorf("the mode is %v", got)
	}
	c := dialUnix(t, path)
	echoes(t, c, "hello")
	states := r.l.States(10)
	if len(states) != 1 || states[0].Peer.From() != "unix" || states[0].Local != "unix:"+path {
		t.Errorf("%+v", states)
	}
	if got := r.l.Where(); got != "unix:"+path {
		t.Errorf("it is at %s", got)
	}
	r.change(func(p *plan.Listener) { p.SocketMode = 0o666 }) // more than the umask leaves
	if got := modeOf(t, path); got != fs.ModeSocket|0o666 {
		t.Errorf("after the change the mode is %v", got)
	}
	echoes(t, c, "again")
	r.l.Stop()
	if !absent(path) {
		t.Error("the file is left")
	}
	echoes(t, c, "still") // what is open goes on
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	isEnded(t, c)
}

// bindOnly binds without accepting.
func bindOnly(path string, mode fs.FileMode) (*Listener, error) {
	log := slog.New(slog.DiscardHandler)
	return Bind(&plan.Listener{Name: "outbound:api", Address: wire.Unix + path, SocketMode: mode}, &exchange.Server{Log: log}, log)
}

// What is at the path already is replaced only if it is a socket that nobody
// listens on.
func TestUnixSocketInTheWay(t *testing.T) {
	dir := t.TempDir()
	t.Run("stale", func(t *testing.T) {
		path := filepath.Join(dir, "stale")
		old, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		old.(*net.UnixListener).SetUnlinkOnClose(false)
		_ = old.Close()
		if absent(path) {
			t.Fatal("the stale file is not there")
		}
		l, err := bindOnly(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		dialUnix(t, path)
		l.Stop()
		if !absent(path) {
			t.Error("the file is left")
		}
	})
	t.Run("served", func(t *testing.T) {
		path := filepath.Join(dir, "served")
		old, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		if _, err := bindOnly(path, 0); !errors.Is(err, errServed) || !strings.Contains(err.Error(), "listener outbound:api") {
			t.Errorf("%v", err)
		}
		dialUnix(t, path)
	})
	t.Run("a datagram socket", func(t *testing.T) {
		path := filepath.Join(dir, "datagrams")
		old, err := net.ListenPacket("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		if _, err := bindOnly(path, 0); !errors.Is(err, errServed) || absent(path) {
			t.Errorf("%v", err)
		}
	})
	for name, make := range map[string]func(path string) error{
		"a file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link to a stale socket": func(path string) error {
			old, err := net.Listen("unix", path+".old")
			if err != nil {
				return err
			}
			old.(*net.UnixListener).SetUnlinkOnClose(false)
			return errors.Join(old.Close(), os.Symlink(path+".old", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			if _, err := bindOnly(path, 0); !errors.Is(err, errNoSocket) || absent(path) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("no directory", func(t *testing.T) {
		if _, err := bindOnly(filepath.Join(dir, "missing", "s"), 0); !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "make its directory") {
			t.Errorf("%v", err)
		}
	})
}

// A file that somebody has put in the place of the socket is neither changed nor
// removed.
func TestUnixSocketReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	p := plan.Listener{Name: "outbound:api", Address: wire.Unix + path, SocketMode: 0o600}
	l, err := Bind(&p, &exchange.Server{Log: logger}, logger)
	if err != nil {
		t.Fatal(err)
	}
	// Both there at once, or the file could get the number of the one before.
	if err := errors.Join(os.WriteFile(path+".new", nil, 0o640), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	p.SocketMode = 0o666
	l.Apply(&p)
	if !strings.Contains(log.String(), "socket_mode") {
		t.Errorf("the log does not say so: %s", log.String())
	}
	l.Stop()
	if got := modeOf(t, path); got != 0o640 {
		t.Errorf("the mode is %v", got)
	}
}

// However many want one path at once, one gets it, and the others harm it not.
func TestUnixSocketRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = old.Close()
	const all = 4
	bound := make([]*Listener, all)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { bound[i], _ = bindOnly(path, 0o660) })
	}
	wg.Wait()
	var won *Listener
	for _, l := range bound {
		if l != nil && won != nil {
			t.Error("two have it")
		}
		if l != nil {
			won = l
		}
	}
	if won == nil {
		t.Fatal("none has it")
	}
	dialUnix(t, path)
	won.Stop()
	if !absent(path) {
		t.Error("the file is left")
	}
}
