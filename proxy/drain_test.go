package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

func endpointsAt(t *testing.T, addr string) []upstream.EndpointSpec {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return []upstream.EndpointSpec{{Address: a, Weight: 1, Healthy: true, Health: "passing"}}
}

// An idle connection of the application is closed at the end of the drain and
// not taken for one that was cut off.
func TestDrainClosesIdle(t *testing.T) {
	a := address(t)
	r := run(t, upstreams(t, "one", a))
	c, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: one\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := <-r.end; err != nil {
		t.Errorf("Run returned %v", err)
	}
	if ok, checks := r.Ready(); ok || checks[0].Name != "running" {
		t.Errorf("after the end: ready %v, %+v", ok, checks)
	}
	if err := r.Apply(r.initial); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("a reload after the end: %v", err)
	}
}

// A connection in use that does not end in time is cut off, and that is told.
func TestDrainCutsOff(t *testing.T) {
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	a := address(t)
	text := strings.Replace(upstreams(t, "one", a), "listen: \""+a, "protocol: tcp, listen: \""+a, 1)
	r := run(t, text)
	r.registry.SetEndpoints("one", endpointsAt(t, app.Addr().String()))
	c, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	up, err := app.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	r.stop()
	if err := <-r.end; !errors.Is(err, ErrCutOff) {
		t.Errorf("Run returned %v", err)
	}
}
