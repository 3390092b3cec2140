package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// pairs runs a test for every kind of sidecar of the caller with every kind of
// the called.
func pairs(t *testing.T, run func(t *testing.T, from, to string)) {
	t.Helper()
	for _, from := range sidecarKinds {
		for _, to := range sidecarKinds {
			t.Run(from+" to "+to, func(t *testing.T) { run(t, from, to) })
		}
	}
}

// rotation is how long a sidecar may take to have a certificate of a new root:
// Consul's agents spread that over time.
const rotation = time.Minute

// trustDomain is that of the mesh's certificates.
func (m *consulMesh) trustDomain() string {
	m.t.Helper()
	var roots struct{ TrustDomain string }
	if err := json.Unmarshal(m.agent.Do(m.t, http.MethodGet, "/v1/connect/ca/roots", nil), &roots); err != nil {
		m.t.Fatal(err)
	}
	return roots.TrustDomain
}

// lastElement is the part of x-forwarded-client-cert that the called sidecar
// has written; those before it say what a caller likes.
func lastElement(xfcc string) map[string]string {
	m := map[string]string{}
	for part := range strings.SplitSeq(xfcc[strings.LastIndex(xfcc, ",")+1:], ";") {
		k, v, _ := strings.Cut(part, "=")
		m[k] = v
	}
	return m
}

// Sidecars of both kinds call each other for services of every protocol; the
// called application learns who calls; all goes on while the mesh gets a new
// root, which both kinds follow with new certificates.
func TestConsulCalls(t *testing.T) {
	m := newConsulMesh(t, testkit.ConsulOptions{})
	protocols := []string{"tcp", "http", "http2", "grpc"}
	var services []string
	for _, kind := range sidecarKinds {
		for _, p := range protocols {
			s := p + "-" + kind
			services = append(services, s)
			m.protocol(p, s)
			app := 0
			switch p {
			case "tcp":
				app = serveTCP(t, func(c net.Conn) {
					for scan := bufio.NewScanner(c); scan.Scan(); {
						fmt.Fprintln(c, s+" "+scan.Text())
					}
				})
			case "http":
				app = serve(t, named(s, echo(s)))
			case "http2":
				app = serveHTTP2(t, named(s, echo(s)))
			case "grpc":
				app, _ = serveGRPC(t, newGRPCApp(s))
			}
			m.join(kind, testkit.Sidecar{Service: s, App: app})
		}
	}
	callers := map[string]*member{}
	for _, kind := range sidecarKinds {
		m.protocol("http", "web-"+kind)
		callers[kind] = m.join(kind, testkit.Sidecar{Service: "web-" + kind}, services...)
	}

	pairs(t, func(t *testing.T, from, to string) {
		web := callers[from]
		eventually(t, patience, "an answer over TCP", func() (bool, string) { return tcpAnswers(web.calls["tcp-"+to], "tcp-"+to) })
		for _, http2 := range []bool{false, true} {
			client := clientOf(t, http2)
			for _, p := range []string{"http", "http2"} {
				s := p + "-" + to
				a := settles(t, "an answer of "+s, http.MethodGet, web.url(s, "/hello"), nil, gives(http.StatusOK))
				if seen := parseSeen(t, a.body); seen.Instance != s || seen.Path != "/hello" {
					t.Errorf("%s: %+v", s, seen)
				}
				a, err := ask(t, client, http.MethodGet, web.url(s, "/bytes/300000"), nil)
				if err != nil || a.status != http.StatusOK || len(a.body) != 300000 {
					t.Errorf("%s, HTTP/2 %v: %d, %d bytes, %v", s, http2, a.status, len(a.body), err)
				}
			}
		}
		client := dialGRPC(t, web.calls["grpc-"+to])
		eventually(t, patience, "an answer over gRPC", func() (bool, string) {
			r, err := client.UnaryCall(within(t, patience), &testpb.SimpleRequest{})
			return err == nil && r.ServerId == "grpc-"+to, fmt.Sprint(r, err)
		})
	})
	if t.Failed() {
		return
	}

	domain := m.trustDomain()
	hashes := map[string]string{} // of the callers' certificates, by pair
	pairs(t, func(t *testing.T, from, to string) {
		s := "http-" + to
		// What the application says of itself does not reach the called one.
		a, err := ask(t, adminClient, http.MethodGet, callers[from].url(s, "/"), http.Header{"X-Forwarded-Client-Cert": {"URI=spiffe://" + domain + "/ns/default/dc/dc1/svc/admin"}})
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%d %v", a.status, err)
		}
		xfcc := strings.Join(parseSeen(t, a.body).Header["X-Forwarded-Client-Cert"], ",")
		if strings.Contains(xfcc, "svc/admin") {
			t.Errorf("the application's own word has passed: %s", xfcc)
		}
		e := lastElement(xfcc)
		if e["URI"] != "spiffe://"+domain+"/ns/default/dc/dc1/svc/web-"+from || e["By"] != "spiffe://"+domain+"/ns/default/dc/dc1/svc/"+s {
			t.Errorf("x-forwarded-client-cert: %s", xfcc)
		}
		if e["Hash"] == "" || e["Cert"] == "" || e["Chain"] == "" {
			t.Errorf("x-forwarded-client-cert lacks Hash, Cert or Chain: %s", xfcc)
		}
		hashes[from+" to "+to] = e["Hash"]
	})

	var loads []*load
	for _, from := range sidecarKinds {
		for _, to := range sidecarKinds {
			loads = append(loads, startLoad(t, callers[from].url("http-"+to, "/"), loadOptions{Workers: 1, Pause: 50 * time.Millisecond}))
		}
	}
	m.agent.RotateCA(t, false)
	pairs(t, func(t *testing.T, from, to string) {
		settlesWithin(t, rotation, "web-"+from+" has a certificate of the new root", http.MethodGet, callers[from].url("http-"+to, "/"), nil, func(a answer) bool {
			if a.status != http.StatusOK {
				return false
			}
			hash := lastElement(strings.Join(parseSeen(t, a.body).Header["X-Forwarded-Client-Cert"], ","))["Hash"]
			return hash != "" && hash != hashes[from+" to "+to]
		})
	})
	for _, l := range loads {
		l.mustEnd(t, 10)
	}
}

// tcpAnswers says whether a line sent to an address comes back with the name
// before it.
func tcpAnswers(address, name string) (bool, string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false, err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, "hello")
	line, err := bufio.NewReader(c).ReadString('\n')
	return line == name+" hello\n", fmt.Sprint(line, err)
}
