package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Datagrams reach a service and its answers come back, in one flow.
func TestUDP(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, from, err := app.ReadFromUDP(buf)
			if err != nil {
				return
			}
			_, _ = app.WriteToUDP([]byte(fmt.Sprint(from.Port, " ", string(buf[:n]))), from)
		}
	}()
	t.Cleanup(func() { app.Close(); <-ended })
	m.catalog(map[string][]string{"time": {app.LocalAddr().String()}})
	listen := freeAddress(t)
	conf := func(idle string) sections {
		return sections{
			"identity": "", "service": "{name: web}", "discovery": m.discovery(),
			"outbound": fmt.Sprintf(`{udp: [{service: time, listen: "%s", idle_timeout: %s}]}`, listen, idle),
			"policies": "{time: {transport: plaintext}}",
		}
	}
	web := m.sidecar("web", conf("1m"))
	web.ready()
	c, err := net.Dial("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(text string) string {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 2048)
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	first := ask("hello")
	if !strings.HasSuffix(first, " hello") {
		t.Fatalf("got %q", first)
	}
	if again := ask("hello"); again != first {
		t.Errorf("another flow: %q, then %q", first, again)
	}
	if status, body := web.get("/metrics"); status != 200 || !strings.Contains(body, `listener="udp:time"`) {
		t.Errorf("metrics: %d\n%s", status, body)
	}
}
