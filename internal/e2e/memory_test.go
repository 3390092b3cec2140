package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	memoryBudget = 48 << 20
	// memoryMargin is how much more the process may have for a moment: what comes
	// between two looks at it.
	memoryMargin = 4 << 20
)

// A proxy with a budget stays within it whatever its peers do, goes on serving
// small requests, and gives nothing up any more when they have gone.
func TestMemoryBudget(t *testing.T) {
	m := newMesh(t)
	app := serve(t, echo("api"))
	m.catalog(map[string][]string{"api": {loopback(app)}})
	call := freeAddress(t)
	web := m.prepare("web", sections{
		"service": "{name: web}", "identity": "", "discovery": m.discovery(),
		"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s"}]}`, call),
		"policies": "{api: {transport: plaintext, limits: {max_connections: 0}}}",
	})
	web.process = spawn(t, "web", exec.Command(program, "run", "--config", web.config, "--memory", "48MiB"))
	web.ready()
	web.says("event=limits", "memory_limit=50331648", `memory_from="memory budget"`)

	most := watchMemory(t, web)
	good := startGood(t, call)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var bad sync.WaitGroup
	bad.Go(func() { idlers(ctx, call, 3000) })
	bad.Go(func() { slowReaders(ctx, call, 600) })
	bad.Go(func() { unreadStreams(ctx, call, 40, 100) })
	web.counts(1, "outrigger_memory_levels_total", `level="narrow"`)
	// In the thick of it.
	before := good.ok.Load()
	eventually(t, patience, "small requests are served under attack", func() (bool, string) {
		return good.ok.Load() >= before+200, good.String()
	})
	var overview struct {
		Process struct {
			Memory struct {
				Budget, Used int64
				Level        string
			}
		}
	}
	web.view("/", &overview)
	if k := overview.Process.Memory; k.Budget != memoryBudget || k.Used == 0 || k.Level == "" {
		t.Errorf("the admin API shows %+v", k)
	}
	t.Logf("under attack: %v; %d MiB at most", good, most.Load()>>20)
	_, given := web.get("/metrics")
	for line := range strings.Lines(given) {
		if strings.HasPrefix(line, "outrigger_memory") {
			t.Log(strings.TrimSpace(line))
		}
	}
	stop()
	bad.Wait()

	eventually(t, patience, "nothing is given up any more", func() (bool, string) {
		v := web.metric("outrigger_memory_level")
		return v == 0, fmt.Sprint(v)
	})
	failed := good.failed.Load()
	before = good.ok.Load()
	eventually(t, patience, "all small requests are served", func() (bool, string) {
		return good.ok.Load() >= before+100, good.String()
	})
	if n := good.failed.Load(); n > failed+1 {
		t.Errorf("%d small requests failed after the attack", n-failed)
	}
	web.says("event=memory_level", "level=WARN", "before=easy")
	web.says("event=memory_level", "level=easy")
	if n := most.Load(); n > memoryBudget+memoryMargin {
		t.Errorf("the process had %d KiB, of a budget of %d and a margin of %d", n>>10, memoryBudget>>10, memoryMargin>>10)
	}
}

// watchMemory returns the most that the process was seen to have, until the
// test ends.
func watchMemory(t *testing.T, s *sidecar) *atomic.Int64 {
	most := new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if n := resident(t, s.cmd.Process.Pid); n > most.Load() {
					most.Store(n)
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return most
}

// good is a well-behaved client: one small request after the other, again when
// it is told to.
type good struct{ ok, refused, failed atomic.Int64 }

func (g *good) String() string {
	return fmt.Sprintf("%d served, %d answered 503, %d failed", g.ok.Load(), g.refused.Load(), g.failed.Load())
}

func startGood(t *testing.T, address string) *good {
	g := &good{}
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/small", nil)
			resp, err := client.Do(req)
			if err != nil {
				g.failed.Add(1)
				time.Sleep(10 * time.Millisecond) // as a client does before it tries again
				continue
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			switch {
			case err != nil:
				g.failed.Add(1)
			case resp.StatusCode == http.StatusOK:
				g.ok.Add(1)
			default:
				g.refused.Add(1)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		client.CloseIdleConnections()
	})
	return g
}

// attack opens n connections on which begin is called, again those that were
// refused, and holds them until ctx ends.
func attack(ctx context.Context, address string, n int, begin func(net.Conn) error) {
	var held []net.Conn
	for len(held) < n && ctx.Err() == nil {
		c, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if begin(c) != nil {
			_ = c.Close()
			time.Sleep(time.Millisecond)
			continue
		}
		held = append(held, c)
	}
	<-ctx.Done()
	for _, c := range held {
		_ = c.Close()
	}
}

// idlers have made one request and say nothing more.
func idlers(ctx context.Context, address string, n int) {
	attack(ctx, address, n, func(c net.Conn) error {
		if _, err := io.WriteString(c, "GET /small HTTP/1.1\r\nHost: api\r\n\r\n"); err != nil {
			return err
		}
		_, err := bufio.NewReaderSize(c, 16).ReadByte()
		return err
	})
}

// slowReaders ask for much and read none of it.
func slowReaders(ctx context.Context, address string, n int) {
	attack(ctx, address, n, func(c net.Conn) error {
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		_, err := io.WriteString(c, "GET /bytes/100000000 HTTP/1.1\r\nHost: api\r\n\r\n")
		return err
	})
}

// unreadStreams open streams for much on each of n connections by HTTP/2 and read
// nothing.
func unreadStreams(ctx context.Context, address string, n, streams int) {
	attack(ctx, address, n, func(c net.Conn) error {
		b := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00")
		const path = "/bytes/100000000"
		block := append([]byte{0x82, 0x86, 0x04, byte(len(path))}, path...) // GET, http, :path
		block = append(block, 0x01, 3, 'a', 'p', 'i')                       // :authority
		for i := range streams {
			b = append(b, 0, 0, byte(len(block)), 1, 5)
			b = binary.BigEndian.AppendUint32(b, uint32(2*i+1))
			b = append(b, block...)
		}
		_, err := c.Write(b)
		return err
	})
}
