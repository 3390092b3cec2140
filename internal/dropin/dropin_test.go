package dropin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// system has the variables and files that are given, and programs that write
// what they are told.
func system(env map[string]string, files map[string]string) System {
	return System{
		Getenv: func(name string) string { return env[name] },
		ReadFile: func(name string) ([]byte, error) {
			if text, ok := files[name]; ok {
				return []byte(text), nil
			}
			return os.ReadFile(filepath.Join("testdata", name))
		},
		Output: func(name string, args ...string) ([]byte, error) {
			if name == "false" {
				return []byte("it broke\nbadly"), errors.New("exit status 1")
			}
			return []byte(strings.Join(args, " ")), nil
		},
	}
}

// The arguments are those that an installation of consul-k8s passes, with ACLs
// and TLS, native sidecars and lifecycle management.
func TestDataplane(t *testing.T) {
	args := strings.Fields(`-addresses consul-server.consul.svc -grpc-port 8502 -proxy-service-id-path=/consul/connect-inject/proxyid
		-log-level=info -log-json=true -envoy-concurrency=2 -envoy-admin-bind-address=127.0.0.1 -xds-bind-addr=127.0.0.1 -consul-dns-bind-addr=127.0.0.1
		-graceful-addr=127.0.0.1 -graceful-port=20600 -credential-type=login -login-auth-method=consul-k8s-auth-method
		-login-bearer-token-path=/var/run/secrets/kubernetes.io/serviceaccount/token -ca-certs=/consul/connect-inject/consul-ca.pem
		-tls-server-name=server.dc1.consul -envoy-ready-bind-port=21000 -shutdown-drain-listeners -shutdown-grace-period-seconds=30
		-graceful-shutdown-path=/graceful_shutdown -startup-grace-period-seconds=5 -graceful-startup-path=/graceful_startup
		-telemetry-prom-scrape-path=/metrics -consul-dns-bind-port=8600 -- --consul-http-addr https://consul.example:443 --log-level debug`)
	env := map[string]string{
		"DP_SERVICE_NODE_NAME": "node-1-virtual", "DP_CREDENTIAL_LOGIN_META1": "pod=default/web-0", "DP_CREDENTIAL_LOGIN_META2": "pod-uid=42",
		"DP_ENVOY_READY_BIND_ADDRESS": "10.1.2.3", "DP_LOG_LEVEL": "error",
	}
	got, err := Dataplane(args, system(env, map[string]string{"/consul/connect-inject/proxyid": "web-0-web-sidecar-proxy\n"}))
	if err != nil {
		t.Fatal(err)
	}
	want := &Invocation{
		ProxyID: "web-0-web-sidecar-proxy", Node: "node-1-virtual",
		HTTP: "https://consul.example:443", GRPC: "https://consul-server.consul.svc:8502",
		CAFile: "/consul/connect-inject/consul-ca.pem", ServerName: "server.dc1.consul",
		Login: &Login{
			Method: "consul-k8s-auth-method", BearerFile: "/var/run/secrets/kubernetes.io/serviceaccount/token",
			Meta: map[string]string{"pod": "default/web-0", "pod-uid": "42"},
		},
		Admin: "127.0.0.1:19000", Ready: "10.1.2.3:21000", Graceful: "127.0.0.1:20600", DNS: "127.0.0.1:8600", Scrape: "/metrics",
		ShutdownPath: "/graceful_shutdown", StartupPath: "/graceful_startup",
		Drain: true, ShutdownGrace: 30 * time.Second, StartupGrace: 5 * time.Second,
		LogLevel: "info", LogJSON: true, Processors: 2,
		Notes: []string{"--log-level is for Envoy and does nothing here", "debug is for Envoy and does nothing here"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v %+v\nwant %+v %+v", got, got.Login, want, want.Login)
	}
}

func TestDataplaneServers(t *testing.T) {
	for _, c := range []struct{ args, http, grpc string }{
		{"-addresses consul", "https://consul:8501", "https://consul:8502"},
		{"-addresses consul -tls-disabled -grpc-port 9502", "http://consul:8500", "http://consul:9502"},
		{"-addresses ::1 -tls-disabled", "http://[::1]:8500", "http://[::1]:8502"},
	} {
		got, err := Dataplane(append(strings.Fields(c.args), "-proxy-service-id", "x"), system(nil, nil))
		if err != nil || got.HTTP != c.http || got.GRPC != c.grpc {
			t.Errorf("%s: %+v, %v", c.args, got, err)
		}
	}
	got, err := Dataplane([]string{"-addresses", "exec=echo 10.0.0.1 10.0.0.2", "-proxy-service-id", "x"}, system(nil, nil))
	if err != nil || got.HTTP != "https://10.0.0.1:8501" || len(got.Notes) != 1 {
		t.Errorf("from a program: %+v, %v", got, err)
	}
}

func TestDataplaneHealth(t *testing.T) {
	got, err := Dataplane([]string{"-check-proxy-health"}, system(map[string]string{"DP_ENVOY_ADMIN_BIND_PORT": "19001"}, nil))
	if err != nil || !got.CheckHealth || got.Admin != "127.0.0.1:19001" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDataplaneRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":             "-addresses is required",
		"-addresses c": "-proxy-service-id or -proxy-service-id-path is required",
		"-addresses c -proxy-service-id-path none":           "no such file",
		"-addresses exec=false":                              "it broke",
		"-addresses exec=":                                   "without a program",
		"-addresses exec=echo":                               "in place of IP addresses",
		"-addresses c -mode dns-proxy":                       "only sidecar",
		"-addresses c -tls-insecure-skip-verify":             "is refused",
		"-addresses c -credential-type login":                "needs -login-auth-method",
		"-addresses c -credential-type static":               "needs -static-token",
		"-addresses c -credential-type x":                    "use static or login",
		"-addresses c -log-level loud":                       "use trace, debug",
		"-addresses c -service-node-id x":                    "give -service-node-name",
		"-addresses c -config-file x":                        "is not read here",
		"-addresses c -telemetry-prom-cert-file x":           "without TLS",
		"-addresses c -telemetry-prom-service-metrics-url x": "are not merged",
		"-what":                              "not defined",
		"-login-meta x":                      "write key=value",
		"-addresses c -- --consul-http-addr": "needs an address",
	} {
		if _, err := Dataplane(strings.Fields(args), system(nil, nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
	if _, err := Dataplane(nil, system(map[string]string{"DP_CONSUL_GRPC_PORT": "x"}, nil)); err == nil || !strings.Contains(err.Error(), "DP_CONSUL_GRPC_PORT") {
		t.Errorf("a bad variable: %v", err)
	}
}

// The files were written by "consul connect envoy -bootstrap" of Consul 1.22.3,
// and shortened.
func TestEnvoy(t *testing.T) {
	args := strings.Fields("-c nomad.json -l warning --concurrency 1 --disable-hot-restart --drain-time-s 10")
	got, err := Envoy(args, system(map[string]string{"CONSUL_HTTP_ADDR": "http://10.0.0.5:8500"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := &Invocation{
		ProxyID: "web-1-sidecar-proxy", HTTP: "http://10.0.0.5:8500", GRPC: "unix:///alloc/tmp/consul_grpc.sock",
		Token: "5c2e2b1c-0000-4000-8000-000000000001",
		Admin: "127.0.0.2:19001", Ready: "127.0.0.1:19101", Metrics: "0.0.0.0:9102", Scrape: "/metrics",
		LogLevel: "warn", Processors: 1, Drain: true, ShutdownGrace: 10 * time.Second,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	got, err = Envoy([]string{"--config-path=tls.json"}, system(map[string]string{"CONSUL_HTTP_ADDR": "x", "CONSUL_HTTP_TOKEN": "t"}, nil))
	if err != nil || got.GRPC != "https://127.0.0.1:18503" || !strings.HasPrefix(got.CAPEM, "-----BEGIN CERTIFICATE") || got.Token != "t" || got.LogLevel != "info" {
		t.Errorf("with TLS: %+v, %v", got, err)
	}
}

func TestEnvoyRefuses(t *testing.T) {
	files := map[string]string{
		"empty": "{}", "text": "admin:", "no-agent": `{"node":{"id":"x"}}`,
		"no-address": `{"node":{"id":"x"},"static_resources":{"clusters":[{"name":"local_agent"}]}}`,
	}
	for args, want := range map[string]string{
		"":                        "-c is required",
		"-c none":                 "no such file",
		"-c empty":                "has no node.id",
		"-c text":                 "is no bootstrap file",
		"-c no-agent":             "no cluster local_agent",
		"-c no-address":           "without an address",
		"-c nomad.json":           "set CONSUL_HTTP_ADDR",
		"-c nomad.json -l loud":   "use trace",
		"--concurrency x":         "write a number",
		"--drain-time-s 0":        "kill_timeout",
		"--drain-time-s=1h":       "kill_timeout",
		"-c":                      "needs a value",
		"--mode validate":         "not among the arguments",
		"-c nomad.json --version": "",
	} {
		_, err := Envoy(strings.Fields(args), system(nil, files))
		if got := fmt.Sprint(err); want != "" && !strings.Contains(got, want) || want == "" && err != nil {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// Whatever the file holds, it is read or refused.
func FuzzBootstrap(f *testing.F) {
	for _, name := range []string{"nomad.json", "alloc.json", "tls.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &Invocation{}
		if _, err := in.bootstrap(data); err == nil && (in.ProxyID == "" || in.GRPC == "") {
			t.Errorf("taken without a proxy or Consul: %+v", in)
		}
	})
}
