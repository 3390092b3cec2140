package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/peers"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// testRunner is a runner with the peers that are installed or in the cache.
func testRunner(t *testing.T) *runner {
	t.Helper()
	o, err := parseOptions([]string{"-seconds", "0.05", "-fetch=false"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{o: o, log: io.Discard, dir: t.TempDir(), proxyCore: -1, loadCore: -1, spawn: newSpawner()}
	go r.spawn.run()
	t.Cleanup(r.spawn.close)
	if r.certs, err = makeCerts(r.dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, s := range allSubjects(o, t.Logf) {
		if s.name() == "outrigger" {
			continue // its own tests look closer, and it would have to be built
		}
		if _, err := s.prepare(t.Context(), r.dir); err != nil {
			t.Logf("not looked at: %v", err)
			continue
		}
		r.subjects = append(r.subjects, s)
	}
	return r
}

// TestPeersDoTheSameWork looks at what arrives behind each pair of sidecars,
// and that the inbound one takes nobody without a certificate.
func TestPeersDoTheSameWork(t *testing.T) {
	r := testRunner(t)
	heads := make(chan http.Header, 1)
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("X-Test") != "" {
			heads <- q.Header
		}
		io.WriteString(w, "ok")
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go app.Serve(ln)
	defer app.Close()
	at := netip.MustParseAddrPort(ln.Addr().String())
	pair := r.o.courses(report.MeshHop)[0]
	for _, s := range r.subjects {
		t.Run(s.name(), func(t *testing.T) {
			b, err := r.setUp(t.Context(), s, pair, at)
			if err != nil {
				t.Fatal(err)
			}
			defer b.tearDown()
			req, err := http.NewRequest("GET", "http://"+b.entry.String()+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Test", "1")
			req.Header.Set("X-Forwarded-Client-Cert", "URI=spiffe://evil.test/web")
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status)
			}
			h := <-heads
			// One address for each sidecar. Envoy puts an address of the machine
			// in place of a loopback one.
			if xff := strings.Join(h.Values("X-Forwarded-For"), ","); strings.Count(xff, ",") != 1 {
				t.Errorf("x-forwarded-for %q", xff)
			}
			if h.Get("X-Forwarded-Proto") == "" {
				t.Error("no x-forwarded-proto")
			}
			// What two of them cannot do is said in their templates.
			name := strings.TrimSuffix(s.name(), "-h2")
			if id := h.Get("X-Request-Id"); (len(id) < 16) != slices.Contains([]string{"nghttpx", "traefik"}, name) {
				t.Errorf("x-request-id %q", id)
			}
			if claim := h.Get("X-Forwarded-Client-Cert"); strings.Contains(claim, "evil") != (name == "nghttpx") {
				t.Errorf("x-forwarded-client-cert %q", claim)
			}
		})
	}
	secure := r.o.plainCourse(report.Handshake)
	secure.chain = oneSecure
	for _, s := range r.subjects {
		if s.hopH2() {
			continue
		}
		t.Run(s.name()+"/strangers", func(t *testing.T) {
			b, err := r.setUp(t.Context(), s, secure, at)
			if err != nil {
				t.Fatal(err)
			}
			defer b.tearDown()
			strangers(t, r.certs.web, b.entry)
		})
	}
}

// TestPairsRefuseStrangers holds the inbound sidecars that carry gRPC and TCP
// to the same: only a client with the right certificate is served.
func TestPairsRefuseStrangers(t *testing.T) {
	r := testRunner(t)
	foreign, err := makeCerts(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []string{report.MeshGRPC, report.MeshTCP} {
		c := r.o.courses(scenario)[0]
		behind, err := r.startOrigin(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer behind.tearDown()
		for _, s := range r.subjects {
			if s.takes(c) != nil {
				continue
			}
			t.Run(scenario+"/"+s.name(), func(t *testing.T) {
				inbound := *c
				inbound.chain = oneSecure
				b, err := r.setUp(t.Context(), s, &inbound, behind.entry)
				if err != nil {
					t.Fatal(err)
				}
				defer b.tearDown()
				cfg, err := tlsConfig(r.certs.web)
				if err != nil {
					t.Fatal(err)
				}
				cfg.NextProtos = nil
				if err := served(t.Context(), c.protocol, b.entry, cfg); err != nil {
					t.Errorf("the right client: %v", err)
				}
				cfg.Certificates = nil
				if err := served(t.Context(), c.protocol, b.entry, cfg); err == nil {
					t.Error("a client without a certificate is served")
				}
				other, err := tls.LoadX509KeyPair(foreign.web.Cert, foreign.web.Key)
				if err != nil {
					t.Fatal(err)
				}
				cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other, nil }
				if err := served(t.Context(), c.protocol, b.entry, cfg); err == nil {
					t.Error("a client with a foreign certificate is served")
				}
			})
		}
	}
}

// served makes one gRPC call, or waits for the first byte of a TCP relay.
func served(ctx context.Context, protocol peers.Protocol, at netip.AddrPort, cfg *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if protocol == peers.GRPC {
		transport := &http.Transport{TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+at.String()+"/shop.v1.Catalogue/GetItem", strings.NewReader("\x00\x00\x00\x00\x01x"))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			return fmt.Errorf("%s %s", resp.Proto, resp.Status)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	d := tls.Dialer{Config: cfg}
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, "\n"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// strangers are clients that an inbound sidecar must not serve.
func strangers(t *testing.T, own peers.Certs, at netip.AddrPort) {
	foreign, err := makeCerts(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*tls.Config){
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"foreign CA": func(c *tls.Config) {
			f, err := tlsConfig(foreign.web)
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = f.Certificates
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &f.Certificates[0], nil }
		},
		"TLS 1.2": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		cfg, err := tlsConfig(own)
		if err != nil {
			t.Fatal(err)
		}
		change(cfg)
		if text, err := get(t.Context(), at, cfg); err == nil && strings.HasPrefix(text, "HTTP/1.1 200") {
			t.Errorf("%s is served", name)
		}
	}
	cfg, err := tlsConfig(own)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := get(t.Context(), at, cfg); err != nil || !strings.HasPrefix(text, "HTTP/1.1 200") {
		t.Errorf("the right client gets %q, %v", text, err)
	}
}

func get(ctx context.Context, at netip.AddrPort, cfg *tls.Config) (string, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: cfg}
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	if len(text) > 0 {
		return string(text), nil
	}
	return "", err
}
