package consulca

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// socket forwards what comes to a socket to Consul's gRPC port, as Nomad does in
// an allocation, and speaks TLS where there is a configuration of it.
func socket(t *testing.T, to string, conf *tls.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "grpc.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				up, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				wg.Go(func() {
					_, _ = io.Copy(c, up)
					c.Close()
				})
				_, _ = io.Copy(up, c)
				up.Close()
			})
		}
	})
	return "unix://" + path
}

// The socket of an allocation leads to a port with TLS where the agent's is one:
// then the bootstrap file has authorities.
func TestSignThroughASocket(t *testing.T) {
	agent := testkit.Consul(t, testkit.ConsulOptions{Mesh: true})
	ca := testkit.NewCA(t)
	bundle := filepath.Join(ca.Files("spiffe://test.example/any"), "bundle.pem")
	serves := func(name string) *tls.Config {
		cert := ca.Issue("spiffe://test.example/agent", func(c *x509.Certificate) { c.DNSNames = []string{name} })
		return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	}
	for _, c := range []struct {
		name       string
		conf       *tls.Config
		ca, server string
		refused    string // empty: a certificate comes
	}{
		{name: "plain"},
		{name: "TLS of this machine", conf: serves("localhost"), ca: bundle},
		{name: "TLS of another name", conf: serves("server.dc1.consul"), ca: bundle, server: "server.dc1.consul"},
		{name: "TLS of a wrong name", conf: serves("server.dc1.consul"), ca: bundle, refused: "not localhost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("CONSUL_TLS_SERVER_NAME", "")
			s, _ := source(t, agent, Config{
				Method: MethodSign, GRPCAddress: socket(t, agent.GRPC, c.conf), GRPCCAFile: c.ca, GRPCServerName: c.server,
			}, "web", "")
			run(t, s)
			if c.refused == "" {
				if id := material(t, s).ID.String(); !strings.HasSuffix(id, "/svc/web") {
					t.Error(id)
				}
				return
			}
			until(t, s, "a refusal", func() bool { return s.Status().LastError != nil })
			if err := s.Status().LastError.Error(); !strings.Contains(err, c.refused) || s.Material() != nil {
				t.Errorf("%q, want %q", err, c.refused)
			}
		})
	}
}
