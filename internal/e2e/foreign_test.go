package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// With peers that are no Outrigger a sidecar speaks what both know: each of them
// demands and verifies its certificate, and none has heard of the transport
// between sidecars.
func TestForeignServers(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	app := serve(t, echo("api"))
	h2 := serveHTTP2(t, echo("api"))
	m.ca.write(m.dir, "peer", spiffe("api"))
	file := func(name string) string { return filepath.Join(m.dir, name) }
	// HAProxy wants certificate and key in one file.
	pem := must(t, exec.Command("cat", file("peer.crt"), file("peer.key")))
	writeFile(t, file("peer.pem"), pem)
	for _, c := range []struct {
		name, protocol, program, conf string
		args                          []string
	}{
		{"nginx, HTTP/1.1", "http", "nginx", fmt.Sprintf(`daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen LISTEN ssl; ssl_protocols TLSv1.3; ssl_certificate %[1]s/peer.crt; ssl_certificate_key %[1]s/peer.key;
    ssl_client_certificate %[1]s/bundle.pem; ssl_verify_client on;
    location / { proxy_pass http://127.0.0.1:%[2]d; proxy_http_version 1.1; }
  }
}`, m.dir, app), []string{"-p", m.dir, "-c", "CONF"}},
		{"HAProxy, HTTP/1.1", "http", "haproxy", haproxyFront(m.dir, "http/1.1", "http", app, ""), []string{"-db", "-f", "CONF"}},
		{"HAProxy, HTTP/2", "http2", "haproxy", haproxyFront(m.dir, "h2", "http", h2, "proto h2"), []string{"-db", "-f", "CONF"}},
		{"HAProxy, TCP", "tcp", "haproxy", haproxyFront(m.dir, "", "tcp", app, ""), []string{"-db", "-f", "CONF"}},
		{"HAProxy, TCP with ALPN", "tcp", "haproxy", haproxyFront(m.dir, "http/1.1", "tcp", app, ""), []string{"-db", "-f", "CONF"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin := need(t, c.program)
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			listen := freeAddress(t)
			conf := filepath.Join(m.dir, "peer.conf")
			writeFile(t, conf, strings.ReplaceAll(c.conf, "LISTEN", listen))
			for i, a := range c.args {
				c.args[i] = strings.ReplaceAll(a, "CONF", conf)
			}
			spawn(t, c.program, exec.Command(bin, c.args...))
			m.catalog(map[string][]string{"api": {listen}})
			web, address := m.outboundAs(c.protocol, "web", "api", nil)
			web.ready()
			client := clientOf(t, false)
			eventually(t, patience, c.name+" answers", func() (bool, string) {
				resp, err := client.Get("http://" + address + "/hello")
				if err != nil {
					return false, err.Error()
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				return resp.StatusCode == 200, string(b)
			})
			for range 20 {
				resp, err := client.Post("http://"+address+"/post", "text/plain", strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || parseSeen(t, string(b)).Method != "POST" {
					t.Fatalf("%d %v %s", resp.StatusCode, err, b)
				}
			}
			client.CloseIdleConnections() // a TCP connection is recorded at its end
			r := web.recorded("a request", func(r *record) bool { return r.Reason == "ok" })
			if r.UpstreamID != spiffe("api") {
				t.Errorf("record: %+v", r)
			}
		})
	}
}

// haproxyFront is a HAProxy that demands client certificates.
func haproxyFront(dir, alpn, mode string, port int, server string) string {
	if alpn != "" {
		alpn = "alpn " + alpn
	}
	return fmt.Sprintf(`defaults
  mode %[3]s
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind LISTEN ssl crt %[1]s/peer.pem ca-file %[1]s/bundle.pem verify required %[2]s
  default_backend b
backend b
  server s 127.0.0.1:%[4]d %[5]s
`, dir, alpn, mode, port, server)
}

// Callers that are no Outrigger get what they offer.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for _, c := range []struct {
		name   string
		protos []string
		want   string
	}{
		{"nothing", nil, ""},
		{"http/1.1", []string{"http/1.1"}, "http/1.1"},
		{"h2", []string{"h2"}, "h2"},
		{"both", []string{"http/1.1", "h2"}, "h2"},
		{"something else", []string{"spdy/3"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			api, inbound := m.inbound("api", serve(t, echo("api")), nil)
			api.ready()
			cert := m.ca.issue(spiffe("web"), nil)
			conn, err := tls.Dial("tcp", inbound, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, NextProtos: c.protos})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if got := conn.ConnectionState().NegotiatedProtocol; got != c.want {
				t.Fatalf("negotiated %q; want %q", got, c.want)
			}
			if c.want == "h2" {
				return // h2spec and others speak it with this listener
			}
			fmt.Fprint(conn, "GET /hello HTTP/1.1\r\nhost: api\r\n\r\n")
			b := make([]byte, 12)
			if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 200" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}
