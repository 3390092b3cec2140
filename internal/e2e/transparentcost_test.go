package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// processTime is the CPU time that a process has taken, and the test's own.
func processTime(t *testing.T, pid int) (its, ours time.Duration) {
	t.Helper()
	// In nanoseconds; /proc/PID/stat counts in ticks of 10 ms.
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
		if err != nil {
			continue // the thread has ended, or the kernel does not tell
		}
		n, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		its += time.Duration(n)
	}
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return its, time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// What a redirected connection costs beside one to a listener of the upstream's
// own: CPU time of the proxy for each connection with one request, and for each
// request on connections that stay. It is told and not judged, as it is another
// one on each machine; run it with OUTRIGGER_MEASURE=1 and -v.
func TestTransparentCost(t *testing.T) {
	if os.Getenv("OUTRIGGER_MEASURE") == "" {
		t.Skip("a measurement; set OUTRIGGER_MEASURE=1")
	}
	if !alone(t) {
		return
	}
	m := newMesh(t)
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
	ln := listenAt(t, "127.0.0.1:0")
	go func() { _ = app.Serve(ln) }()
	t.Cleanup(func() { _ = app.Close() })
	m.catalog(map[string][]string{"api": {ln.Addr().String()}})
	web := m.prepare("web", sections{
		"service":   "{name: web}",
		"discovery": m.discovery(),
		"outbound":  outboundTransparent("{}", `[{service: api, listen: "127.0.0.1:9001", addresses: ["240.0.0.5"]}]`),
		"policies":  `{api: {transport: plaintext}}`,
		"telemetry": `{access_log: {path: "off"}}`,
	})
	web.launch()
	web.ready()

	request := []byte("GET / HTTP/1.1\r\nHost: api\r\n\r\n")
	call := func(c net.Conn, r *bufio.Reader) error {
		if _, err := c.Write(request); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	work := func(address string, conns, requests int) (proxy, both time.Duration) {
		p0, c0 := processTime(t, web.cmd.Process.Pid)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range conns / 4 {
					c, err := net.Dial("tcp", address)
					if err != nil {
						t.Error(err)
						return
					}
					r := bufio.NewReader(c)
					for range requests {
						if err := call(c, r); err != nil {
							t.Error(err)
							break
						}
					}
					_ = c.(*net.TCPConn).SetLinger(0) // leaves no port behind that waits
					_ = c.Close()
				}
			})
		}
		all.Wait()
		p1, c1 := processTime(t, web.cmd.Process.Pid)
		n := time.Duration(conns * requests)
		return (p1 - p0) / n, (p1 - p0 + c1 - c0) / n
	}
	const rounds = 7
	for _, load := range []struct {
		name            string
		conns, requests int
	}{{"connection with one request", 2000, 1}, {"request", 8, 1000}} {
		type cost struct{ proxy, both []time.Duration }
		var listen, rules, redirected, virtual cost
		measure := func(c *cost, address string) {
			p, b := work(address, load.conns, load.requests)
			c.proxy, c.both = append(c.proxy, p), append(c.both, b)
		}
		for range rounds {
			tool(t, "nft", "flush ruleset", "-f", "-")
			measure(&listen, "127.0.0.1:9001")
			redirect(t, interceptPort)
			measure(&rules, "127.0.0.1:9001")
			measure(&virtual, "240.0.0.5:80")
			redirect(t, 9001)
			measure(&redirected, "240.0.0.5:80")
		}
		median := func(d []time.Duration) time.Duration {
			slices.Sort(d)
			return d[len(d)/2]
		}
		t.Logf("CPU for each %s, median of %d:", load.name, rounds)
		for _, c := range []struct {
			name string
			c    *cost
		}{{"own listener, no rules", &listen}, {"own listener, rules", &rules}, {"redirected there", &redirected}, {"virtual address", &virtual}} {
			t.Logf("  %-24s proxy %8s   proxy, client and server %8s", c.name, median(c.c.proxy), median(c.c.both))
		}
	}
}
