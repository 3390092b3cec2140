package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// overUnix returns a client whose calls all go to a Unix socket.
func overUnix(t *testing.T, path string, http2 bool) *http.Client {
	t.Helper()
	c := clientOf(t, http2)
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return c
}

// answers asks by a Unix socket until the answer is a 200, and returns it.
func (c socketCaller) answers(what, path string) answer {
	c.t.Helper()
	var a answer
	eventually(c.t, patience, what, func() (bool, string) {
		var err error
		if a, err = ask(c.t, c.client, http.MethodGet, "http://api"+path, nil); err != nil {
			return false, err.Error()
		}
		return a.status == http.StatusOK, fmt.Sprintf("%d %s", a.status, tail(a.body, 300))
	})
	return a
}

type socketCaller struct {
	t      *testing.T
	client *http.Client
}

// line sends a line by a Unix socket and returns what comes back.
func line(path string) (string, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(c, "hello")
	return bufio.NewReader(c).ReadString('\n')
}

// hasMode wants a Unix socket with these permissions.
func hasMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|want {
		t.Errorf("the mode of %s is %v, want %v", path, info.Mode(), fs.ModeSocket|want)
	}
}

// echoLines answers each line with the name and the line.
func echoLines(name string) func(net.Conn) {
	return func(c net.Conn) {
		for scan := bufio.NewScanner(c); scan.Scan(); {
			fmt.Fprintln(c, name+" "+scan.Text())
		}
	}
}

