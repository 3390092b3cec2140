package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A client that sends its head one byte at a time is answered 408 when its
// time is over, however many bytes it goes on to send.
func TestSlowHead(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	web, call := m.plain(serve(t, echo("api")), sections{"http": "{head_timeout: 1s}"})
	web.ready()
	c, err := net.Dial("tcp", call)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	go func() {
		for _, b := range []byte("GET /" + strings.Repeat("x", 1000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(2 * patience))
	answer, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("answer %q", answer)
	}
	if took := time.Since(began); took < 900*time.Millisecond || took > patience {
		t.Errorf("it came after %v; the head may take 1s, and what is sent takes 50s", took)
	}
	if r := web.recorded("the timeout", func(r *record) bool { return r.Reason == "downstream_timeout" }); r.Status != 408 {
		t.Errorf("record: %+v", r)
	}
}

// A body that stops coming ends the exchange after the stream's idle time.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	web, call := m.plain(serve(t, echo("api")), sections{"policies": "{api: {transport: plaintext, stream_idle_timeout: 1s}}"})
	web.ready()
	c, err := net.Dial("tcp", call)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 1000000\r\n\r\nonly this"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = c.SetReadDeadline(time.Now().Add(2 * patience))
	answer, err := io.ReadAll(c)
	if took := time.Since(began); took > patience || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("after %v: %q, %v", took, answer, err)
	}
	eventually(t, patience, "the exchange has ended", func() (bool, string) {
		n := web.metric("outrigger_exchanges_active", `direction="outbound"`)
		return n == 0, fmt.Sprint(n)
	})
}

// A client that reads a large body slowly costs no memory: the endpoint is read
// no faster than the client.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, nil)
	before := resident(t, p.web.cmd.Process.Pid)
	var clients []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /bytes/268435456 HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	b := make([]byte, 4096)
	for range 40 {
		for _, c := range clients {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	if grown := resident(t, p.web.cmd.Process.Pid) - before; grown > 24<<20 {
		t.Errorf("8 slow readers of 256 MiB each took %d MiB", grown>>20)
	}
	mustSee(t, p.call+"/others")
	for _, c := range clients {
		_ = c.Close()
	}
	for _, s := range []*sidecar{p.web, p.api} {
		eventually(t, patience, "the exchanges have ended", func() (bool, string) {
			n := s.metric("outrigger_exchanges_active")
			return n == 0, fmt.Sprint(n)
		})
	}
}

// An application that does not answer costs the caller its timeout, not more.
func TestSlowUpstream(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := serveTCP(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	p := m.pair(app, sections{"policies": "{api: {timeout: 1s}}"}, nil)
	began := time.Now()
	resp, body := fetch(t, "GET", p.call+"/", nil)
	if resp.StatusCode != 504 || resp.Header.Get("X-Outrigger-Reason") != "request_timeout" {
		t.Errorf("answer: %d %s", resp.StatusCode, body)
	}
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("after %v", took)
	}
}
