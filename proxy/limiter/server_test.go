package limiter

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// raw passes messages as they are: the server under test's client shares no
// code of the codec with it.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = append([]byte(nil), b...); return nil }
func (raw) Name() string                    { return "proto" }

// behaviour is how a server answers a request.
type behaviour func(ctx context.Context, req []byte) ([]byte, error)

// server is a rate limit service that behaves as it is told.
type server struct {
	t       testing.TB
	address string
	how     atomic.Pointer[behaviour]
	calls   atomic.Int64
	server  *grpc.Server
	done    chan struct{}
}

// start has a server listen on address, which may have a port of 0.
func start(t testing.TB, address string, how behaviour, options ...grpc.ServerOption) *server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, address: l.Addr().String(), done: make(chan struct{})}
	s.how.Store(&how)
	s.server = grpc.NewServer(append(options, grpc.ForceServerCodec(raw{}), grpc.WaitForHandlers(true))...)
	s.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.ratelimit.v3.RateLimitService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "ShouldRateLimit", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var req []byte
			if err := dec(&req); err != nil {
				return nil, err
			}
			s.calls.Add(1)
			res, err := (*s.how.Load())(ctx, req)
			return &res, err
		}}},
	}, nil)
	go func() {
		defer close(s.done)
		_ = s.server.Serve(l)
	}()
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	s.server.Stop()
	<-s.done
}

func (s *server) behave(how behaviour) { s.how.Store(&how) }

// always answers all requests alike.
func always(r *response) behaviour {
	return func(context.Context, []byte) ([]byte, error) { return r.b, nil }
}

// never answers as long as somebody waits.
func never(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// patience is longer than anything here takes.
const patience = 30 * time.Second

// newSet runs a set with the wanted service.
func newSet(t testing.TB, spec Spec) *Set {
	t.Helper()
	began := time.Now()
	s := NewSet(func() time.Duration { return time.Since(began) }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	s.Use(spec)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// config is that of a service in plaintext whose answers may take long.
func config(address string, change func(*GRPC)) Spec {
	c := DefaultGRPC()
	c.Address, c.Domain, c.Transport, c.Timeout = address, "shop", Plaintext, maxTimeout
	if change != nil {
		change(&c)
	}
	return Spec{GRPC: &c, GRPCKey: "plaintext"}
}
