package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// grpcApp is a gRPC application. UnaryCall says who it is; FullDuplexCall
// sends back as many bytes as are asked for.
type grpcApp struct {
	testpb.UnimplementedTestServiceServer
	name   string
	seen   chan metadata.MD   // of every EmptyCall, when there is room
	leases chan time.Duration // what was left of each UnaryCall's time that was held up
	ended  chan error         // how the context of each of these ended
}

func (a *grpcApp) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	select {
	case a.seen <- md:
	default:
	}
	return &testpb.Empty{}, nil
}

func (a *grpcApp) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if in.FillServerId { // hold it up until its time has passed
		left := time.Duration(0)
		if d, ok := ctx.Deadline(); ok {
			left = time.Until(d)
		}
		a.leases <- left
		<-ctx.Done()
		a.ended <- ctx.Err()
		return nil, ctx.Err()
	}
	return &testpb.SimpleResponse{ServerId: a.name, Payload: in.Payload}, nil
}

func (a *grpcApp) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	for {
		in, err := s.Recv()
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		n := int32(0)
		if len(in.ResponseParameters) > 0 {
			n = in.ResponseParameters[0].Size
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, n)}}); err != nil {
			return err
		}
	}
}

// serveGRPC starts the application and returns its port and what stops it.
func serveGRPC(t *testing.T, a *grpcApp) (port int, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, a)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().(*net.TCPAddr).Port, s.Stop
}

func newGRPCApp(name string) *grpcApp {
	return &grpcApp{name: name, seen: make(chan metadata.MD, 16), leases: make(chan time.Duration, 16), ended: make(chan error, 16)}
}

// dialGRPC is a client whose calls share one connection.
func dialGRPC(t *testing.T, address string) testpb.TestServiceClient {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return testpb.NewTestServiceClient(c)
}

func within(t *testing.T, d time.Duration, pairs ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), pairs...), d)
	t.Cleanup(cancel)
	return ctx
}

// A call carries both identities, and the records tell what it was.
func TestGRPCRecord(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := newGRPCApp("api")
	port, _ := serveGRPC(t, app)
	p := m.pairAs("grpc", "grpc", port, nil, nil)
	call := dialGRPC(t, p.address)
	if _, err := call.EmptyCall(within(t, patience, "x-request-id", "grpc-1", "x-bytes-bin", "\x00\xff", "x-twice", "a", "x-twice", "b"), &testpb.Empty{}); err != nil {
		t.Fatal(err)
	}
	md := <-app.seen
	if xfcc := strings.Join(md["x-forwarded-client-cert"], ";"); !strings.Contains(xfcc, "URI="+spiffe("web")) || !strings.Contains(xfcc, "By="+spiffe("api")) {
		t.Errorf("the application saw x-forwarded-client-cert %q", xfcc)
	}
	if b := md["x-bytes-bin"]; len(b) != 1 || b[0] != "\x00\xff" {
		t.Errorf("binary metadata: %q", b)
	}
	if b := strings.Join(md["x-twice"], ","); b != "a,b" {
		t.Errorf("metadata of two values: %q", b)
	}
	mine := func(r *record) bool { return r.RequestID == "grpc-1" }
	web, api := p.web.recorded("the call", mine), p.api.recorded("the call", mine)
	for _, r := range []record{web, api} {
		if r.Protocol != "HTTP/2" || r.Method != "POST" || r.Path != "/grpc.testing.TestService/EmptyCall" || r.Status != 200 || r.Flag != "" && r.Flag != "-" {
			t.Errorf("record: %+v", r)
		}
	}
	if web.LocalID != spiffe("web") || web.UpstreamID != spiffe("api") || api.DownstreamID != spiffe("web") || api.LocalID != spiffe("api") {
		t.Errorf("identities: web %+v, api %+v", web, api)
	}
}

