package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// parse makes a configuration from text.
func parse(t *testing.T, text string) *config.Loaded {
	t.Helper()
	l, err := config.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// running is a proxy that serves until the test ends.
type running struct {
	*Proxy
	stop context.CancelFunc
	end  chan error // what Run has returned
}

// run starts a proxy and waits for its first plan.
func run(t *testing.T, text string) *running {
	t.Helper()
	return runLogging(t, text, slog.DiscardHandler)
}

// runLogging is run with somewhere for the log.
func runLogging(t *testing.T, text string, log slog.Handler) *running {
	t.Helper()
	p, err := New(Options{Config: parse(t, text), Log: slog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{p, stop, make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.end <- p.Run(ctx, context.Background())
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	soon(t, "the first plan is in use", func() bool { return p.current.Load() != nil })
	return r
}

// soon waits until what is true.
func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !is() {
		if !sleep(ctx, 5*time.Millisecond) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

var ports = testkit.Ports{Low: 26000, High: 28000}

// address is one of loopback that is free.
func address(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", ports.Free(t))
}

// upstreams is a configuration of a service that only calls others, in
// plaintext: name and address of each by turns.
func upstreams(t *testing.T, pairs ...string) string {
	t.Helper()
	var list []string
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, fmt.Sprintf(`{service: %s, listen: "%s"}`, pairs[i], pairs[i+1]))
	}
	return fmt.Sprintf("service: {name: web}\nadmin: {listen: \"\"}\ntelemetry: {access_log: {path: \"off\"}}\ndrain: {delay: 0s, timeout: 1s}\n"+
		"discovery: {file: {path: \"%s\"}}\npolicies: {\"*\": {transport: plaintext}}\noutbound: {upstreams: [%s]}\n",
		filepath.Join(t.TempDir(), "catalog.yaml"), strings.Join(list, ", "))
}

func open(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}
