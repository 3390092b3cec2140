package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

const interopVersion = "v1.85.0"

// interopCases are the cases of gRPC's own interoperability suite that need
// neither credentials nor a balancer.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service", "rpc_soak", "channel_soak",
}

// gRPC's interoperability client has the same results with its server through
// two sidecars as it has without them.
func TestGRPCInterop(t *testing.T) {
	t.Parallel()
	folder, pkg := "grpc-interop-"+interopVersion, "google.golang.org/grpc/interop/"
	server := testkit.Tool{Name: "server", Variable: "GRPC_INTEROP_SERVER_BIN", Folder: folder, Package: pkg + "server@" + interopVersion}.Find(t)
	client := testkit.Tool{Name: "client", Variable: "GRPC_INTEROP_CLIENT_BIN", Folder: folder, Package: pkg + "client@" + interopVersion}.Find(t)
	m := newMesh(t)
	port := freePort(t)
	spawn(t, "interop server", exec.Command(server, "-port", strconv.Itoa(port)))
	eventually(t, patience, "the interop server listens", func() (bool, string) {
		c, err := net.Dial("tcp", loopback(port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil, fmt.Sprint(err)
	})
	p := m.pairAs("grpc", "grpc", port, nil, nil)
	run := func(t *testing.T, name, address string) error {
		t.Helper()
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, client, "-server_host", host, "-server_port", port, "-test_case", name,
			"-soak_iterations", "100", "-soak_num_threads", "4", "-soak_overall_timeout_seconds", "50",
			"-soak_per_iteration_max_acceptable_latency_ms", "50000").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, tail(string(out), 2000))
		}
		return nil
	}
	// On a busy machine an answer can be there before the client looks whether it
	// has canceled the call itself, and its own select then takes either.
	mostly := func(t *testing.T, name, address string) (err error) {
		for range 10 {
			if err = run(t, name, address); err == nil || name != "cancel_after_begin" {
				return err
			}
		}
		return err
	}
	for _, name := range interopCases {
		t.Run(name, func(t *testing.T) {
			if err := mostly(t, name, loopback(port)); err != nil {
				t.Fatalf("without the sidecars: %v", err)
			}
			if err := mostly(t, name, p.address); err != nil {
				t.Errorf("through the sidecars: %v", err)
			}
		})
	}
	if r := p.web.recorded("a call", func(r *record) bool { return r.Path == "/grpc.testing.TestService/UnaryCall" }); r.Protocol != "HTTP/2" {
		t.Errorf("web's record: %+v", r)
	}
}

// pairAs is pair with the protocol that web speaks with api's sidecar and the
// one that it speaks with the application.
func (m *mesh) pairAs(between, application string, app int, web, api sections) *pair {
	m.t.Helper()
	p := &pair{}
	p.api, p.inbound = m.inbound("api", app, speaking(application, app).with(api))
	m.catalog(map[string][]string{"api": {p.inbound}})
	p.web, p.address = m.outboundAs(between, "web", "api", web)
	p.call = "http://" + p.address
	p.api.ready()
	p.web.ready()
	return p
}