// A call that no endpoint answers ends with a gRPC status and a reason.
func TestGRPCUnavailable(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	port, stop := serveGRPC(t, newGRPCApp("api"))
	p := m.pairAs("grpc", "grpc", port, nil, nil)
	call := dialGRPC(t, p.address)
	try := func(when string, ok bool) {
		t.Helper()
		_, err := call.EmptyCall(within(t, patience), &testpb.Empty{})
		if ok {
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
			return
		}
		s := status.Convert(err)
		if s.Code() != codes.Unavailable || !strings.HasPrefix(s.Message(), "outrigger: ") {
			t.Errorf("%s: %v %q; want Unavailable with the proxy's reason", when, s.Code(), s.Message())
		}
		t.Logf("%s: %v", when, err)
	}
	try("all is well", true)
	stop()
	try("the application has stopped", false)
	p.api.kill()
	try("its sidecar has ended", false)
	m.catalog(map[string][]string{"api": nil})
	eventually(t, patience, "the endpoint has gone", func() (bool, string) { return p.web.endpoint(p.inbound).Address == "", "" })
	try("there is no endpoint", false)
}

// A caller gets PermissionDenied and the name of the rule.
func TestGRPCDenied(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	port, _ := serveGRPC(t, newGRPCApp("api"))
	p := m.pairAs("grpc", "grpc", port, nil, sections{"authorization": `{rules: [` +
		`{name: callers, from: ["spiffe://e2e.test/web"], methods: [POST], paths: ["/grpc.testing.TestService/EmptyCall", "/grpc.testing.TestService/FullDuplexCall"]}, ` +
		`{name: no-streams, action: deny, from: ["*"], paths: ["/grpc.testing.TestService/FullDuplexCall"]}]}`})
	call := dialGRPC(t, p.address)
	if _, err := call.EmptyCall(within(t, patience), &testpb.Empty{}); err != nil {
		t.Errorf("allowed: %v", err)
	}
	denied := func(err error, rule string) {
		t.Helper()
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), rule) {
			t.Errorf("%v; want PermissionDenied and the rule %s", err, rule)
		}
	}
	_, err := call.UnaryCall(within(t, patience), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 1<<20)}})
	denied(err, "default-deny")
	s, err := call.FullDuplexCall(within(t, patience))
	if err == nil {
		_, err = s.Recv()
	}
	denied(err, "no-streams")
	if _, err := call.EmptyCall(within(t, patience), &testpb.Empty{}); err != nil {
		t.Errorf("allowed, afterwards: %v", err)
	}
}

// The deadline of a call reaches the application, shortened; when it passes,
// the application's context ends and the caller hears of it, also one that
// does not watch its own deadline.
func TestGRPCDeadline(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := newGRPCApp("api")
	port, _ := serveGRPC(t, app)
	p := m.pairAs("grpc", "grpc", port, nil, nil)
	call := dialGRPC(t, p.address)
	if _, err := call.EmptyCall(within(t, patience), &testpb.Empty{}); err != nil {
		t.Fatal(err)
	}
	ended := func() {
		t.Helper()
		select {
		case <-app.ended:
		case <-time.After(patience):
			t.Error("the application's context has not ended")
		}
	}
	// A call is made with more and more time until it has reached the application
	// within it: on a busy machine it may end on its way.
	reaches := func(call func(time.Duration)) {
		t.Helper()
		for d := 400 * time.Millisecond; d < patience; d *= 2 {
			call(d)
			select {
			case left := <-app.leases:
				if left <= 0 || left > d {
					t.Errorf("the application had %v left of %v", left, d)
				}
				ended()
				return
			case <-time.After(d):
			}
		}
		t.Fatal("no call has reached the application in its time")
	}
	reaches(func(d time.Duration) {
		_, err := call.UnaryCall(within(t, d), &testpb.SimpleRequest{FillServerId: true})
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v; want DeadlineExceeded", err)
		}
	})
	client := clientOf(t, true)
	reaches(func(d time.Duration) {
		// SimpleRequest.fill_server_id is field 9.
		req, err := http.NewRequestWithContext(within(t, 2*patience), http.MethodPost, p.call+"/grpc.testing.TestService/UnaryCall",
			strings.NewReader("\x00\x00\x00\x00\x02\x48\x01"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {fmt.Sprintf("%dm", d.Milliseconds())}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		code := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
		if code != "4" {
			t.Errorf("grpc-status %q; want 4; headers %v, trailers %v", code, resp.Header, resp.Trailer)
		}
	})
	// A caller that gives up is known to the application as well.
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-app.leases
		cancel()
	}()
	if _, err := call.UnaryCall(ctx, &testpb.SimpleRequest{FillServerId: true}); status.Code(err) != codes.Canceled {
		t.Errorf("%v; want Canceled", err)
	}
	ended()
}

