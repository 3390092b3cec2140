package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/dropin"
)

func TestStandIn(t *testing.T) {
	for _, c := range []struct{ program, args, want string }{
		{"/usr/local/bin/outrigger", "run -c x", "run -c x"},
		{"/usr/local/bin/outrigger", "", ""},
		{"/usr/local/bin/consul-dataplane", "-check-proxy-health", "consul-dataplane -check-proxy-health"},
		{"outrigger", "-addresses=consul -grpc-port 8502", "consul-dataplane -addresses=consul -grpc-port 8502"},
		{"outrigger", "-c /secrets/envoy_bootstrap.json -l info", "envoy -c /secrets/envoy_bootstrap.json -l info"},
		{"envoy", "--version", "envoy --version"},
	} {
		if got := strings.Join(standIn(c.program, strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.program, c.args, got, c.want)
		}
	}
}

// What the other program's command line says stands in our own language.
func TestAsked(t *testing.T) {
	layers, err := asked(&dropin.Invocation{
		ProxyID: "web-sidecar-proxy", Node: "node-1-virtual", HTTP: "https://consul:8501", GRPC: "https://consul:8502",
		CAFile: "/ca.pem", ServerName: "server.dc1.consul", Admin: "127.0.0.1:19000", Ready: "10.1.2.3:21000", Graceful: "127.0.0.1:20600",
		ShutdownPath: "/graceful_shutdown", StartupPath: "/graceful_startup", DNS: "127.0.0.1:8600", Scrape: "/metrics",
		Login: &dropin.Login{Method: "m", BearerFile: "/token", Meta: map[string]string{"pod": "default/web-0"}},
		Drain: true, ShutdownGrace: 30 * time.Second, StartupGrace: 5 * time.Second, LogLevel: "info", LogJSON: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range layers {
		fmt.Fprintf(&b, "%s=%s\n", strings.Join(l.Path, "."), l.Data)
	}
	const want = `discovery.consul.address="https://consul:8501"
identity.consul.grpc_address="https://consul:8502"
discovery.consul.tls.ca_file="/ca.pem"
discovery.consul.tls.server_name="server.dc1.consul"
identity.consul.grpc_ca_file="/ca.pem"
identity.consul.grpc_server_name="server.dc1.consul"
discovery.consul.login.auth_method="m"
discovery.consul.login.bearer_token_file="/token"
discovery.consul.login.meta={"pod":"default/web-0"}
admin.listen="127.0.0.1:19000"
admin.probe_listen="10.1.2.3:21000"
admin.lifecycle.listen="127.0.0.1:20600"
admin.lifecycle.shutdown_path="/graceful_shutdown"
admin.lifecycle.startup_path="/graceful_startup"
admin.lifecycle.startup_timeout="5s"
dns.listen="127.0.0.1:8600"
telemetry.log.level="info"
telemetry.log.format="json"
drain.delay="5s"
drain.timeout="25s"
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	// It is all understood.
	f := &runFlags{proxyID: "web-sidecar-proxy", node: "node-1-virtual", asked: layers}
	base, _, err := f.settings()
	if err != nil || base == nil {
		t.Errorf("settings: %v", err)
	}
	for want, in := range map[string]*dropin.Invocation{
		"Consul Enterprise":             {Namespace: "shop"},
		"give -login-bearer-token-path": {Login: &dropin.Login{Method: "m", Bearer: "x"}},
	} {
		if _, err := asked(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", in, err, want)
		}
	}
}

// Behind a socket there may be TLS, too: the file says so by its authorities.
func TestAskedOfASocket(t *testing.T) {
	for ca, want := range map[string]string{
		"":        `[identity consul grpc_address]="unix:///alloc/tmp/consul_grpc.sock"`,
		"/ca.pem": `[identity consul grpc_address]="unix:///alloc/tmp/consul_grpc.sock" [identity consul grpc_ca_file]="/ca.pem"`,
	} {
		layers, err := asked(&dropin.Invocation{ProxyID: "web-sidecar-proxy", GRPC: "unix:///alloc/tmp/consul_grpc.sock", CAFile: ca})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range layers {
			got = append(got, fmt.Sprintf("%s=%s", l.Path, l.Data))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
