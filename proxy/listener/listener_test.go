package listener

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// setOrigin puts another origin behind the listener.
func setOrigin(p *plan.Listener, origin netip.AddrPort) {
	p.Route.Cluster.SetLocal([]upstream.EndpointSpec{{Address: origin, Weight: 1, Healthy: true}})
}

func clear(p *plan.Listener) { p.Security = plan.Plaintext }

func TestBindErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, remedy := range map[string]string{
		taken.Addr().String(): "choose another port",
		"192.0.2.1:0":         "no interface has this address",
		"127.0.0.1:99999":     "invalid port",
	} {
		_, err := Bind(&plan.Listener{Name: "outbound:db", Address: address}, nil, nil)
		if err == nil {
			t.Fatalf("%s was bound", address)
		}
		for _, part := range []string{"listener outbound:db", address, remedy} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q lacks %q", err, part)
			}
		}
	}
	err = bindError(&plan.Listener{}, syscall.EACCES)
	if !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") || !errors.Is(err, syscall.EACCES) {
		t.Errorf("got %q", err)
	}
}

func TestMaxConnections(t *testing.T) {
	r := start(t, func(p *plan.Listener) { clear(p); p.MaxConnections = 3 })
	var list []net.Conn
	for range 3 {
		c := r.dial()
		echoes(t, c, "hello")
		list = append(list, c)
	}
	for range 2 {
		// The refusal may come before the dialling is over.
		if c, err := net.Dial("tcp", r.l.Address().String()); err == nil {
			_ = c.SetDeadline(time.Now().Add(patience))
			isEnded(t, c)
			_ = c.Close()
		} else if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
	}
	if n := r.m.Refused.Value(); n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
	_ = list[0].Close()
	eventually(t, func() bool { return r.l.Connections() == 2 })
	echoes(t, r.dial(), "hello")
	r.change(func(p *plan.Listener) { p.MaxConnections = 0 })
	for range 5 {
		echoes(t, r.dial(), "hello")
	}
}

func TestStopLetsConnectionsGoOn(t *testing.T) {
	r := start(t, clear)
	c := r.dial()
	echoes(t, c, "before")
	r.l.Stop()
	r.l.Stop()
	if d, err := net.Dial("tcp", r.l.Address().String()); err == nil {
		_ = d.Close()
		t.Error("still listening")
	}
	echoes(t, c, "after")
	select {
	case <-r.ran:
		t.Fatal("run ended before its connections")
	default:
	}
	_ = c.Close()
	r.ended()
}

// Where memory is short nobody else is let in; those who are in are served on.
func TestConnectionsAreRefusedForWantOfMemory(t *testing.T) {
	r := start(t, clear)
	in := r.dial()
	echoes(t, in, "hello")
	m := r.l.srv.Memory
	m.Pledge(budget / 100 * 92)
	refused := r.m.Refused.Value()
	if c, err := net.Dial("tcp", r.l.Address().String()); err == nil { // else it has been reset already
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		isEnded(t, c)
	}
	eventually(t, func() bool { return m.Given(memory.Connections) == 1 })
	if m.Given(memory.Connections) != 1 || r.m.Refused.Value() != refused+1 {
		t.Errorf("%d and %d counted", m.Given(memory.Connections), r.m.Refused.Value()-refused)
	}
	echoes(t, in, "hello again")
}

