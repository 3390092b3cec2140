package exchange_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// patience bounds every wait of a test for something that must happen.
const patience = testkit.Patience

// origin is an endpoint whose connections follow a script.
type origin struct {
	t        testing.TB
	ln       net.Listener
	addr     netip.AddrPort
	accepted atomic.Int64
	heads    atomic.Int64
	done     chan struct{} // closed at the end, to end waits of scripts
	mu       sync.Mutex
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

// start starts an endpoint and makes it the cluster's only one.
func (b *bed) start(script func(*originConn)) *origin {
	o := b.another(script)
	b.to(o)
	return o
}

// another starts an endpoint that the cluster does not know.
func (b *bed) another(script func(*originConn)) *origin {
	b.t.Helper()
	var cfg *tls.Config
	if b.mode == mtlsUp {
		cfg = serverConfig(b.origin)
	}
	return b.anotherBy(cfg, script)
}

// anotherBy starts an endpoint with its own TLS configuration, nil for none.
func (b *bed) anotherBy(cfg *tls.Config, script func(*originConn)) *origin {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	o := &origin{t: b.t, ln: ln, addr: addrOf(ln.Addr()), done: make(chan struct{}), conns: map[net.Conn]bool{}}
	o.wg.Go(func() { o.accept(cfg, script) })
	b.onStop(o.stop)
	return o
}

func (o *origin) accept(cfg *tls.Config, script func(*originConn)) {
	for {
		sock, err := o.ln.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns[sock] = true
		n := o.accepted.Add(1)
		o.mu.Unlock()
		o.wg.Go(func() {
			c := &originConn{Conn: sock, sock: sock.(*net.TCPConn), o: o, number: int(n)}
			if cfg != nil {
				c.Conn = tls.Server(sock, cfg)
			}
			c.br = bufio.NewReaderSize(c.Conn, 64<<10)
			script(c)
			_ = c.Close()
			o.mu.Lock()
			delete(o.conns, sock)
			o.mu.Unlock()
		})
	}
}

// stop ends the listener and every connection.
func (o *origin) stop() {
	o.mu.Lock()
	select {
	case <-o.done:
	default:
		close(o.done)
	}
	for c := range o.conns {
		_ = c.SetDeadline(time.Unix(1, 0))
	}
	o.mu.Unlock()
	_ = o.ln.Close()
	o.wg.Wait()
}

// open returns how many connections there are.
func (o *origin) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.conns)
}

type originConn struct {
	net.Conn
	sock   *net.TCPConn
	br     *bufio.Reader
	o      *origin
	number int // from 1 in the order of acceptance
}

// head reads a request head and returns it without its empty line; "" at the
// connection's end.
func (c *originConn) head() string {
	var b strings.Builder
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			c.o.heads.Add(1)
			return b.String()
		}
		b.WriteString(line)
	}
}

func (c *originConn) send(s string) { _, _ = io.WriteString(c.Conn, s) }

// read reads n bytes.
func (c *originConn) read(n int) string {
	p := make([]byte, n)
	n, _ = io.ReadFull(c.br, p)
	return string(p[:n])
}

// message reads one request, its body included, and returns both.
func (c *originConn) message() (head, body string, ok bool) {
	if head = c.head(); head == "" {
		return "", "", false
	}
	body, ok = c.body(head)
	return head, body, ok
}

func (c *originConn) body(head string) (string, bool) {
	if strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
		return c.chunked()
	}
	n := 0
	for line := range strings.Lines(head) {
		if name, v, _ := strings.Cut(line, ":"); strings.EqualFold(name, "content-length") {
			n, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	s := c.read(n)
	return s, len(s) == n
}

// chunked reads a chunked body and returns its data, with trailers in brackets.
func (c *originConn) chunked() (string, bool) {
	var b strings.Builder
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			return b.String(), false
		}
		n, err := strconv.ParseUint(strings.TrimSpace(line), 16, 32)
		if err != nil {
			return b.String(), false
		}
		if n == 0 {
			break
		}
		b.WriteString(c.read(int(n)))
		if c.read(2) != "\r\n" {
			return b.String(), false
		}
	}
	for {
		line, err := c.br.ReadString('\n')
		switch {
		case err != nil:
			return b.String(), false
		case line == "\r\n":
			return b.String(), true
		}
		fmt.Fprintf(&b, "[%s]", strings.TrimSpace(line))
	}
}

