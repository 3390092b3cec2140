package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// talk opens a connection and has one exchange with an echoing application.
func talk(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := say(c, "hello"); err != nil {
		t.Fatalf("first exchange: %v", err)
	}
	return c
}

// say sends text and waits for its echo.
func say(c net.Conn, text string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	defer func() { _ = c.SetDeadline(time.Time{}) }()
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != text {
		return fmt.Errorf("%q came back for %q", b, text)
	}
	return nil
}

// readAnswer reads an HTTP answer to its end.
func readAnswer(c net.Conn) error {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// New rules hold for connections that are open already: those of callers that
// are no longer allowed end, the others go on.
func TestRulesEndLiveConnections(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	tcp := func(listen string) sections {
		return sections{"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s", protocol: tcp}]}`, listen)}
	}
	app := serveTCP(t, echoTCP)
	both := `{rules: [{name: both, from: ["spiffe://e2e.test/web", "spiffe://e2e.test/batch"]}]}`
	api, address := m.inbound("api", app, sections{
		"service": fmt.Sprintf("{name: api, port: %d, protocol: tcp}", app), "authorization": both,
	})
	m.catalog(map[string][]string{"api": {address}})
	webAddress, batchAddress := freeAddress(t), freeAddress(t)
	web := m.sidecar("web", sections{"service": "{name: web}", "discovery": m.discovery()}.with(tcp(webAddress)))
	batch := m.sidecar("batch", sections{"service": "{name: batch}", "discovery": m.discovery()}.with(tcp(batchAddress)))
	for _, s := range []*sidecar{api, web, batch} {
		s.ready()
	}
	webConn, batchConn := talk(t, webAddress), talk(t, batchAddress)

	api.rewrite(sections{"authorization": `{rules: [{name: batch-only, from: ["spiffe://e2e.test/batch"]}]}`})
	_ = webConn.SetReadDeadline(time.Now().Add(patience))
	if n, err := webConn.Read(make([]byte, 1)); err == nil || n != 0 {
		t.Errorf("the connection of a caller that is no longer allowed gave %d bytes, error %v", n, err)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Errorf("the connection of a caller that is no longer allowed is still open")
	}
	if err := say(batchConn, "still here"); err != nil {
		t.Errorf("the connection of an allowed caller: %v", err)
	}
	api.says("rechecked", "connections")
	if c, err := net.Dial("tcp", webAddress); err == nil {
		if say(c, "again") == nil {
			t.Error("a new connection of a caller that is not allowed was carried")
		}
		_ = c.Close()
	}
	if r := api.recorded("the refusal", func(r *record) bool { return r.Reason == "denied" && r.AttemptCount == 0 }); r.DownstreamID != spiffe("web") || r.Rule != "default-deny" {
		t.Errorf("record: %+v", r)
	}
	if status, body := api.get("/connections"); status != http.StatusOK || !hasLine(body, spiffe("batch")) || hasLine(body, spiffe("web"), "busy") {
		t.Errorf("/connections: %d %s", status, body)
	}
}

// A port that turns from permissive to strict ends the connections of callers
// that came without mTLS, and takes no new ones.
func TestStrictEndsPlaintextConnections(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	listen := freeAddress(t)
	api, _ := m.inbound("api", serve(t, echo("api")), sections{"inbound": fmt.Sprintf(`{listen: "%s", mtls: permissive}`, listen)})
	m.catalog(map[string][]string{"api": {listen}})
	web, call := m.outbound("web", "api", nil)
	api.ready()
	web.ready()
	l := startLoad(t, "http://"+call+"/", loadOptions{})
	l.more(t, 10)
	c, err := net.Dial("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := readAnswer(c); err != nil {
		t.Fatal(err)
	}
	api.rewrite(sections{"inbound": fmt.Sprintf(`{listen: "%s", mtls: strict}`, listen)})
	api.applied(1)
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the plaintext connection after the change: %v", err)
	}
	resp, err := adminClient.Get("http://" + listen + "/")
	if err == nil {
		t.Errorf("plaintext after the change: %s", resp.Status)
		_ = resp.Body.Close()
	}
	l.more(t, 20)
	l.mustEnd(t, 30)
}