// An application calls its upstreams by Unix sockets, by HTTP of both versions and
// TCP. The sockets outlast a reload; those of a process that was killed are
// replaced, those of one that lives are not, and at the end they are gone.
func TestUnixUpstreams(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	dir := t.TempDir()
	api, db := filepath.Join(dir, "api.sock"), filepath.Join(dir, "db.sock")
	m.catalog(map[string][]string{
		"api": {loopback(serve(t, named("api", echo("api"))))}, "db": {loopback(serveTCP(t, echoLines("db")))},
	})
	outbound := func(mode string) string {
		return fmt.Sprintf(`{upstreams: [{service: api, listen: "unix:%s", socket_mode: "%s"}, {service: db, protocol: tcp, listen: "unix:%s"}]}`, api, mode, db)
	}
	conf := sections{
		"service": "{name: web}", "outbound": outbound("0660"), "discovery": m.discovery(), "policies": `{"*": {transport: plaintext}}`,
	}
	web := m.sidecar("web", conf)
	web.ready()
	hasMode(t, api, 0o660)
	if web.out.String() == "" || !hasLine(web.out.String(), "plan in use", "outbound:api=unix:"+api) {
		t.Error("the log does not tell of the socket")
	}
	for _, http2 := range []bool{false, true} {
		a := socketCaller{t, overUnix(t, api, http2)}.answers("an answer by a Unix socket", "/hello")
		if seen := parseSeen(t, a.body); seen.Instance != "api" || seen.Path != "/hello" || seen.Header.Get("X-Forwarded-For") != "" || seen.Header.Get("X-Forwarded-Proto") != "http" {
			t.Errorf("%+v", seen)
		}
	}
	if got, err := line(db); got != "db hello\n" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	r := web.recorded("a request", func(r *record) bool { return r.Path == "/hello" && r.Status == http.StatusOK })
	if r.Peer != "" || r.Listener != "outbound:api" {
		t.Errorf("%+v", r)
	}
	if out := web.mustTell("explain", "--to", "unix:"+api, "GET", "/hello"); !strings.Contains(out, "unix:"+api) || strings.Contains(out, "invalid") {
		t.Errorf("explain says\n%s", out)
	}
	if _, err := ask(t, overUnix(t, api, false), http.MethodGet, "http://api/status/500", nil); err != nil {
		t.Fatal(err)
	}
	r = web.recorded("a failure", func(r *record) bool { return r.Path == "/status/500" })
	if out := web.mustTell("why", r.RequestID); !strings.Contains(out, "/status/500") || strings.Contains(out, "invalid") {
		t.Errorf("why says\n%s", out)
	}
	open, err := net.Dial("unix", db)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := open.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(open)
	says := func() {
		t.Helper()
		fmt.Fprintln(open, "hello")
		if got, err := lines.ReadString('\n'); got != "db hello\n" || err != nil {
			t.Fatalf("%q %v", got, err)
		}
	}
	says()
	if _, body := web.get("/connections"); !strings.Contains(body, "unix:"+db) || strings.Contains(body, "invalid") {
		t.Errorf("the connections:\n%s", body)
	}

	before := web.overview().Reload.Version
	web.rewrite(sections{"outbound": outbound("0600")})
	web.applied(before)
	hasMode(t, api, 0o600)
	says()

	// Another proxy gets none of them, and harms none.
	late := m.sidecar("web", conf)
	if code := late.code(patience); code == 0 || !hasLine(late.out.String(), api, "another process listens there") {
		t.Errorf("a second proxy ended with %d", code)
	}
	says()
	socketCaller{t, overUnix(t, api, false)}.answers("an answer after that", "/")

	web.kill()
	hasMode(t, api, 0o600) // stale
	web.start()
	web.ready()
	socketCaller{t, overUnix(t, api, false)}.answers("an answer after a new start", "/")

	_ = open.Close()
	web.signal(syscall.SIGTERM)
	if code := web.code(patience); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
	for _, path := range []string{api, db} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

// Consul's LocalBindSocketPath and LocalBindSocketMode do the same with either
// kind of sidecar.
func TestConsulUpstreamSockets(t *testing.T) {
	m := newConsulMesh(t, testkit.ConsulOptions{})
	m.protocol("http", "api", "web-"+envoyKind, "web-"+ownKind)
	m.join(ownKind, testkit.Sidecar{Service: "api", App: serve(t, named("api", echo("api")))})
	dir := t.TempDir()
	for _, kind := range sidecarKinds {
		path := filepath.Join(dir, kind)
		m.join(kind, testkit.Sidecar{Service: "web-" + kind, Upstreams: []testkit.Upstream{
			{Service: "api", More: object{"LocalBindPort": 0, "LocalBindSocketPath": path, "LocalBindSocketMode": "0620"}},
		}})
		a := socketCaller{t, overUnix(t, path, false)}.answers("an answer to the socket of "+kind, "/hello")
		if seen := parseSeen(t, a.body); seen.Instance != "api" || seen.Path != "/hello" {
			t.Errorf("%s: %+v", kind, seen)
		}
		hasMode(t, path, 0o620)
	}
}

// serveUnix starts an application on a Unix socket: HTTP/1.1 and HTTP/2.
func serveUnix(t *testing.T, path string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
}

// serveLines starts an application on a Unix socket that answers lines.
func serveLines(t *testing.T, path, name string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	acceptAll(t, l, echoLines(name))
}

// An application may listen on a Unix socket, whatever it speaks; one that is away
// for a while is told of and found again.
func TestUnixApplication(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http", "http2", "auto", "tcp"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			app := filepath.Join(t.TempDir(), "app.sock")
			listen := freeAddress(t)
			api := m.sidecar("api", sections{
				"service": fmt.Sprintf(`{name: api, address: "unix:%s", protocol: %s}`, app, protocol),
				"inbound": fmt.Sprintf(`{listen: "%s"}`, listen),
			})
			m.catalog(map[string][]string{"api": {listen}})
			call := freeAddress(t)
			web := m.sidecar("web", sections{
				"service": "{name: web}", "discovery": m.discovery(),
				"outbound": fmt.Sprintf(`{upstreams: [{service: api, listen: "%s", protocol: %s}]}`, call, protocol),
			})
			api.ready()
			web.ready()
			if protocol == "tcp" {
				serveLines(t, app, "api")
				eventually(t, patience, "an answer", func() (bool, string) { return tcpAnswers(call, "api") })
				r := api.recorded("a connection", func(r *record) bool { return r.Protocol == "tcp" && r.BytesOut > 0 })
				if r.Endpoint != "unix:"+app {
					t.Errorf("%+v", r)
				}
				return
			}
			url := "http://" + call + "/hello"
			settles(t, "nobody listens yet", http.MethodGet, url, nil, gives(http.StatusServiceUnavailable))
			if r := api.recorded("a failure", func(r *record) bool { return r.Reason == "connect_failed" }); r.Endpoint != "unix:"+app {
				t.Errorf("%+v", r)
			} else if out := api.mustTell("why", r.RequestID); !strings.Contains(out, "unix:"+app) || strings.Contains(out, "invalid") {
				t.Errorf("why says\n%s", out)
			}
			serveUnix(t, app, named("api", echo("api")))
			a := settles(t, "an answer", http.MethodGet, url, nil, gives(http.StatusOK))
			if seen := parseSeen(t, a.body); seen.Instance != "api" || seen.Path != "/hello" || seen.Header.Get("X-Forwarded-For") == "" {
				t.Errorf("%+v", seen)
			}
			settles(t, "a long answer", http.MethodGet, "http://"+call+"/bytes/3000000", nil, func(a answer) bool { return a.status == http.StatusOK && len(a.body) == 3000000 })
			if out := api.mustTell("endpoints"); !strings.Contains(out, "unix:"+app) {
				t.Errorf("endpoints says\n%s", out)
			}
			if out := api.mustTell("explain", "--to", "api", "--from", spiffe("web"), "GET", "/hello"); !strings.Contains(out, "unix:"+app) || strings.Contains(out, "invalid") {
				t.Errorf("explain says\n%s", out)
			}
			if _, body := api.get("/metrics"); !strings.Contains(body, `="unix:`+app+`"`) {
				t.Error("no metric has the socket as its endpoint")
			}
		})
	}
}

// Consul's LocalServiceSocketPath does the same, with the same Consul for Envoy.
func TestConsulApplicationSockets(t *testing.T) {
	m := newConsulMesh(t, testkit.ConsulOptions{})
	dir := t.TempDir()
	m.protocol("http", "web")
	for _, kind := range sidecarKinds {
		m.protocol("http", "api-"+kind)
		path := filepath.Join(dir, kind)
		serveUnix(t, path, named(kind, echo(kind)))
		m.join(kind, testkit.Sidecar{Service: "api-" + kind, Proxy: object{"LocalServiceSocketPath": path}})
	}
	web := m.join(ownKind, testkit.Sidecar{Service: "web"}, "api-"+envoyKind, "api-"+ownKind)
	for _, kind := range sidecarKinds {
		a := settles(t, "an answer of "+kind, http.MethodGet, web.url("api-"+kind, "/hello"), nil, gives(http.StatusOK))
		if seen := parseSeen(t, a.body); seen.Instance != kind || seen.Path != "/hello" {
			t.Errorf("%s: %+v", kind, seen)
		}
	}
	m.agent.Intentions(t, "api-"+ownKind, testkit.Source("web", "deny"))
	settles(t, "an intention refuses", http.MethodGet, web.url("api-"+ownKind, "/hello"), nil, gives(http.StatusForbidden))
}
