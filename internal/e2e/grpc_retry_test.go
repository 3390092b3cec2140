package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// flaky fails calls as their metadata says: x-fail is the statuses of the first
// attempts, by number and parted by commas, x-pushback what is sent with them.
type flaky struct {
	mu       sync.Mutex
	attempts []attempt
}

// attempt is one that has reached the application.
type attempt struct {
	before string        // grpc-previous-rpc-attempts
	left   time.Duration // of the call's time; 0 without a deadline
}

func (f *flaky) take() []attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.attempts
	f.attempts = nil
	return list
}

// meet notes an attempt and returns the error that it shall end with.
func (f *flaky) meet(ctx context.Context, setTrailer func(metadata.MD)) error {
	md, _ := metadata.FromIncomingContext(ctx)
	a := attempt{before: strings.Join(md["grpc-previous-rpc-attempts"], "+")}
	if d, ok := ctx.Deadline(); ok {
		a.left = time.Until(d)
	}
	f.mu.Lock()
	n := len(f.attempts)
	f.attempts = append(f.attempts, a)
	f.mu.Unlock()
	list := strings.Split(strings.Join(md["x-fail"], ""), ",")
	if n >= len(list) || list[n] == "" {
		return nil
	}
	if p := md["x-pushback"]; len(p) > 0 {
		setTrailer(metadata.Pairs("grpc-retry-pushback-ms", p[0]))
	}
	code, _ := strconv.Atoi(list[n])
	return status.Error(codes.Code(code), "as told")
}

// serve starts an application that fails as told and otherwise counts, in all
// kinds of calls, the bytes that it gets.
func (f *flaky) serve(t *testing.T, o ...grpc.ServerOption) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(o...)
	testpb.RegisterTestServiceServer(s, &flakyApp{f: f, grpcApp: newGRPCApp("api")})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().(*net.TCPAddr).Port
}

type flakyApp struct {
	*grpcApp
	f *flaky
}

func (a *flakyApp) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if err := a.f.meet(ctx, func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) }); err != nil {
		return nil, err
	}
	return &testpb.SimpleResponse{ServerId: a.name, Payload: in.Payload}, nil
}

func (a *flakyApp) StreamingInputCall(s testpb.TestService_StreamingInputCallServer) error {
	in, err := s.Recv()
	if err != nil {
		return err
	}
	n := len(in.GetPayload().GetBody())
	if err := a.f.meet(s.Context(), s.SetTrailer); err != nil {
		return err
	}
	for {
		in, err := s.Recv()
		if err == io.EOF {
			return s.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
		}
		if err != nil {
			return err
		}
		n += len(in.GetPayload().GetBody())
	}
}

func (a *flakyApp) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, s testpb.TestService_StreamingOutputCallServer) error {
	if err := a.f.meet(s.Context(), s.SetTrailer); err != nil {
		return err
	}
	for _, p := range in.ResponseParameters {
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	return nil
}

// FullDuplexCall fails only after its answer has begun where x-late is given.
func (a *flakyApp) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md["x-late"]) > 0 {
		if err := s.SendHeader(nil); err != nil {
			return err
		}
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
	if err := a.f.meet(s.Context(), s.SetTrailer); err != nil {
		return err
	}
	return a.grpcApp.FullDuplexCall(s)
}

// hops runs f with a call through one sidecar and through two. policy is that of
// the upstream.
func hops(t *testing.T, policy string, o []grpc.ServerOption, f func(t *testing.T, app *flaky, call testpb.TestServiceClient, list []*sidecar)) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("two sidecars: %v", two), func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			app := &flaky{}
			port := app.serve(t, o...)
			if two {
				p := m.pairAs("grpc", "grpc", port, sections{"policies": fmt.Sprintf("{api: {%s}}", policy)}, nil)
				f(t, app, dialGRPC(t, p.address), []*sidecar{p.web, p.api})
				return
			}
			m.catalog(map[string][]string{"api": {fmt.Sprintf("127.0.0.1:%d", port)}})
			web, address := m.outboundAs("grpc", "web", "api", sections{
				"identity": "", "policies": fmt.Sprintf("{api: {transport: plaintext, %s}}", policy),
			})
			web.ready()
			f(t, app, dialGRPC(t, address), []*sidecar{web})
		})
	}
}

