package check

import (
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/health"
)

// grpcServer serves with or without the health service.
func grpcServer(t testing.TB, h healthpb.HealthServer) *listener {
	t.Helper()
	l := listen(t)
	s := grpc.NewServer()
	if h != nil {
		healthpb.RegisterHealthServer(s, h)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		s.Stop()
		running.Wait()
	})
	return l
}

// TestGRPC: grpc-go's own health server, through its states.
func TestGRPC(t *testing.T) {
	h := grpchealth.NewServer()
	l := grpcServer(t, h)
	b := newBed(t, grpcCheck("shop.Cart"), true, overHTTP2, l.address())
	for i, c := range []struct {
		set       func()
		cause     health.Cause
		detail    string
		state     health.State
		available int
	}{
		{func() {}, health.NoService, `the health service does not know "shop.Cart"`, health.Unhealthy, 1},
		{func() { h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING) }, health.Passed, "", health.Unhealthy, 1},
		{func() {}, health.Passed, "", health.Healthy, 1},
		{func() { h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_NOT_SERVING) }, health.NotServing, "NOT_SERVING", health.Unhealthy, 1},
		{func() { h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVICE_UNKNOWN) }, health.NoService, "SERVICE_UNKNOWN", health.Unhealthy, 1},
		{func() { h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_UNKNOWN) }, health.Status, "serving status 0", health.Unhealthy, 1},
		{h.Resume, health.Passed, "", health.Unhealthy, 1},
	} {
		c.set()
		got := b.once()
		if got.Cause != c.cause || got.Detail != c.detail {
			t.Errorf("%d: %+v, want %s %q", i, got, c.cause, c.detail)
		}
		// The only endpoint there is takes traffic all the same: the panic rule.
		if s, available := b.state(); s.State != c.state || available != c.available {
			t.Errorf("%d: %s, %d available; want %s, %d", i, s.State, available, c.state, c.available)
		}
	}
	// Two changes to unhealthy, the first out of unknown, drain the connection.
	if n := l.accepted.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
	for want := range strings.Lines(`event=health_unhealthy cluster=api endpoint=` + l.address().String() + ` check=grpc cause=no_service detail="the health service does not know
event=health_healthy cluster=api
event=health_unhealthy cluster=api endpoint=` + l.address().String() + ` check=grpc cause=not_serving detail=NOT_SERVING`) {
		if !strings.Contains(b.logged(), strings.TrimSpace(want)) {
			t.Errorf("not logged: %s\n%s", want, b.logged())
		}
	}
}

func TestGRPCWholeServer(t *testing.T) {
	l := grpcServer(t, grpchealth.NewServer())
	b := newBed(t, grpcCheck(""), true, overHTTP2, l.address())
	for range 5 {
		if got := b.once(); got.Cause != health.Passed {
			t.Errorf("%+v", got)
		}
	}
	if n := l.accepted.Load(); n != 1 {
		t.Errorf("%d connections for 5 checks", n)
	}
}

// message is a gRPC message of the given bytes.
func message(b string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b)))) + b
}

