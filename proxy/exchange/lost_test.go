package exchange_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// runShared runs f once for each protocol in which calls share a connection to
// the endpoint, with the TLS configuration that the endpoint needs.
func runShared(t *testing.T, change func(*setup), f func(t *testing.T, b *bed, speaks string, cfg *tls.Config)) {
	for _, up := range []string{"h2", "mesh"} {
		t.Run(up, func(t *testing.T) {
			t.Parallel()
			m := plain
			if up == "mesh" {
				m = mtlsUp
			}
			b := newBed(t, m, func(s *setup) {
				s.policy.HTTP2, s.policy.Mesh = up == "h2", up == "mesh"
				if change != nil {
					change(s)
				}
			})
			var cfg *tls.Config
			if up == "mesh" {
				cfg = meshConfig(b.origin)
			}
			f(t, b, up, cfg)
		})
	}
}

// TestGoAwayUnderLoad: an endpoint goes away while calls are under way, in one
// step or in two. Those that it did not process are carried elsewhere, whatever
// their method, and none is processed twice.
func TestGoAwayUnderLoad(t *testing.T) {
	const calls, processed = 60, 20
	for _, steps := range []int{1, 2} {
		t.Run(fmt.Sprint(steps, " steps"), func(t *testing.T) {
			runShared(t, nil, func(t *testing.T, b *bed, speaks string, cfg *tls.Config) {
				var served [calls]atomic.Int32
				serve := func(o *turn) {
					var n int
					_, _ = fmt.Sscanf(o.path, "/%d", &n)
					served[n].Add(1)
					o.answer(200, true)
				}
				b.to(b.anotherBy(cfg, func(c *originConn) {
					opened := make(chan *turn, 2*calls)
					p := newParty(speaks, c.sock, c.Conn, opened)
					var all sync.WaitGroup
					all.Go(func() {
						n := 0
						for o := range opened {
							n++
							switch {
							case c.number > 1:
								serve(o)
							case n < processed:
								serve(o)
							case n == processed:
								p.mu.Lock()
								if steps == 2 {
									_ = p.f.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
								}
								_ = p.f.WriteGoAway(o.id, http2.ErrCodeNo, nil)
								p.mu.Unlock()
								serve(o)
							}
						}
					})
					p.read()
					close(opened)
					all.Wait()
				}))
				tr := &http.Transport{}
				client := &http.Client{Transport: tr, Timeout: patience}
				b.onStop(tr.CloseIdleConnections)
				var all sync.WaitGroup
				for i := range calls {
					all.Go(func() {
						res, err := client.Post(fmt.Sprintf("http://%s/%d", b.ln.Addr(), i), "text/plain", strings.NewReader("once"))
						if err != nil {
							t.Error(err)
							return
						}
						defer res.Body.Close()
						if res.StatusCode != 200 {
							t.Errorf("call %d: status %d, %s", i, res.StatusCode, res.Header.Get("x-outrigger-reason"))
						}
					})
				}
				all.Wait()
				for i := range served {
					if n := served[i].Load(); n != 1 {
						t.Errorf("call %d was processed %d times", i, n)
					}
				}
			})
		})
	}
}

// hole is a path to an endpoint that can stop to carry anything, as when packets
// are lost, without an end of the connections.
type hole struct {
	addr net.Addr
	lost chan struct{} // closed when it does
	done chan struct{}
}

func (b *bed) hole(to net.Addr) *hole {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	h := &hole{ln.Addr(), make(chan struct{}), make(chan struct{})}
	var all sync.WaitGroup
	carry := func(to, from net.Conn) {
		p := make([]byte, 32<<10)
		for {
			n, err := from.Read(p)
			select {
			case <-h.lost:
				<-h.done
			default:
			}
			if n > 0 {
				_, _ = to.Write(p[:n])
			}
			if err != nil {
				_ = to.Close()
				return
			}
		}
	}
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to.String())
			if err != nil {
				_ = c.Close()
				continue
			}
			all.Go(func() { carry(far, c) })
			all.Go(func() { carry(c, far) })
			all.Go(func() { <-h.done; _ = c.Close(); _ = far.Close() })
		}
	})
	b.onStop(func() {
		_ = ln.Close()
		close(h.done)
		all.Wait()
	})
	return h
}

// TestLostConnection: a connection on which nothing comes any more is found by
// PING. The call on it is answered as one whose connection broke, which blames
// the endpoint and may be tried again, and the next calls go elsewhere.
func TestLostConnection(t *testing.T) {
	for _, method := range []string{"POST", "GET"} {
		t.Run(method, func(t *testing.T) {
			runShared(t, func(s *setup) {
				s.pingAfter = 200 * time.Millisecond
				s.policy.Retry = retrying(2)
			}, func(t *testing.T, b *bed, speaks string, cfg *tls.Config) {
				opened := make(chan *turn, 10)
				endpoint := func() *origin {
					return b.anotherBy(cfg, func(c *originConn) { newParty(speaks, c.sock, c.Conn, opened).read() })
				}
				first, second := endpoint(), endpoint()
				h := b.hole(first.ln.Addr())
				at := upstream.EndpointSpec{Address: addrOf(h.addr), Weight: 1, Healthy: true}
				b.cluster.SetLocal([]upstream.EndpointSpec{at})
				c := b.dial()
				c.send(method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nonce")
				select {
				case <-opened:
				case <-time.After(patience):
					t.Fatal("the request did not come")
				}
				close(h.lost)
				b.cluster.SetLocal([]upstream.EndpointSpec{at, {Address: second.addr, Weight: 1, Healthy: true}})
				answer := func() {
					select {
					case o := <-opened:
						o.answer(204, true)
					case <-time.After(patience):
						t.Error("no request came to the other endpoint")
					}
				}
				if method == "GET" { // tried again
					answer()
					if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 204 ") {
						t.Errorf("got %q", head)
					}
					r := b.wantReasons("ok")
					if len(r) == 1 && r[0].Attempts != 2 {
						t.Errorf("%d attempts", r[0].Attempts)
					}
					return
				}
				c.reply(503, "upstream_reset")
				b.wantReasons("upstream_reset")
			})
		})
	}
}

// TestLostCaller: the same from the other side. What is carried for a caller that
// is gone without a word ends, at the endpoint too.
func TestLostCaller(t *testing.T) {
	for _, down := range []string{"h2", "mesh"} {
		t.Run(down, func(t *testing.T) {
			t.Parallel()
			m := plain
			if down == "mesh" {
				m = mtlsDown
			}
			b := newBed(t, m, func(s *setup) {
				s.http2, s.mesh, s.pingAfter = true, down == "mesh", 200*time.Millisecond
			})
			ended := make(chan struct{})
			b.start(func(c *originConn) {
				c.head()
				_, _ = io.Copy(io.Discard, c.br)
				close(ended)
			})
			c := b.dial()
			if down == "mesh" {
				cfg := b.clientConfig()
				cfg.NextProtos = []string{meshConfig(b.proxy).NextProtos[0]}
				c.Conn = tls.Client(c.sock, cfg)
			}
			p := newParty(down, c.sock, c.Conn, nil)
			p.turn(1, "").request("GET", "/", true)
			// It reads nothing, and so answers no PING.
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("the endpoint was not told")
			}
			b.wantReasons("downstream_gone")
		})
	}
}
