package mtls

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// envoyConfig has Envoy call SERVER by TLS as a sidecar does, for an application that speaks HTTP or TCP, and serve its own
// port by mTLS.
const envoyConfig = `
static_resources:
  listeners:
  - {name: http, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [HCM_out]}]}
  - {name: http2, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [HCM_out2]}]}
  - {name: tcp, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: out}}]}]}
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters: [{name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, http_filters: [ROUTER], route_config: {virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "envoy"}}}]}]}}}]
      transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, common_tls_context: {alpn_protocols: [http/1.1], CERTS, validation_context: {trusted_ca: {filename: DIR/ca.pem}}}}}
  clusters:
  - {name: out, connect_timeout: 5s, load_assignment: ADDRESS, transport_socket: TLS_out}
  - {name: out2, connect_timeout: 5s, load_assignment: ADDRESS, transport_socket: TLS_out, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
`

// TestRealEnvoy: an Envoy as in Consul's mesh is served and called: TLS 1.2 as a client, ALPN by protocol or none, the exact URI
// of the other side demanded.
func TestRealEnvoy(t *testing.T) {
	bin := testkit.FindEnvoy(t)
	ca := newTestCA(t)
	own := trust("d.test", ca)
	dir := t.TempDir()
	envoy := ca.issue(webID, nil)
	for name, content := range map[string][]byte{"cert.pem": certPEM(envoy), "key.pem": keyPEM(t, envoy), "ca.pem": ca.pem()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const name = "api.default.dc1.internal.d.test"
	api := fixed(t, ca.issue(apiID, nil), own)

	// The server answers over HTTP with what was negotiated.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := ServerConfig(api, ServerOptions{NextProtos: []string{"outrigger/1", "h2", "http/1.1"}})
	srv := &http.Server{TLSConfig: server, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := PeerID(r.TLS)
		fmt.Fprintf(w, "%s alpn=%s sni=%s tls=%x %v %v", r.Proto, r.TLS.NegotiatedProtocol, r.TLS.ServerName, r.TLS.Version, id, err)
	})}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { srv.Close(); <-served })

	hcm := func(cluster string) string {
		return `{name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: out, http_filters: [ROUTER], route_config: {virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: ` + cluster + `}}]}]}}}`
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	config := envoyConfig
	for _, r := range [][2]string{
		{"HCM_out2", hcm("out2")},
		{"HCM_out", hcm("out")},
		{"TLS_out", `{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: ` + name + `, common_tls_context: {CERTS, validation_context: {trusted_ca: {filename: DIR/ca.pem}, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "` + apiID + `"}}]}}}}`},
		{"ROUTER", `{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`},
		{"CERTS", `tls_certificates: [{certificate_chain: {filename: DIR/cert.pem}, private_key: {filename: DIR/key.pem}}]`},
		{"ADDRESS", `{cluster_name: out, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ` + port + `}}}}]}]}`},
		{"DIR", dir},
	} {
		config = strings.ReplaceAll(config, r[0], r[1])
	}
	file, admin := filepath.Join(dir, "envoy.yaml"), filepath.Join(dir, "admin")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--admin-address-path", admin)
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Envoy's log:\n%s", log.take())
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(url string) (string, error) {
		resp, err := client.Get(url)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	ports := map[string]string{}
	for len(ports) < 4 {
		if ctx.Err() != nil {
			t.Fatal("Envoy has no listeners")
		}
		time.Sleep(50 * time.Millisecond) // another process, which has no event to wait for
		at, err := os.ReadFile(admin)
		if err != nil {
			continue
		}
		list, _ := get("http://" + string(at) + "/listeners")
		for line := range strings.Lines(list) {
			if n, address, ok := strings.Cut(strings.TrimSpace(line), "::"); ok {
				ports[n] = address
			}
		}
	}

	for listener, want := range map[string]string{
		"http":  "HTTP/1.1 alpn=http/1.1 sni=" + name + " tls=303 " + webID + " <nil>",
		"http2": "HTTP/2.0 alpn=h2 sni=" + name + " tls=303 " + webID + " <nil>",
		"tcp":   "HTTP/1.1 alpn= sni=" + name + " tls=303 " + webID + " <nil>",
	} {
		if got, err := get("http://" + ports[listener] + "/"); err != nil || got != want {
			t.Errorf("Envoy calls with %s: %q, %v; want %q", listener, got, err, want)
		}
	}

	for _, c := range []struct {
		protos []string
		want   string
	}{
		{[]string{"outrigger/1", "http/1.1"}, "http/1.1"},
		{[]string{"outrigger-tcp/1"}, ""},
		{nil, ""},
	} {
		conn, err := tls.Dial("tcp", ports["in"], ClientConfig(api, ClientOptions{Expected: []ID{mustID(t, webID)}, ServerName: "web.default.dc1.internal.d.test", NextProtos: c.protos}))
		if err != nil {
			t.Errorf("Envoy is called with %q: %v", c.protos, err)
			continue
		}
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("Envoy is called with %q: %v", c.protos, err)
		} else {
			b, _ := io.ReadAll(resp.Body)
			if got := conn.ConnectionState().NegotiatedProtocol; got != c.want || string(b) != "envoy" {
				t.Errorf("Envoy is called with %q: negotiated %q, body %q; want %q", c.protos, got, b, c.want)
			}
		}
		conn.Close()
	}
	wrong := ClientConfig(api, ClientOptions{Expected: []ID{mustID(t, apiID)}})
	if conn, err := tls.Dial("tcp", ports["in"], wrong); err == nil {
		conn.Close()
		t.Error("an Envoy of another identity than the one expected is talked to")
	}
}