// Calls that share one connection go to all instances.
func TestGRPCBalanced(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.grpcInstances(3, nil)
	m.catalog(addresses(list))
	web, address := m.outboundAs("grpc", "web", "api", nil)
	web.ready()
	call := dialGRPC(t, address)
	counts := map[string]int{}
	for range 60 {
		r, err := call.UnaryCall(within(t, patience), &testpb.SimpleRequest{})
		if err != nil {
			t.Fatal(err)
		}
		counts[r.ServerId]++
	}
	t.Log(counts)
	for _, in := range list {
		if counts[in.name] == 0 {
			t.Errorf("%s had no call: %v", in.name, counts)
		}
	}
	if n := web.metric("outrigger_connections_active", `listener="outbound:api"`); n > 1 {
		t.Errorf("the calls came over %v connections", n)
	}
}

// grpcInstances is instances with gRPC applications.
func (m *mesh) grpcInstances(n int, more sections) []*instance {
	m.t.Helper()
	list := make([]*instance, n)
	for i := range list {
		name := fmt.Sprintf("api-%d", i+1)
		port, _ := serveGRPC(m.t, newGRPCApp(name))
		s, address := m.inbound("api", port, speaking("grpc", port).with(more))
		list[i] = &instance{s, name, address}
	}
	for _, in := range list {
		in.ready()
	}
	return list
}

// An instance that is drained under a load of calls loses none, whether it
// leaves the catalog first or not.
func TestGRPCDrain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		leaves bool
		drain  string
	}{
		{"leaves the catalog first", true, "{delay: 1s, timeout: 5s}"},
		{"stays in the catalog", false, "{delay: 500ms, timeout: 5s}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t)
			list := m.grpcInstances(3, sections{"drain": c.drain})
			m.catalog(addresses(list))
			web, address := m.outboundAs("grpc", "web", "api", nil)
			web.ready()
			l := startCalls(t, address, 8)
			l.more(t, 200)
			for _, in := range list[:2] {
				in.signal(syscall.SIGTERM)
				if c.leaves {
					rest := addresses(list)
					rest["api"] = without(rest["api"], in.address)
					m.catalog(rest)
				}
				if code := in.code(patience); code != 0 {
					t.Errorf("%s: exit code %d", in.name, code)
				}
				if !hasLine(in.out.String(), "event=drained", "cut_off=0") {
					t.Errorf("%s has cut calls off", in.name)
				}
				l.more(t, 100)
				in.start()
				in.ready()
				m.catalog(addresses(list))
				l.more(t, 100)
			}
			l.mustEnd(t)
		})
	}
}

func without(list []string, one string) []string {
	var rest []string
	for _, s := range list {
		if s != one {
			rest = append(rest, s)
		}
	}
	return rest
}

// calls is a steady stream of unary calls.
type calls struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	sent atomic.Int64

	mu       sync.Mutex
	failures []string
	by       map[string]int
}

func startCalls(t *testing.T, address string, workers int) *calls {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &calls{stop: cancel, by: map[string]int{}}
	call := dialGRPC(t, address)
	for range workers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				one, cancel := context.WithTimeout(context.Background(), patience)
				r, err := call.UnaryCall(one, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 1000)}})
				cancel()
				l.mu.Lock()
				if err != nil {
					l.failures = append(l.failures, time.Now().Format("15:04:05.000 ")+err.Error())
				} else {
					l.by[r.ServerId]++
				}
				l.mu.Unlock()
				l.sent.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		l.wg.Wait()
	})
	return l
}