// reset ends the connection with a RST.
func (c *originConn) reset() {
	_ = c.sock.SetLinger(0)
	_ = c.sock.Close()
}

// shut ends the connection, which the other side's kernel knows when it returns.
func (c *originConn) shut() {
	if s, ok := c.Conn.(*tls.Conn); ok {
		_ = s.CloseWrite()
	}
	_ = c.sock.CloseWrite()
	raw, err := c.sock.SyscallConn()
	if err != nil {
		c.o.t.Error(err)
		return
	}
	eventually(c.o.t, "the end is acknowledged", func() bool {
		state := uint8(unix.BPF_TCP_FIN_WAIT1)
		_ = raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				state = info.State
			}
		})
		return state != unix.BPF_TCP_FIN_WAIT1 && state != unix.BPF_TCP_ESTABLISHED
	})
	_ = c.Close()
}

// stall waits for the end of the connection or of the test.
func (c *originConn) stall() { _, _ = io.Copy(io.Discard, c.br) }

// answering sends response to every request.
func answering(response string) func(*originConn) {
	return func(c *originConn) {
		for {
			if _, _, ok := c.message(); !ok {
				return
			}
			c.send(response)
		}
	}
}

const okResponse = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// client is a raw downstream.
type client struct {
	net.Conn
	t    testing.TB
	sock *net.TCPConn
	br   *bufio.Reader
}

func (b *bed) dial() *client {
	b.t.Helper()
	sock, err := net.Dial("tcp", b.ln.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	c := &client{Conn: sock, t: b.t, sock: sock.(*net.TCPConn)}
	if b.mode == mtlsDown {
		c.Conn = tls.Client(sock, b.clientConfig())
	}
	_ = sock.SetDeadline(time.Now().Add(patience))
	c.br = bufio.NewReaderSize(c.Conn, 64<<10)
	b.onStop(func() { _ = sock.Close() })
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Errorf("client write: %v", err)
	}
}

// expect reads exactly what is wanted.
func (c *client) expect(want string) {
	c.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c.br, got)
	if string(got[:n]) != want {
		c.t.Fatalf("got %q (%v)\nwant %q", got[:n], err, want)
	}
}

// head reads a response head without its empty line.
func (c *client) head() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			c.t.Fatalf("no response head: %q, %v", b.String()+line, err)
		}
		if line == "\r\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}

// rest reads to the end of the connection. reset reports that it was no
// orderly one.
func (c *client) rest() (got string, reset bool) {
	c.t.Helper()
	p, err := io.ReadAll(c.br)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatalf("the connection was not closed; read %q", p)
	}
	return string(p), err != nil
}

// closed expects the orderly end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if got, reset := c.rest(); got != "" || reset {
		c.t.Fatalf("read %q, reset %v; want the end", got, reset)
	}
}

// reply reads a local reply and checks its status and reason.
func (c *client) reply(status int, reason string) (head, body string) {
	c.t.Helper()
	head = c.head()
	if !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.1 %d ", status)) || !strings.Contains(head, "x-outrigger-reason: "+reason+"\r\n") {
		c.t.Fatalf("got %q, want status %d for %s", head, status, reason)
	}
	i := strings.Index(head, "content-length: ")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(head[i+16:], "\r", 2)[0]))
	if err != nil {
		c.t.Fatal(err)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(c.br, p); err != nil {
		c.t.Fatal(err)
	}
	return head, string(p)
}

// abort ends the connection with a RST.
func (c *client) abort() {
	_ = c.sock.SetLinger(0)
	_ = c.sock.Close()
}

// get sends a plain GET.
func (c *client) get(path string) {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: api\r\n\r\n")
}

// eventually waits for f.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	testkit.Eventually(t, what, f)
}
