package proxy

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	own "github.com/outrigger-mesh/outrigger/proxy/http2"
)

// journal is a log that is read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), text)
}

// fields is a block of field names and values.
func fields(list ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(list); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return b.Bytes()
}

// TestFloodsAreCounted: whoever sends too much that is no work is stopped, each
// kind has its counter, and the log a line, but not one for each connection.
func TestFloodsAreCounted(t *testing.T) {
	post := fields(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/")
	open := func(f *http2.Framer, id uint32, end, endHeaders bool) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: post, EndStream: end, EndHeaders: endHeaders})
	}
	// Each sends one frame of the flood, the i-th.
	kinds := map[own.Flood]func(f *http2.Framer, i uint32) error{
		own.FloodReset: func(f *http2.Framer, i uint32) error {
			if err := open(f, 1+2*i, true, true); err != nil {
				return err
			}
			return f.WriteRSTStream(1+2*i, http2.ErrCodeCancel)
		},
		own.FloodContinuation: func(f *http2.Framer, i uint32) error {
			if i == 0 {
				return open(f, 1, false, false)
			}
			return f.WriteContinuation(1, false, []byte{0x82})
		},
		own.FloodSettings: func(f *http2.Framer, _ uint32) error { return f.WriteSettings() },
		own.FloodPing:     func(f *http2.Framer, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		own.FloodEmptyData: func(f *http2.Framer, i uint32) error {
			if i == 0 {
				return open(f, 1, false, true)
			}
			return f.WriteData(1, false, nil)
		},
		own.FloodWindow: func(f *http2.Framer, _ uint32) error { return f.WriteWindowUpdate(0, 1) },
		own.FloodPriority: func(f *http2.Framer, _ uint32) error {
			return f.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		},
		own.FloodHeaders: func(f *http2.Framer, i uint32) error { // small when compressed
			block := append(fields("x", strings.Repeat("y", 3000)), bytes.Repeat([]byte{0xbe}, 10_000)...)
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1 + 2*i, BlockFragment: block, EndStream: true, EndHeaders: true})
		},
	}
	listen := address(t)
	log := new(journal)
	p := runLogging(t, fmt.Sprintf("service: {name: web, port: %d}\nadmin: {listen: \"\"}\ntelemetry: {access_log: {path: \"off\"}}\n"+
		"drain: {delay: 0s, timeout: 0s}\ninbound: {listen: \"%s\", mtls: \"off\"}\n", answering(t), listen), slog.NewTextHandler(log, nil))
	const times = 2
	for kind, send := range kinds {
		for range times {
			c, err := net.Dial("tcp", listen)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			f := http2.NewFramer(c, c)
			_, _ = io.WriteString(c, http2.ClientPreface)
			err = f.WriteSettings()
			var wrote sync.WaitGroup
			wrote.Go(func() {
				for i := uint32(0); i < 20_000 && err == nil; i++ {
					err = send(f, i)
				}
			})
			for {
				fr, err := f.ReadFrame()
				if err != nil {
					t.Fatalf("%s: no GOAWAY: %v", kind, err)
				}
				if g, ok := fr.(*http2.GoAwayFrame); ok {
					if g.ErrCode != http2.ErrCodeEnhanceYourCalm {
						t.Errorf("%s: GOAWAY with %s", kind, g.ErrCode)
					}
					break
				}
			}
			_ = c.Close()
			wrote.Wait()
		}
	}
	w := httptest.NewRecorder()
	p.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for kind := range own.Floods {
		n := 0
		if kinds[kind] != nil {
			n = times
		}
		if line := fmt.Sprintf("outrigger_http2_floods_total{kind=\"%s\"} %d\n", kind, n); !strings.Contains(w.Body.String(), line) {
			t.Errorf("the metrics lack %q", line)
		}
		if got := log.count("event=http2_flood kind=" + kind.String() + " peer=127.0.0.1:"); got != n/times {
			t.Errorf("%s: %d lines in the log", kind, got)
		}
	}
}

// TestFloodLines: after a while the log has another line, which says how many
// there were.
func TestFloodLines(t *testing.T) {
	var now time.Duration
	log := new(journal)
	f := &floods{log: slog.New(slog.NewTextHandler(log, nil)), now: func() time.Duration { return now }}
	peer := netip.MustParseAddrPort("192.0.2.1:5")
	for range 1000 {
		f.struck(own.FloodPing, peer)
		now += sayFlood / 200
	}
	f.struck(own.FloodReset, peer)
	for text, n := range map[string]int{
		"kind=ping peer=192.0.2.1:5 connections=1\n": 1, "kind=ping peer=192.0.2.1:5 connections=200\n": 4, "kind=rapid_reset": 1, "\n": 6,
	} {
		if got := log.count(text); got != n {
			t.Errorf("%d times %q, want %d", got, text, n)
		}
	}
}
