package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bothVersions runs f for each TLS version that has session tickets.
func bothVersions(t *testing.T, f func(t *testing.T, version uint16)) {
	t.Run("1.3", func(t *testing.T) { f(t, tls.VersionTLS13) })
	t.Run("1.2", func(t *testing.T) { f(t, tls.VersionTLS12) })
}

func good(t *testing.T, r result, resumed bool) {
	t.Helper()
	if r.clientError != nil || r.serverError != nil {
		t.Fatalf("client: %v, server: %v", r.clientError, r.serverError)
	}
	if r.client.DidResume != resumed {
		t.Fatalf("resumed: %t, want %t", r.client.DidResume, resumed)
	}
}

func TestResumption(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := newTestCA(t)
		own := trust("d.test", ca)
		api, web := fixed(t, ca.issue(apiID, nil), own), fixed(t, ca.issue(webID, nil), own)
		server := ServerConfig(api, ServerOptions{NextProtos: []string{"http/1.1"}})
		client := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, apiID)}, ServerName: "api"})
		client.MaxVersion = version
		good(t, shake(server, client), false)
		r := shake(server, client)
		good(t, r, true)
		if id, err := PeerID(&r.server); err != nil || id.String() != webID {
			t.Errorf("identity on a resumed session: %q, %v", id, err)
		}

		// Another ALPN variant of the same listener knows the same tickets.
		other := client.Clone()
		other.NextProtos = []string{"h2"}
		good(t, shake(server, other), true)

		// A new certificate of the client: nothing made with the old one is used.
		publish(t, web, ca.issue(webID, nil), own)
		good(t, shake(server, client), false)
		good(t, shake(server, client), true)

		// A new certificate of the server: old tickets are not taken.
		publish(t, api, ca.issue(apiID, nil), own)
		good(t, shake(server, client), false)
		good(t, shake(server, client), true)
	})
}

func publish(t testing.TB, f *Feed, cert tls.Certificate, bundles map[string]*x509.CertPool) {
	t.Helper()
	m, err := NewMaterial(cert, bundles)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Publish(m) {
		t.Fatal("publishing changed nothing")
	}
}

func TestResumptionIsVerifiedAgain(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ca := newTestCA(t)
		own := trust("d.test", ca)
		api, web := fixed(t, ca.issue(apiID, nil), own), fixed(t, ca.issue(webID, nil), own)
		side := &serverSide{src: api, expect: expectation{anyDomain: true, usage: x509.ExtKeyUsageClientAuth, now: time.Now}}
		server := side.base()
		server.GetConfigForClient = side.configForClient
		client := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, apiID)}, ServerName: "api"})
		client.MaxVersion = version
		good(t, shake(server, client), false)

		// The client expects somebody else now, and finds the old session.
		changed := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, "spiffe://d.test/other")}, ServerName: "api"})
		changed.MaxVersion, changed.ClientSessionCache = version, client.ClientSessionCache
		resumed := false
		verify := changed.VerifyConnection
		changed.VerifyConnection = func(cs tls.ConnectionState) error {
			resumed = cs.DidResume
			return verify(cs)
		}
		wantKind(t, "client", shake(server, changed).clientError, WrongIdentity)
		if !resumed {
			t.Fatal("the session was not resumed, so the test shows nothing")
		}

		// The server expects somebody else now, and is shown an old ticket.
		good(t, shake(server, client), false)
		side.expect.anyDomain, side.expect.domains = false, []string{"o.test"}
		resumed = false
		inner, err := side.served()
		if err != nil {
			t.Fatal(err)
		}
		serverVerify := inner.without.VerifyConnection
		inner.without.VerifyConnection = func(cs tls.ConnectionState) error {
			resumed = cs.DidResume
			return serverVerify(cs)
		}
		wantKind(t, "server", shake(server, client).serverError, WrongTrustDomain)
		if !resumed {
			t.Fatal("the session was not resumed, so the test shows nothing")
		}
	})
}

func TestResumptionCannotOutliveTheCertificate(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		synctest.Test(t, func(t *testing.T) {
			ca := newTestCA(t)
			own := trust("d.test", ca)
			brief := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * time.Minute) }
			api, web := fixed(t, ca.issue(apiID, nil), own), fixed(t, ca.issue(webID, brief), own)
			server := ServerConfig(api, ServerOptions{})
			client := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, apiID)}, ServerName: "api"})
			client.MaxVersion = version
			good(t, shake(server, client), false)
			time.Sleep(9 * time.Minute)
			good(t, shake(server, client), true)
			time.Sleep(2 * time.Minute)
			wantKind(t, "server", shake(server, client).serverError, Expired)
		})
	})
}

func TestRemovedRootIsNotTrustedOnResumption(t *testing.T) {
	old, next := newTestCA(t), newTestCA(t)
	both := trust("d.test", old, next)
	api, web := fixed(t, next.issue(apiID, nil), both), fixed(t, old.issue(webID, nil), both)
	server := ServerConfig(api, ServerOptions{})
	client := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, apiID)}, ServerName: "api"})
	good(t, shake(server, client), false)
	good(t, shake(server, client), true)
	publish(t, api, next.issue(apiID, nil), trust("d.test", next))
	wantKind(t, "server", shake(server, client).serverError, UntrustedChain)
}

func TestTicketKeysAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newTestCA(t)
		ca.cert.NotAfter = time.Now().Add(1000 * time.Hour)
		own := trust("d.test", ca)
		api := fixed(t, ca.issue(apiID, nil), own)
		side := &serverSide{src: api, expect: expectation{now: time.Now}}
		first, _ := side.served()
		time.Sleep(ticketKeyAge - time.Second)
		if same, _ := side.served(); same != first {
			t.Error("the configuration was made again too early")
		}
		time.Sleep(time.Second)
		second, _ := side.served()
		if second == first || second.key == first.key {
			t.Error("the ticket key did not change with age")
		}
	})
}

func TestResumptionOff(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	api, web := fixed(t, ca.issue(apiID, nil), own), fixed(t, ca.issue(webID, nil), own)
	expect := ClientOptions{Expected: []ID{mustID(t, apiID)}, ServerName: "api"}
	server, client := ServerConfig(api, ServerOptions{DisableResumption: true}), ClientConfig(web, expect)
	good(t, shake(server, client), false)
	good(t, shake(server, client), false)
	expect.Sessions = -1
	server, client = ServerConfig(api, ServerOptions{}), ClientConfig(web, expect)
	good(t, shake(server, client), false)
	good(t, shake(server, client), false)
}

// TestRotationUnderLoad replaces certificates and at last the root on both sides
// while handshakes run over loopback; none may fail.
func TestRotationUnderLoad(t *testing.T) {
	old, next := newTestCA(t), newTestCA(t)
	both := trust("d.test", old, next)
	api, web := fixed(t, old.issue(apiID, nil), both), fixed(t, old.issue(webID, nil), both)
	server := ServerConfig(api, ServerOptions{NextProtos: []string{"http/1.1"}})
	client := ClientConfig(web, ClientOptions{Expected: []ID{mustID(t, apiID)}, NextProtos: []string{"http/1.1"}, ServerName: "api"})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var wg sync.WaitGroup
	stop, progress := make(chan struct{}), make(chan struct{})
	var full, resumed atomic.Int64
	var accept sync.Mutex
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case progress <- struct{}{}:
				}
				// Dial and accept in one step, so that the two ends belong together.
				accept.Lock()
				cc, err := net.Dial("tcp", listener.Addr().String())
				if err != nil {
					accept.Unlock()
					t.Error(err)
					continue
				}
				sc, err := listener.Accept()
				accept.Unlock()
				if err != nil {
					t.Error(err)
					continue
				}
				r := shakeOver(cc, sc, server, client)
				if r.clientError != nil || r.serverError != nil {
					t.Errorf("client: %v, server: %v", r.clientError, r.serverError)
					continue
				}
				if r.client.DidResume {
					resumed.Add(1)
				} else {
					full.Add(1)
				}
			}
		})
	}
	for i := range 60 {
		ca := old
		if i >= 30 {
			ca = next
		}
		publish(t, []*Feed{api, web}[i%2], ca.issue([]string{apiID, webID}[i%2], nil), both)
		for range 3 {
			<-progress
		}
	}
	close(stop)
	wg.Wait()
	if full.Load() == 0 || resumed.Load() == 0 {
		t.Errorf("%d full and %d resumed handshakes; both kinds were to be seen", full.Load(), resumed.Load())
	}
}

func TestVerifiedChainsAreRemembered(t *testing.T) {
	ca := newTestCA(t)
	own := trust("d.test", ca)
	m := fixed(t, ca.issue(webID, nil), own).Material()
	peer := ca.issue(apiID, nil).Leaf
	now := time.Now()
	e := expectation{ids: []ID{mustID(t, apiID)}, usage: x509.ExtKeyUsageServerAuth, now: func() time.Time { return now }}
	cs := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{peer}}
	if err := e.verify(m, cs); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if e.verify(m, cs) != nil {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("verifying a known chain allocates %v times", n)
	}
	// What is remembered ends with the certificate, and holds for one usage only.
	now = peer.NotAfter.Add(time.Second)
	wantKind(t, "after the end", e.verify(m, cs), Expired)
	now = peer.NotBefore.Add(-time.Second)
	wantKind(t, "before the beginning", e.verify(m, cs), NotYetValid)

	clientOnly := ca.issue(apiID, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }).Leaf
	cs.PeerCertificates[0], now = clientOnly, time.Now()
	asServer := e
	asServer.usage = x509.ExtKeyUsageClientAuth
	if err := asServer.verify(m, cs); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "other usage", e.verify(m, cs), WrongUsage)

	// Nothing that fails is remembered, and the memory is bounded.
	cache := newChainCache()
	for i := range chainCacheSize + 10 {
		cache.put([32]byte{byte(i), byte(i >> 8)}, ID{}, [][]*x509.Certificate{{peer}})
	}
	if len(cache.entries) != chainCacheSize {
		t.Errorf("%d chains are remembered, want %d", len(cache.entries), chainCacheSize)
	}
}