// TestGRPCBadAnswers: everything that is not SERVING.
func TestGRPCBadAnswers(t *testing.T) {
	// answer writes a body between a head and trailers.
	answer := func(contentType, body string, trailers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("content-type", contentType)
			_, _ = io.WriteString(w, body)
			for i := 0; i < len(trailers); i += 2 {
				w.Header().Set(http.TrailerPrefix+trailers[i], trailers[i+1])
			}
		}
	}
	const grpcType = "application/grpc"
	for name, c := range map[string]struct {
		serve  http.HandlerFunc
		want   health.Cause
		detail string
	}{
		"serving":        {answer(grpcType+"+proto", message("\x08\x01"), "grpc-status", "0"), health.Passed, ""},
		"more fields":    {answer(grpcType, message("\x12\x03abc\x19xxxxxxxx\x25xxxx\x08\x01"), "grpc-status", "0"), health.Passed, ""},
		"no field":       {answer(grpcType, message(""), "grpc-status", "0"), health.Status, "serving status 0"},
		"no message":     {answer(grpcType, "", "grpc-status", "0"), health.Protocol, "the answer is no HealthCheckResponse"},
		"cut message":    {answer(grpcType, message("\x08\x01")[:6], "grpc-status", "0"), health.Protocol, "the answer is no HealthCheckResponse"},
		"cut varint":     {answer(grpcType, message("\x08\x80"), "grpc-status", "0"), health.Protocol, "the answer is no HealthCheckResponse"},
		"long field":     {answer(grpcType, message("\x12\x7f"), "grpc-status", "0"), health.Protocol, "the answer is no HealthCheckResponse"},
		"group":          {answer(grpcType, message("\x0b"), "grpc-status", "0"), health.Protocol, "the answer is no HealthCheckResponse"},
		"compressed":     {answer(grpcType, "\x01"+message("\x08\x01")[1:], "grpc-status", "0"), health.Protocol, "the answer is no HealthCheckResponse"},
		"too long":       {answer(grpcType, strings.Repeat("x", 5000), "grpc-status", "0"), health.Protocol, "the answer is too long for a health service"},
		"no status":      {answer(grpcType, message("\x08\x01")), health.Protocol, "the answer has no grpc-status"},
		"no gRPC":        {answer("text/html", "<html>"), health.Protocol, "the answer is not gRPC"},
		"HTTP error":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, health.Status, "HTTP 503"},
		"with a message": {answer(grpcType, "", "grpc-status", "14", "grpc-message", "going away"), health.Status, "gRPC status 14: going away"},
		"reset":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, health.Closed, ""},
		"hanging":        {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, health.Timeout, "waiting for the answer"},
		"hanging halfway": {func(w http.ResponseWriter, r *http.Request) {
			answer(grpcType, message(""))(w, r)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, health.Timeout, "reading the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := grpcCheck("")
			cfg.Timeout = 5 * time.Second
			if c.want == health.Timeout {
				cfg.Timeout = 50 * time.Millisecond
			}
			b := newBed(t, cfg, true, overHTTP2, web(t, true, c.serve).address())
			if got := b.once(); got.Cause != c.want || c.detail != "" && got.Detail != c.detail {
				t.Errorf("%s: %q, want %s %q", got.Cause, got.Detail, c.want, c.detail)
			}
		})
	}
}

func TestGRPCWithoutHealthService(t *testing.T) {
	b := newBed(t, grpcCheck(""), true, overHTTP2, grpcServer(t, nil).address())
	if got := b.once(); got.Cause != health.NoService || !strings.Contains(got.Detail, "no gRPC health service") {
		t.Errorf("%+v", got)
	}
	b = newBed(t, grpcCheck(""), true, overHTTP2, testkit.Nobody(0))
	if got := b.once(); got.Cause != health.Connect {
		t.Errorf("%+v", got)
	}
}

// TestLimitSaysNothing: a check that finds no room for its connection is no
// verdict about the endpoint.
func TestLimitSaysNothing(t *testing.T) {
	cfg := grpcCheck("")
	cfg.Timeout = 50 * time.Millisecond
	l := grpcServer(t, grpchealth.NewServer())
	b := newBed(t, cfg, true, func(s *upstream.Spec) {
		overHTTP2(s)
		s.Policy.Limits.MaxConnections = 1
	}, l.address())
	if !b.cluster.Limits.Connections.Acquire(1) {
		t.Fatal("no room to begin with")
	}
	got := b.once()
	b.cluster.Limits.Connections.Release()
	if s, _ := b.state(); got.Cause != health.Local || s.State != health.Unknown {
		t.Errorf("%+v, %s", got, s.State)
	}
	if got := b.once(); got.Cause != health.Passed {
		t.Errorf("%+v", got)
	}
}

func FuzzServingStatus(f *testing.F) {
	for _, s := range []string{"", message(""), message("\x08\x01"), message("\x12\x03abc\x08\x02"), message("\x08\x80\x80"), message("\x12\xff\xff\xff\xff\x0f")} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		status, ok := servingStatus(b)
		if !ok && status != 0 {
			t.Errorf("%x: refused with status %d", b, status)
		}
		var want healthpb.HealthCheckResponse
		if len(b) < 5 || b[0] != 0 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
			return
		}
		if ok && status < 4 && proto.Unmarshal(b[5:], &want) == nil && uint64(want.Status) != status {
			t.Errorf("%x: %d, and protobuf says %d", b, status, want.Status)
		}
	})
}
