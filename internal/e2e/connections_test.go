package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// client is a raw HTTP connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

// get sends a request and reads the answer, whose body is "ok".
func (c *client) get() error {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: api\r\n\r\n")); err != nil {
		return err
	}
	first, err := c.r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(first, "HTTP/1.1 200") {
		return fmt.Errorf("answer %q", first)
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
	}
	b := make([]byte, 2)
	_, err = c.r.Read(b)
	return err
}

// plain is a sidecar in front of an application in plaintext, which is all
// that a test of connections needs.
func (m *mesh) plain(app int, more sections) (*sidecar, string) {
	m.t.Helper()
	m.catalog(map[string][]string{"api": {loopback(app)}})
	return m.outbound("web", "api", sections{"identity": "", "policies": "{api: {transport: plaintext}}"}.with(more))
}

// Five thousand connections at once are all served; when they have gone, so
// have their goroutines and their memory.
func TestManyConnections(t *testing.T) {
	const many = 5000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < 2*many {
		missing(t, fmt.Sprintf("the limit of file descriptors is %d", limit.Max))
	}
	app := serveTCP(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); err != nil {
					return
				}
			}
		}
	})
	m := newMesh(t)
	web, call := m.plain(app, sections{"policies": "{api: {transport: plaintext, limits: {max_connections: 64, max_pending: 10000}, connect_timeout: 30s}}"})
	web.ready()
	goroutines, memory := web.metric("go_goroutines"), web.metric("process_resident_memory_bytes")
	clients := make([]*client, many)
	var wg sync.WaitGroup
	errs := make(chan error, many)
	slots := make(chan struct{}, 64)
	each := func(what func(i int) error) {
		t.Helper()
		for i := range clients {
			wg.Add(1)
			slots <- struct{}{}
			go func() {
				defer wg.Done()
				defer func() { <-slots }()
				if err := what(i); err != nil {
					errs <- fmt.Errorf("connection %d: %w", i, err)
				}
			}()
		}
		wg.Wait()
		select {
		case err := <-errs:
			t.Fatalf("%d and more failures: %v", 1+len(errs), err)
		default:
		}
	}
	each(func(i int) error {
		c, err := net.Dial("tcp", call)
		if err != nil {
			return err
		}
		clients[i] = &client{c, bufio.NewReaderSize(c, 512)}
		return clients[i].get()
	})
	defer func() {
		for _, c := range clients {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	// All are open now, and each is served again.
	if n := web.metric("outrigger_listener_connections_active"); n != many {
		t.Errorf("%v connections are open; %d were made", n, many)
	}
	each(func(i int) error { return clients[i].get() })
	open := web.metric("process_resident_memory_bytes")
	if perConnection := (open - memory) / many; perConnection > 32<<10 {
		t.Errorf("%.0f bytes for each open connection", perConnection)
	}
	for _, c := range clients {
		_ = c.Close()
	}
	eventually(t, patience, "the goroutines of the connections have ended", func() (bool, string) {
		n := web.metric("go_goroutines")
		return n < goroutines+100, fmt.Sprintf("there are %v; %v at the start", n, goroutines)
	})
	// One more round must not need more memory than the first.
	eventually(t, patience, "the heap is small again", func() (bool, string) {
		web.get("/debug/pprof/heap?gc=1") // else it is collected when enough is thrown away
		n := web.metric("go_memstats_heap_inuse_bytes")
		return n < 48<<20, fmt.Sprintf("%v bytes", n)
	})
}

// A proxy that has run out of file descriptors does not end and does not spin:
// it accepts again as soon as it can.
func TestOutOfFileDescriptors(t *testing.T) {
	t.Parallel()
	sh := need(t, "sh")
	app := serve(t, echo("api"))
	m := newMesh(t)
	m.catalog(map[string][]string{"api": {loopback(app)}})
	call := freeAddress(t)
	web := m.prepare("web", sections{
		"service": "{name: web}", "identity": "", "discovery": m.discovery(),
		"policies": "{api: {transport: plaintext}}",
		"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s"}]}`, call),
	})
	web.process = spawn(t, "web", exec.Command(sh, "-c", `ulimit -Sn 100 && ulimit -Hn 100 && exec "$0" run --config "$1"`, program, web.config))
	web.ready()
	mustSee(t, "http://"+call+"/before")
	var all []net.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	for range 200 {
		// The kernel's queue takes what the proxy does not.
		c, err := net.DialTimeout("tcp", call, patience)
		if err != nil {
			t.Fatalf("connection %d: %v", len(all), err)
		}
		all = append(all, c)
	}
	web.says("accept_failed", "too many open files")
	began := cpuTime(t, web.cmd.Process.Pid)
	time.Sleep(2 * time.Second)
	if used := cpuTime(t, web.cmd.Process.Pid) - began; used > 500*time.Millisecond {
		t.Errorf("it used %v of CPU time in 2 s of waiting for descriptors", used)
	}
	if !web.running() {
		t.Fatal("it has ended")
	}
	for _, c := range all {
		_ = c.Close()
	}
	eventually(t, patience, "it accepts again", func() (bool, string) {
		resp, err := adminClient.Get("http://" + call + "/after")
		if err != nil {
			return false, err.Error()
		}
		_ = resp.Body.Close()
		return resp.StatusCode == 200, resp.Status
	})
	web.counts(1, "outrigger_listener_accept_errors_total")
}
