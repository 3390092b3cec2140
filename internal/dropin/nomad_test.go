package dropin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The file was written by Consul 1.22.3 with the arguments that Nomad 1.10.5
// gives it, and shortened: the socket's path is relative, and there is no
// listener for readiness.
func TestEnvoyInAnAllocation(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ driver, dir, ready, grpc string }{
		{"docker and exec", "/alloc", "127.0.0.1:19101", "/alloc/tmp/consul_grpc.sock"},
		{"raw_exec", "/opt/nomad/alloc/5e1b29f0/alloc", "127.0.0.1:19102", "/opt/nomad/alloc/5e1b29f0/alloc/tmp/consul_grpc.sock"},
		{"none", "", "", filepath.Join(here, "alloc/tmp/consul_grpc.sock")},
		{"none, and a relative directory", "alloc", "", filepath.Join(here, "alloc/tmp/consul_grpc.sock")},
	} {
		got, err := Envoy([]string{"-c", "alloc.json"}, system(map[string]string{
			"CONSUL_HTTP_ADDR": "http://10.0.0.5:8500", "NOMAD_ALLOC_DIR": c.dir, "NOMAD_ENVOY_READY_ADDR_web_app": c.ready,
		}, nil))
		if err != nil {
			t.Fatal(err)
		}
		want := Invocation{
			ProxyID: "_nomad-task-5e1b29f0-0000-4000-8000-000000000001-group-web-web-app-8080-sidecar-proxy",
			HTTP:    "http://10.0.0.5:8500", GRPC: "unix://" + c.grpc, Token: "tok", Admin: "127.0.0.2:19001", Ready: c.ready, LogLevel: "info",
			Drain: true, ShutdownGrace: 4 * time.Second,
		}
		if got, want := fmt.Sprintf("%+v", *got), fmt.Sprintf("%+v", want); got != want {
			t.Errorf("%s: got  %s\nwant %s", c.driver, got, want)
		}
	}
}

// What the file says goes before what the environment says.
func TestEnvoyReadyOfTheFile(t *testing.T) {
	got, err := Envoy([]string{"-c", "nomad.json"}, system(map[string]string{"CONSUL_HTTP_ADDR": "x", "NOMAD_ENVOY_READY_ADDR_web": "127.0.0.1:1"}, nil))
	if err != nil || got.Ready != "127.0.0.1:19101" || !strings.HasPrefix(got.GRPC, "unix:///alloc/") {
		t.Errorf("%+v, %v", got, err)
	}
}