func TestContextEndsAccepting(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Bind(&plan.Listener{Name: "x", Address: "127.0.0.1:0"}, &exchange.Server{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsAdmittedAfterStop(t *testing.T) {
	r := start(t, clear)
	d := r.dial()
	echoes(t, d, "hello")
	r.l.Stop()
	if r.l.register(&conn{}, 0) {
		t.Error("a connection was admitted")
	}
}

func TestCloseAllEndsEveryKindOfConnection(t *testing.T) {
	r := start(t, func(p *plan.Listener) { p.MaxHandshakes = 1 })
	served := r.caller()
	echoes(t, served, "hello")
	silent := r.dial()
	half := r.dial()
	if _, err := half.Write([]byte{22, 3, 1, 0, 200, 1}); err != nil {
		t.Fatal(err)
	}
	// One that waits for a slot.
	r.l.slots.Load().free <- struct{}{}
	waits := r.secure(authority().Issue(callerID, nil))
	done := make(chan error, 1)
	go func() { done <- waits.Handshake() }()
	eventually(t, func() bool { return r.l.Connections() == 4 })
	r.l.Stop()
	r.l.CloseAll()
	r.l.CloseAll()
	isEnded(t, served)
	isEnded(t, silent)
	isEnded(t, half)
	if err := <-done; err == nil {
		t.Error("a handshake succeeded after CloseAll")
	}
	r.ended()
	if k := r.log.kinds(); len(k) != 0 {
		t.Errorf("what CloseAll ended was logged: %v", k)
	}
}

func TestCloseIdle(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			arrived <- struct{}{}
			<-answer
		}
		_, _ = io.WriteString(w, "done")
	})}
	served := make(chan error, 1)
	go func() { served <- origin.Serve(ln) }()
	defer func() { _ = origin.Close(); <-served }()
	r := start(t, func(p *plan.Listener) {
		clear(p)
		p.Protocol = plan.HTTP
		setOrigin(p, ln.Addr().(*net.TCPAddr).AddrPort())
	})
	get := func(c net.Conn, path string) {
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: api\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
	}
	read := func(c net.Conn) string {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	fresh, idle, busy := r.dial(), r.dial(), r.dial()
	get(idle, "/")
	if s := read(idle); s != "done" {
		t.Fatalf("got %q", s)
	}
	get(busy, "/slow")
	<-arrived
	// The response reaches the client before the exchange is done with.
	eventually(t, func() bool {
		sessions, working := 0, 0
		for _, c := range r.l.snapshot() {
			if s := c.session.Load(); s != nil {
				sessions++
				if s.Busy() {
					working++
				}
			}
		}
		return sessions == 3 && working == 1
	})
	states := map[string]State{}
	for _, s := range r.l.States(10) {
		states[s.Peer.Addr.String()] = s
	}
	for c, want := range map[net.Conn]State{fresh: {}, idle: {Exchanges: 1}, busy: {Exchanges: 1, Busy: true}} {
		if s := states[c.LocalAddr().String()]; s.Busy != want.Busy || s.Exchanges != want.Exchanges {
			t.Errorf("state %+v, want %+v", s, want)
		}
	}
	r.l.CloseIdle()
	isEnded(t, fresh)
	isEnded(t, idle)
	close(answer)
	if s := read(busy); s != "done" {
		t.Errorf("the exchange under way got %q", s)
	}
}

func TestRecheckEndsWhomTheRulesRefuseNow(t *testing.T) {
	other := "spiffe://test.example/other"
	r := start(t, func(p *plan.Listener) { p.Route.Authz = policy(t, "*") })
	web := r.caller()
	echoes(t, web, "hello")
	c := r.secure(authority().Issue(other, nil))
	echoes(t, c, "hello")
	if n := r.l.Recheck(); n != 0 {
		t.Fatalf("%d ended under the same rules", n)
	}
	r.change(func(p *plan.Listener) { p.Route.Authz = policy(t, callerID) })
	if n := r.l.Recheck(); n != 1 {
		t.Errorf("%d ended, want 1", n)
	}
	isEnded(t, c)
	echoes(t, web, "still here")
	// And a new one is refused from the start.
	isEnded(t, r.secure(authority().Issue(other, nil)))
}

func TestRecheckEndsPlaintextWhereItIsNoLongerPermitted(t *testing.T) {
	r := start(t, func(p *plan.Listener) { p.Security = plan.Permissive })
	secure, plaintext := r.caller(), r.dial()
	echoes(t, secure, "hello")
	echoes(t, plaintext, "hello")
	r.change(func(p *plan.Listener) { p.Security = plan.Strict })
	if n := r.l.Recheck(); n != 1 {
		t.Errorf("%d ended, want 1", n)
	}
	isEnded(t, plaintext)
	echoes(t, secure, "still here")
}

func TestPlaintextThatWasSniffedUnderAnOlderPlan(t *testing.T) {
	r := start(t, func(p *plan.Listener) { p.Security, p.Protocol = plan.Permissive, plan.HTTP })
	c := r.dial()
	eventually(t, func() bool { return r.l.Connections() == 1 })
	r.change(func(p *plan.Listener) { p.Security = plan.Strict })
	r.l.Recheck()
	_, _ = c.Write([]byte("BAD\r\n\r\n"))
	isEnded(t, c)
}

