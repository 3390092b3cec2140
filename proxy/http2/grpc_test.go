package http2

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// canceler resets the other leg of an exchange.
type canceler struct{ other *Stream }

func (c canceler) Canceled() { c.other.Reset(Cancel) }

// relay passes an exchange on to another connection, both directions at once.
func relay(k *Client) func(*Stream) {
	return func(s *Stream) {
		u, err := k.Open()
		if err != nil {
			_ = s.WriteResponse([]byte("HTTP/1.1 503 \r\n\r\n"), nil, End)
			return
		}
		defer u.Close()
		s.Notify(canceler{u})
		defer s.Notify(nil)
		f := Flags(0)
		if s.Ended {
			f = End
		}
		if u.WriteRequest(s.Head, nil, f) != nil {
			return
		}
		var up sync.WaitGroup
		if !s.Ended {
			up.Go(func() {
				if pass(u, s) != nil {
					u.Reset(Cancel)
				}
			})
		}
		defer func() {
			s.Reset(Cancel) // wakes the upload, if the response is over
			up.Wait()
		}()
		if u.ReadHead() != nil {
			return
		}
		if u.Ended {
			_ = s.WriteResponse(u.Head, nil, End)
			return
		}
		if s.WriteResponse(u.Head, nil, 0) != nil {
			return
		}
		for {
			b, err := u.Peek()
			if err == io.EOF {
				_ = s.WriteTrailers(u.Trailers())
				return
			}
			if err != nil || s.Write(b, 0) != nil {
				return
			}
			u.Discard(len(b))
		}
	}
}

func TestGRPCThroughBothSides(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	h := health.NewServer()
	h.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(g, h)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = g.Serve(ln)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-served
	})
	v := serve(t, nil, nil, relay(dial(t, ln.Addr().String(), nil, nil)))
	cc, err := grpc.NewClient("passthrough:///"+v.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := healthpb.NewHealthClient(cc)

	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { // unary
			r, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "shop"})
			if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
				t.Error(r, err)
			}
		})
		all.Go(func() { // an error, which is all trailers
			_, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "nobody"})
			if status.Code(err) != codes.NotFound {
				t.Error(err)
			}
		})
	}
	all.Wait()

	// A stream, cancelled by the client, which the server must learn.
	watching, stop := context.WithCancel(ctx)
	w, err := client.Watch(watching, &healthpb.HealthCheckRequest{Service: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		r, err := w.Recv()
		if err != nil || r.Status != want {
			t.Fatal(r, err)
		}
		h.SetServingStatus("shop", healthpb.HealthCheckResponse_NOT_SERVING)
	}
	stop()
	if _, err := w.Recv(); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	// A deadline on a stream that says nothing more.
	short, done := context.WithTimeout(ctx, 50*time.Millisecond)
	defer done()
	w, err = client.Watch(short, &healthpb.HealthCheckRequest{Service: "shop"})
	for err == nil {
		_, err = w.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
}