func (l *calls) more(t *testing.T, n int64) {
	t.Helper()
	want := l.sent.Load() + n
	eventually(t, 2*patience, fmt.Sprintf("%d further calls", n), func() (bool, string) {
		return l.sent.Load() >= want, fmt.Sprint(want-l.sent.Load(), " are missing")
	})
}

func (l *calls) mustEnd(t *testing.T) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d calls: %v", l.sent.Load(), maps.Clone(l.by))
	if len(l.failures) > 0 {
		t.Errorf("%d of %d calls failed, the first: %s", len(l.failures), l.sent.Load(), strings.Join(l.failures[:min(5, len(l.failures))], "\n"))
	}
}

// More streams at once than a connection takes are carried by more of them;
// none waits for another.
func TestGRPCManyStreams(t *testing.T) {
	t.Parallel()
	const many = 300
	m := newMesh(t)
	port, _ := serveGRPC(t, newGRPCApp("api"))
	p := m.pairAs("grpc", "grpc", port, nil, nil)
	var clients []testpb.TestServiceClient
	for range 5 { // a client keeps to what the listener allows on a connection
		clients = append(clients, dialGRPC(t, p.address))
	}
	var streams []testpb.TestService_FullDuplexCallClient
	ctx := within(t, time.Minute)
	ask := func(i int, s testpb.TestService_FullDuplexCallClient) {
		t.Helper()
		if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 10}}}); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	for i := range many {
		s, err := clients[i%len(clients)].FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ask(i, s)
		streams = append(streams, s)
	}
	for i, s := range streams {
		ask(i, s)
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != io.EOF {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
}

// A stream of many messages, larger than all windows, comes whole, while a
// stream beside it on the same connection is not read at all.
func TestGRPCFlowControl(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	port, _ := serveGRPC(t, newGRPCApp("api"))
	p := m.pairAs("grpc", "grpc", port, nil, nil)
	call := dialGRPC(t, p.address)
	ctx := within(t, time.Minute)
	stalled, err := call.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := stalled.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 1 << 20}}}); err != nil {
			t.Fatal(err)
		}
	}
	fast, err := call.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		if err := fast.Send(&testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{Size: 1 << 20}}, Payload: &testpb.Payload{Body: make([]byte, 1<<20)},
		}); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		r, err := fast.Recv()
		if err != nil || len(r.Payload.Body) != 1<<20 {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	for i := range 20 {
		if r, err := stalled.Recv(); err != nil || len(r.Payload.Body) != 1<<20 {
			t.Fatalf("stalled message %d: %v", i, err)
		}
	}
}

// Calls to an endpoint that takes connections and says nothing all end when
// their time is over; they do not queue behind each other's attempts.
func TestGRPCSilentEndpoint(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	silent := serveTCP(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	m.catalog(map[string][]string{"api": {loopback(silent)}})
	web, address := m.outboundAs("grpc", "web", "api", sections{"policies": "{api: {connect_timeout: 1s, retry: off, outlier: off, breaker: off}}"})
	web.ready()
	var wg sync.WaitGroup
	client := clientOf(t, true)
	// One behind the other they would take four times the patience.
	for range 4 * int(patience/time.Second) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/x", http.NoBody)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Grpc-Timeout", "1500m")
			resp, err := client.Do(req)
			if err != nil {
				t.Errorf("a call of 1.5s has no answer after %v: %v", patience, err)
				return
			}
			_ = resp.Body.Close()
			if c := resp.Header.Get("Grpc-Status"); c != "4" && c != "14" {
				t.Errorf("grpc-status %q %q", c, resp.Header.Get("Grpc-Message"))
			}
		})
	}
	wg.Wait()
}