func TestManyConnectionsAtOnce(t *testing.T) {
	const many = 2000
	r := start(t, func(p *plan.Listener) { clear(p); p.Protocol = plan.HTTP })
	list := make([]net.Conn, many)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < many; i += 8 {
				c, err := net.Dial("tcp", r.l.Address().String())
				if err != nil {
					t.Error(err)
					return
				}
				list[i] = c
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	eventually(t, func() bool { return r.l.Connections() == many && r.m.Active.Value() == many })
	for i, s := range r.l.States(many + 1) {
		if i > 0 && s.Since.Before(r.l.States(1)[0].Since) {
			t.Fatal("the oldest is not first")
		}
		if i > 3 {
			break
		}
	}
	// A third goes away, a third is ended as idle, the rest at once.
	for _, c := range list[:many/3] {
		_ = c.Close()
	}
	eventually(t, func() bool { return r.l.Connections() == many-many/3 })
	r.l.CloseIdle()
	r.l.Stop()
	r.l.CloseAll()
	r.ended()
	for _, c := range list {
		_ = c.Close()
	}
}

func TestAcceptTrouble(t *testing.T) {
	var trouble acceptTrouble
	now := time.Unix(1000, 0)
	if trouble.over(now) {
		t.Error("over before it began")
	}
	for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		pause, first := trouble.failed(now)
		if pause != want*time.Millisecond || first != (i == 0) {
			t.Fatalf("failure %d: pause %s, first %v", i, pause, first)
		}
		now = now.Add(pause)
	}
	// It works now and then: the pauses begin anew, but nothing is said.
	if trouble.over(now) {
		t.Error("over at once")
	}
	if pause, first := trouble.failed(now.Add(time.Second)); pause != minAcceptPause || first {
		t.Errorf("pause %s, first %v", pause, first)
	}
	if now = now.Add(time.Minute); !trouble.over(now) || trouble.over(now) {
		t.Error("not over exactly once")
	}
	if _, first := trouble.failed(now); !first {
		t.Error("a new trouble passes for the old one")
	}
}

// starved is set in the environment of a process that is to serve with too few
// file descriptors.
const starved = "OUTRIGGER_TEST_STARVED"

// serveStarved is that process. It prints its address, then the log, and ends
// with its input.
func serveStarved() {
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fail(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 48, Max: 48}))
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	metrics, err := telemetry.New(telemetry.Options{})
	fail(err)
	sw := wire.NewSweeper(time.Now())
	cluster := upstream.NewRegistry(context.Background(), sw, metrics, log).
		Acquire(upstream.Spec{Name: "api", Local: true, Policy: upstream.Policy{Balance: balance.Default()}}, telemetry.Inbound)
	srv := &exchange.Server{Sweeper: sw, Log: log, LocalID: func() string { return "" }, Draining: new(atomic.Bool)}
	l, err := Bind(&plan.Listener{
		Name: "inbound", Address: "127.0.0.1:0", Protocol: plan.HTTP,
		Route: plan.Route{Name: "api", Cluster: cluster}, Metrics: metrics.Listener(telemetry.Inbound, "inbound"),
	}, srv, log)
	fail(err)
	fmt.Println(l.Address())
	done := make(chan error)
	go func() { done <- l.Run(context.Background()) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	l.Stop()
	l.CloseAll()
	fail(<-done)
	fmt.Println("served with", l.Plan().Metrics.AcceptErrors.Value() > 0, "errors")
}

func TestOutOfFileDescriptors(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), starved+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	address := lines.Text()
	var list []net.Conn
	for range 150 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		list = append(list, c)
	}
	for lines.Scan() && !strings.Contains(lines.Text(), "accept_failed") {
	}
	if !strings.Contains(lines.Text(), "too many open files") {
		t.Errorf("logged %q", lines.Text())
	}
	// Those within the bound are served, and with them gone the others.
	var wg sync.WaitGroup
	for _, c := range list {
		wg.Go(func() {
			defer c.Close()
			_, _ = c.Write([]byte("BAD\r\n\r\n"))
			if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
				t.Errorf("got %.40q, %v", b, err)
			}
		})
	}
	wg.Wait()
	_ = in.Close()
	last := ""
	failures := 0
	for lines.Scan() {
		last = lines.Text()
		if strings.Contains(last, "accept_failed") {
			failures++
		}
	}
	if err := cmd.Wait(); err != nil || last != "served with true errors" {
		t.Errorf("it ended with %v, %q", err, last)
	}
	if failures != 0 {
		t.Errorf("the same trouble was logged %d times more", failures)
	}
}
