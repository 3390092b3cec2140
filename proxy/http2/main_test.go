package http2

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// patience bounds what would otherwise hang when the code under test fails.
const patience = 20 * time.Second

// configs are made once: signing takes longer than most tests.
var configs = sync.OnceValues(func() (server, client *tls.Config) {
	return testkit.NewCA(failing{}).MutualTLS()
})

// failing is the testing.TB of what is made outside of any one test.
type failing struct{ testing.TB }

func (failing) Helper()           {}
func (failing) Fatal(args ...any) { panic(args) }

// tlsConfigs returns configurations that agree on h2.
func tlsConfigs() (server, client *tls.Config) {
	server, client = configs()
	server, client = server.Clone(), client.Clone()
	server.NextProtos, client.NextProtos = []string{"h2"}, []string{"h2"}
	server.ClientAuth = tls.NoClientCert
	return server, client
}

// serving is a listener whose connections are served by the code under test.
type serving struct {
	addr string

	mu    sync.Mutex
	conns []*Server
	errs  []error
}

// serve serves connections of a listener on loopback until the test ends.
func serve(t testing.TB, tlsConfig *tls.Config, cfg *Config, handle func(*Stream)) *serving {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &serving{addr: ln.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			sock, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				c, err := wire.New(sock.(*net.TCPConn), nil)
				if err != nil {
					return
				}
				defer c.Close()
				if tlsConfig != nil {
					if c.Server(tlsConfig, time.Now().Add(patience)) != nil {
						return
					}
				}
				s := NewServer(c, cfg, handle)
				v.mu.Lock()
				v.conns = append(v.conns, s)
				v.mu.Unlock()
				err = s.Serve()
				v.mu.Lock()
				v.errs = append(v.errs, err)
				v.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		for _, s := range v.all() {
			s.Close()
		}
		all.Wait()
	})
	return v
}

func (v *serving) all() []*Server {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]*Server(nil), v.conns...)
}

// dial returns a client of the code under test, which runs until the test ends.
func dial(t testing.TB, addr string, tlsConfig *tls.Config, cfg *Config) *Client {
	t.Helper()
	sock, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.New(sock.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if tlsConfig != nil {
		if err := c.Client(tlsConfig, time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	k := NewClient(c, cfg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Run()
		_ = c.Close()
	}()
	t.Cleanup(func() {
		k.Close()
		<-done
	})
	return k
}

// sweeping returns a sweeper that runs until the test ends.
func sweeping(t testing.TB) *Sweeper {
	base := time.Now()
	w := NewSweeper(func() time.Duration { return time.Since(base) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

// eventually waits until f holds.
func eventually(t testing.TB, f func() bool) {
	t.Helper()
	testkit.Eventually(t, "it comes to be", f)
}

// answer is the answer to a request, as it crosses the package's border.
type answer struct {
	heads    []string
	body     string
	trailers string
}

// roundTrip carries one exchange.
func roundTrip(k *Client, head, body string, trailers string) (a answer, err error) {
	s, err := k.Open()
	if err != nil {
		return a, err
	}
	defer s.Close()
	f := Flags(0)
	if trailers == "" {
		f = End
	}
	if err := s.WriteRequest([]byte(head), []byte(body), f); err != nil {
		return a, err
	}
	if trailers != "" {
		if err := s.WriteTrailers([]byte(trailers)); err != nil {
			return a, err
		}
	}
	for {
		if err := s.ReadHead(); err != nil {
			return a, err
		}
		a.heads = append(a.heads, string(s.Head))
		if s.Head[9] != '1' {
			break
		}
	}
	b, err := io.ReadAll(reader{s})
	a.body, a.trailers = string(b), string(s.Trailers())
	return a, err
}

// reader hides that a Stream is more.
type reader struct{ *Stream }

// echo answers a request with its own head, body and trailers.
func echo(s *Stream) {
	head := append([]byte(nil), s.Head...)
	if s.WriteResponse([]byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n"), head, 0) != nil {
		return
	}
	for {
		b, err := s.Peek()
		if err == io.EOF {
			if tr := s.Trailers(); tr != nil {
				_ = s.WriteTrailers(tr)
			} else {
				_ = s.Write(nil, End)
			}
			return
		}
		if err != nil || s.Write(b, 0) != nil {
			return
		}
		s.Discard(len(b))
	}
}