const listedPolicy = "retry: {attempts: 3, grpc_statuses: [unavailable, ABORTED], backoff_base: 1ms}"

// Calls of every kind that end with a listed status and nothing else are made
// again; the others are not.
func TestGRPCRetries(t *testing.T) {
	t.Parallel()
	payload := &testpb.Payload{Body: make([]byte, 3000)}
	kinds := map[string]func(context.Context, testpb.TestServiceClient) error{
		"UnaryCall": func(ctx context.Context, call testpb.TestServiceClient) error {
			r, err := call.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload})
			if err == nil && len(r.Payload.Body) != 3000 {
				err = fmt.Errorf("%d bytes came back", len(r.Payload.Body))
			}
			return err
		},
		"StreamingInputCall": func(ctx context.Context, call testpb.TestServiceClient) error {
			s, err := call.StreamingInputCall(ctx)
			if err != nil {
				return err
			}
			for range 5 {
				if err := s.Send(&testpb.StreamingInputCallRequest{Payload: payload}); err != nil {
					break // CloseAndRecv tells why
				}
			}
			r, err := s.CloseAndRecv()
			if err == nil && r.AggregatedPayloadSize != 15000 {
				err = fmt.Errorf("%d bytes were counted", r.AggregatedPayloadSize)
			}
			return err
		},
		"StreamingOutputCall": func(ctx context.Context, call testpb.TestServiceClient) error {
			s, err := call.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 10}, {Size: 20}}})
			for n := 0; err == nil; n++ {
				if _, err = s.Recv(); err == io.EOF && n == 2 {
					return nil
				}
			}
			return err
		},
		"FullDuplexCall": func(ctx context.Context, call testpb.TestServiceClient) error {
			s, err := call.FullDuplexCall(ctx)
			if err != nil {
				return err
			}
			if md, _ := metadata.FromOutgoingContext(ctx); len(md["x-late"]) > 0 {
				if _, err := s.Header(); err != nil {
					return err
				}
			}
			for range 3 {
				if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 10}}}); err != nil {
					break // Recv tells why
				}
				if _, err := s.Recv(); err != nil {
					return err
				}
			}
			_ = s.CloseSend()
			if _, err = s.Recv(); err == io.EOF {
				return nil
			}
			return err
		},
	}
	hops(t, listedPolicy, nil, func(t *testing.T, app *flaky, call testpb.TestServiceClient, list []*sidecar) {
		for kind, do := range kinds {
			for _, c := range []struct {
				fail     string
				attempts int
				code     codes.Code
				more     []string
			}{
				{"", 1, codes.OK, nil},
				{"14", 2, codes.OK, nil},
				{"14,10", 3, codes.OK, nil},
				{"14,14,14", 3, codes.Unavailable, nil},
				{"13", 1, codes.Internal, nil},
				{"8", 1, codes.ResourceExhausted, nil},
				{"8,14", 3, codes.OK, []string{"x-pushback", "1"}},
				{"14", 1, codes.Unavailable, []string{"x-pushback", "-1"}},
				{"14", 1, codes.Unavailable, []string{"x-late", "1"}},
			} {
				if len(c.more) > 0 && c.more[0] == "x-late" && kind != "FullDuplexCall" {
					continue
				}
				ctx := within(t, patience, append([]string{"x-fail", c.fail}, c.more...)...)
				err := do(ctx, call)
				if status.Code(err) != c.code {
					t.Errorf("%s %s %v: %v, want %v", kind, c.fail, c.more, err, c.code)
				}
				got := app.take()
				if len(got) != c.attempts {
					t.Errorf("%s %s %v: %d attempts, want %d", kind, c.fail, c.more, len(got), c.attempts)
				}
				for i, a := range got {
					if want := strings.TrimSuffix(strconv.Itoa(i), "0"); a.before != want {
						t.Errorf("%s %s: attempt %d was told of %q before it", kind, c.fail, i+1, a.before)
					}
					if a.left <= 0 || a.left > patience {
						t.Errorf("%s %s: attempt %d had %v left of %v", kind, c.fail, i+1, a.left, patience)
					}
				}
			}
			for _, s := range list {
				for code, want := range map[string]float64{"0": 1, "13": 1} {
					labels := []string{`cluster="api"`, `service="grpc.testing.TestService"`, `method="` + kind + `"`, `grpc_status="` + code + `"`}
					eventually(t, patience, kind+" is counted", func() (bool, string) {
						n := s.metric("outrigger_grpc_calls_total", labels...)
						return n >= want, fmt.Sprint(s.name, ": ", n)
					})
				}
			}
		}
		if n := list[0].metric("outrigger_retries_total", `reason="upstream_error"`); n < 5 {
			t.Errorf("%v retries are counted", n)
		}
	})
}

