package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// dialed is a listener in memory: what is sent to conns is accepted.
type dialed struct {
	conns    chan net.Conn
	accepted atomic.Int32
	closed   chan struct{}
	once     sync.Once
}

func newDialed() *dialed {
	return &dialed{conns: make(chan net.Conn, 2*maxConnections), closed: make(chan struct{})}
}

func (d *dialed) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		if c == nil {
			return nil, errors.New("no file descriptors")
		}
		d.accepted.Add(1)
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *dialed) Close() error   { d.once.Do(func() { close(d.closed) }); return nil }
func (d *dialed) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// dial returns the caller's end of a new connection.
func (d *dialed) dial() net.Conn {
	mine, theirs := net.Pipe()
	d.conns <- theirs
	return mine
}

func TestLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialed()
		l := newLimited(d, 2)
		got := make(chan net.Conn, 8)
		end := make(chan error, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					end <- err
					return
				}
				got <- c
			}
		}()
		for range 4 {
			defer d.dial().Close()
		}
		synctest.Wait()
		if len(got) != 2 || d.accepted.Load() != 2 {
			t.Fatalf("%d accepted of 2 that may be", d.accepted.Load())
		}
		first := <-got
		_ = first.Close()
		_ = first.Close() // as net/http may; it gives one slot back, not two
		synctest.Wait()
		if d.accepted.Load() != 3 {
			t.Errorf("%d accepted after one was closed, want 3", d.accepted.Load())
		}
		// Accept waits for a slot now; Close ends that.
		_ = l.Close()
		_ = l.Close()
		if err := <-end; !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		for len(got) > 0 {
			_ = (<-got).Close()
		}
	})
}

// An error of Accept holds no slot.
func TestLimitedAfterErrors(t *testing.T) {
	d := newDialed()
	l := newLimited(d, 1)
	for range 3 {
		d.conns <- nil
		if _, err := l.Accept(); err == nil {
			t.Fatal("no error")
		}
	}
	mine := d.dial()
	defer mine.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = l.Close()
}

// However many callers hold connections open, so many are served; the next one
// is when one of them leaves or says nothing for as long as a head may take.
func TestRunBoundsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialed()
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error, 1)
		s := NewDesk(d, sample(nil))
		go func() { end <- s.Run(ctx) }()
		callers := make([]net.Conn, maxConnections+2)
		for i := range callers {
			callers[i] = d.dial()
			defer callers[i].Close()
		}
		synctest.Wait()
		if n := d.accepted.Load(); n != maxConnections {
			t.Fatalf("%d connections accepted, want %d", n, maxConnections)
		}
		_ = callers[0].Close()
		synctest.Wait()
		if n := d.accepted.Load(); n != maxConnections+1 {
			t.Errorf("%d connections accepted after one left, want %d", n, maxConnections+1)
		}
		time.Sleep(headTimeout + time.Millisecond) // of the bubble's clock
		synctest.Wait()
		if n := d.accepted.Load(); n != maxConnections+2 {
			t.Errorf("%d connections accepted after the silent ones were closed, want %d", n, maxConnections+2)
		}
		if _, err := callers[1].Read(make([]byte, 1)); err == nil {
			t.Error("a silent connection was answered")
		}
		cancel()
		if err := <-end; err != nil {
			t.Error(err)
		}
	})
}

// get sends a request over a pipe and returns the answer's status line.
func get(c net.Conn, path string) string {
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err.Error()
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return line
}

// When its context ends, Run lets a request finish, but not one that takes
// longer than stopTimeout.
func TestRunEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		takes time.Duration
		want  string
		ends  time.Duration // at most
	}{
		{"the request finishes", stopTimeout / 2, "HTTP/1.1 200 OK", stopTimeout},
		{"the request is cut off", 10 * stopTimeout, "EOF", stopTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDialed()
				ctx, cancel := context.WithCancel(t.Context())
				end := make(chan error, 1)
				s := NewDesk(d, sample(func(o *Options) {
					o.Views.Discovery = func() []WatchView {
						time.Sleep(c.takes) // of the bubble's clock
						return nil
					}
				}))
				go func() { end <- s.Run(ctx) }()
				caller := d.dial()
				defer caller.Close()
				answer := make(chan string, 1)
				go func() { answer <- get(caller, "/discovery") }()
				synctest.Wait()
				start := time.Now()
				cancel()
				if err := <-end; err != nil {
					t.Errorf("Run: %v", err)
				}
				if took := time.Since(start); took > c.ends {
					t.Errorf("Run ended after %v, want %v at most", took, c.ends)
				}
				if got := <-answer; got != c.want {
					t.Errorf("the request in flight got %q, want %q", got, c.want)
				}
				select {
				case <-d.closed:
				default:
					t.Error("the listener is still open")
				}
				time.Sleep(c.takes) // lets the view that was cut off return
			})
		})
	}
}

func TestRunServes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := make(chan error, 1)
	s := NewDesk(ln, sample(nil))
	go func() { end <- s.Run(ctx) }()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, path := range []string{"/live", "/ready", "/?format=json"} {
		resp, err := client.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
	}
	cancel()
	if err := <-end; err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the port still takes connections")
	}
}

// A listener that breaks ends Run with the reason.
func TestRunFails(t *testing.T) {
	d := newDialed()
	d.conns <- nil
	s := NewDesk(d, sample(nil))
	err := s.Run(t.Context())
	if err == nil || err.Error() != "admin: no file descriptors" {
		t.Errorf("Run: %v", err)
	}
}
