package check

import (
	"crypto/tls"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/devca"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/health"
)

// identities are of one trust domain.
type identities struct {
	t  testing.TB
	ca *devca.Authority
}

func (ids identities) feed(id string) *mtls.Feed {
	ids.t.Helper()
	parsed, err := mtls.ParseID(id)
	if err != nil {
		ids.t.Fatal(err)
	}
	m, err := ids.ca.Material(parsed, time.Hour)
	if err != nil {
		ids.t.Fatal(err)
	}
	f := mtls.NewFeed("test")
	f.Publish(m)
	return f
}

func (ids identities) client(expected string, protos ...string) *tls.Config {
	id, err := mtls.ParseID(expected)
	if err != nil {
		ids.t.Fatal(err)
	}
	return mtls.ClientConfig(ids.feed("spiffe://mesh.test/web"), mtls.ClientOptions{Expected: []mtls.ID{id}, NextProtos: protos})
}

// TestMTLS: a check sees an endpoint as traffic does: with the proxy's own
// identity, and only if the endpoint's is the expected one.
func TestMTLS(t *testing.T) {
	ca, err := devca.NewAuthority("mesh.test")
	if err != nil {
		t.Fatal(err)
	}
	ids := identities{t, ca}
	const api, other = "spiffe://mesh.test/api", "spiffe://mesh.test/other"
	server := ids.feed(api)

	plain := listen(t)
	tlsConfig := mtls.ServerConfig(server, mtls.ServerOptions{NextProtos: []string{"h2", "http/1.1"}})
	s := &http.Server{TLSConfig: tlsConfig, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].URIs[0].String() != "spiffe://mesh.test/web" {
			w.WriteHeader(403)
		}
	})}
	var running sync.WaitGroup
	running.Go(func() { _ = s.ServeTLS(plain, "", "") })
	onGRPC := listen(t)
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(mtls.ServerConfig(server, mtls.ServerOptions{NextProtos: []string{"h2"}}))))
	healthpb.RegisterHealthServer(g, grpchealth.NewServer())
	running.Go(func() { _ = g.Serve(onGRPC) })
	t.Cleanup(func() {
		_ = s.Close()
		g.Stop()
		running.Wait()
	})

	for name, c := range map[string]struct {
		cfg      health.Config
		l        *listener
		expected string
		protos   []string
		want     health.Cause
		conns    int64 // of two checks
	}{
		"http":                       {httpCheck(nil), plain, api, []string{"http/1.1"}, health.Passed, 1},
		"http of several protocols":  {httpCheck(nil), plain, api, []string{"mesh", "http/1.1"}, health.Passed, 1},
		"http over http2":            {httpCheck(nil), plain, api, []string{"h2"}, health.Passed, 1},
		"http, another identity":     {httpCheck(nil), plain, other, []string{"http/1.1"}, health.Identity, 2},
		"http2, another identity":    {httpCheck(nil), plain, other, []string{"h2"}, health.Identity, 2},
		"grpc":                       {grpcCheck(""), onGRPC, api, []string{"h2"}, health.Passed, 1},
		"grpc, another identity":     {grpcCheck(""), onGRPC, other, []string{"h2"}, health.Identity, 2},
		"tcp":                        {tcpCheck("", ""), plain, api, nil, health.Passed, 2},
		"tcp, another identity":      {tcpCheck("", ""), plain, other, nil, health.Identity, 2},
		"tcp, but it speaks no TLS":  {tcpCheck("", ""), raw(t, reply("220 mail\r\n")), api, nil, health.Identity, 2},
		"http, but it never answers": {httpCheck(nil), raw(t, silent), api, []string{"http/1.1"}, health.Timeout, 2},
		"grpc, but it is not HTTP/2": {grpcCheck(""), plain, api, []string{"http/1.1"}, health.Identity, 2},
		"grpc, but it never answers": {grpcCheck(""), raw(t, silent), api, []string{"h2"}, health.Timeout, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == health.Timeout {
				c.cfg.Timeout = 50 * time.Millisecond
			} else {
				c.cfg.Timeout = 5 * time.Second
			}
			before := c.l.accepted.Load()
			b := newBed(t, c.cfg, true, func(s *upstream.Spec) {
				s.TLS = ids.client(c.expected, c.protos...)
				s.Policy.HTTP2 = c.cfg.GRPC != nil || len(c.protos) > 0 && c.protos[0] == "h2"
			}, c.l.address())
			for range 2 {
				if got := b.once(); got.Cause != c.want {
					t.Errorf("%s: %s, want %s", got.Cause, got.Detail, c.want)
				}
			}
			if n := c.l.accepted.Load() - before; n != c.conns {
				t.Errorf("%d connections, want %d", n, c.conns)
			}
		})
	}
	t.Run("no identity of its own", func(t *testing.T) {
		b := newBed(t, tcpCheck("", ""), true, func(s *upstream.Spec) {
			s.TLS = mtls.ClientConfig(mtls.NewFeed("empty"), mtls.ClientOptions{})
		}, plain.address())
		if got := b.once(); got.Cause != health.Local {
			t.Errorf("%+v", got)
		}
		if s, _ := b.state(); s.State != health.Unknown {
			t.Errorf("%s for want of an own identity", s.State)
		}
	})
}
