package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// An instance that is killed under load costs the calls that it had, and no
// others: each of these ends with Unavailable.
func TestGRPCKilledInstance(t *testing.T) {
	t.Parallel()
	const workers = 8
	m := newMesh(t)
	list := m.grpcInstances(3, nil)
	m.catalog(addresses(list))
	web, address := m.outboundAs("grpc", "web", "api", nil)
	web.ready()
	l := startCalls(t, address, workers)
	l.more(t, 200)
	list[0].kill()
	l.more(t, 300)
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) > workers {
		t.Errorf("%d calls failed; %d were under way at most", len(l.failures), workers)
	}
	for _, f := range l.failures {
		if !strings.Contains(f, "code = Unavailable") || !strings.Contains(f, "outrigger: ") {
			t.Error(f)
		}
	}
}

// The caller's own sidecar drains under load: it takes no calls any more when
// it has ended, and has cut none off.
func TestGRPCDrainOfCaller(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.grpcInstances(1, nil)
	m.catalog(addresses(list))
	web, address := m.outboundAs("grpc", "web", "api", sections{"drain": "{delay: 0s, timeout: 10s}"})
	web.ready()
	call := dialGRPC(t, address)
	stream, err := call.FullDuplexCall(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 10}}}); err != nil {
			return err
		}
		_, err := stream.Recv()
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	web.signal(syscall.SIGTERM)
	web.says("event=drain")
	for range 5 {
		if err := ask(); err != nil {
			t.Fatalf("a stream under way: %v", err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("a message after the end")
	}
	if code := web.code(patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// An application that takes two streams on a connection gets more connections,
// not refusals.
func TestGRPCFewStreams(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.MaxConcurrentStreams(2))
	testpb.RegisterTestServiceServer(s, newGRPCApp("api"))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	p := m.pairAs("grpc", "grpc", l.Addr().(*net.TCPAddr).Port, nil, nil)
	call := dialGRPC(t, p.address)
	ctx := within(t, patience)
	var wg sync.WaitGroup
	var open sync.WaitGroup
	const many = 20
	open.Add(many)
	for i := range many {
		wg.Go(func() {
			arrived := sync.OnceFunc(open.Done)
			defer arrived()
			s, err := call.FullDuplexCall(ctx)
			if err == nil {
				err = s.Send(&testpb.StreamingOutputCallRequest{})
			}
			if err == nil {
				_, err = s.Recv()
			}
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			arrived()
			open.Wait() // all are open at once
			if err := s.CloseSend(); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// Calls that are given up at any point leave nothing behind in either sidecar,
// and the connection goes on to serve others.
func TestGRPCCancelled(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	port, _ := serveGRPC(t, newGRPCApp("api"))
	p := m.pairAs("grpc", "grpc", port, sections{"policies": "{api: {outlier: off, breaker: off}}"}, nil)
	call := dialGRPC(t, p.address)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 40 {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Duration((i*40+k)%30)*100*time.Microsecond, cancel)
				s, err := call.FullDuplexCall(ctx)
				if err == nil {
					_ = s.Send(&testpb.StreamingOutputCallRequest{
						ResponseParameters: []*testpb.ResponseParameters{{Size: 100_000}}, Payload: &testpb.Payload{Body: make([]byte, 100_000)},
					})
					for err == nil {
						_, err = s.Recv()
					}
				}
				if c := status.Code(err); c != codes.Canceled {
					t.Errorf("%v; want Canceled", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if _, err := call.EmptyCall(within(t, patience), &testpb.Empty{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	for _, s := range []*sidecar{p.web, p.api} {
		eventually(t, patience, s.name+" carries nothing any more", func() (bool, string) {
			n := s.metric("outrigger_exchanges_active")
			return n == 0, fmt.Sprint(n)
		})
	}
}