// What an endpoint asks for with its status is done by default too, and no other
// call is made again.
func TestGRPCPushback(t *testing.T) {
	t.Parallel()
	hops(t, "retry: {attempts: 3}", nil, func(t *testing.T, app *flaky, call testpb.TestServiceClient, _ []*sidecar) {
		began := time.Now()
		for _, c := range []struct {
			pushback string
			attempts int
		}{{"1500", 2}, {"-1", 1}, {"soon", 1}, {"6000", 1}, {"", 1}} {
			pairs := []string{"x-fail", "14"}
			if c.pushback != "" {
				pairs = append(pairs, "x-pushback", c.pushback)
			}
			_, err := call.UnaryCall(within(t, patience, pairs...), &testpb.SimpleRequest{})
			got := app.take()
			if len(got) != c.attempts || (err == nil) != (c.attempts > 1) {
				t.Errorf("pushback %q: %d attempts, want %d; %v", c.pushback, len(got), c.attempts, err)
			}
			if len(got) > 1 && got[0].left-got[1].left < 750*time.Millisecond {
				t.Errorf("the second attempt had %v of its time left, the first %v", got[1].left, got[0].left)
			}
			if c.pushback == "1500" && time.Since(began) < 1500*time.Millisecond {
				t.Errorf("the endpoint was asked again after %v", time.Since(began))
			}
		}
	})
}

// Connections are replaced under a load of calls: by their age on both sides of
// both sidecars, and by the application with a GOAWAY now and then. No call is
// lost, and a stream goes on.
func TestGRPCConnectionAge(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := &flaky{}
	port := app.serve(t, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 300 * time.Millisecond}))
	listen := freeAddress(t)
	api := m.sidecar("api", speaking("grpc", port).with(sections{"inbound": fmt.Sprintf(`{listen: "%s", max_connection_age: 400ms}`, listen)}))
	m.catalog(map[string][]string{"api": {listen}})
	web, address := m.outboundAs("grpc", "web", "api", sections{"policies": "{api: {max_connection_age: 300ms}}"})
	api.ready()
	web.ready()
	call := dialGRPC(t, address)
	s, err := call.FullDuplexCall(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		t.Helper()
		if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 10}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	l := startCalls(t, address, 8)
	l.more(t, 100)
	eventually(t, 30*time.Second, "connections are replaced", func() (bool, string) {
		out := web.metric("outrigger_upstream_connections_total", `cluster="api"`, `direction="outbound"`)
		in := api.metric("outrigger_upstream_connections_total", `direction="inbound"`)
		return out >= 5 && in >= 5, fmt.Sprint(out, " and ", in)
	})
	l.mustEnd(t)
	ask()
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
}
