package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// devCA is a running "outrigger dev-ca" for the services web and api. The two
// are told apart by their executables.
type devCA struct {
	*process
	socket   string
	programs map[string]string
}

func startDevCA(t *testing.T, ttl time.Duration) *devCA {
	t.Helper()
	// A Unix socket's path is short, so not in t.TempDir.
	dir, err := os.MkdirTemp("", "e2e-ca-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &devCA{socket: filepath.Join(dir, "ca", "agent.sock"), programs: map[string]string{}}
	args := []string{"dev-ca", "--trust-domain", trustDomain, "--socket", "unix://" + c.socket, "--ttl", ttl.String()}
	for _, service := range []string{"web", "api"} {
		c.programs[service] = filepath.Join(dir, service)
		copyFile(t, program, c.programs[service])
		args = append(args, "--entry", fmt.Sprintf("%s=unix:uid:%d,unix:path:%s", spiffe(service), os.Getuid(), c.programs[service]))
	}
	c.process = spawn(t, "dev-ca", exec.Command(program, args...))
	eventually(t, patience, "the development CA serves", func() (bool, string) {
		nc, err := net.Dial("unix", c.socket)
		if err != nil {
			return false, err.Error()
		}
		_ = nc.Close()
		return true, ""
	})
	return c
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if os.Link(from, to) == nil {
		return
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// section is the identity section of a sidecar that gets its SVID from c.
func (c *devCA) section(timeout time.Duration) string {
	return fmt.Sprintf(`{workload_api: "unix://%s", startup_timeout: %s}`, c.socket, timeout)
}

// pair starts the two sidecars with SVIDs from c.
func (c *devCA) pair(t *testing.T, m *mesh, app int, policies string) *pair {
	t.Helper()
	p := &pair{inbound: freeAddress(t), address: freeAddress(t)}
	p.call = "http://" + p.address
	m.catalog(map[string][]string{"api": {p.inbound}})
	p.api = m.prepare("api", sections{
		"service":  fmt.Sprintf("{name: api, port: %d}", app),
		"inbound":  fmt.Sprintf(`{listen: "%s"}`, p.inbound),
		"identity": c.section(30 * time.Second),
	})
	p.web = m.prepare("web", sections{
		"service":   "{name: web}",
		"outbound":  fmt.Sprintf(`{upstreams: [{service: api, listen: "%s"}]}`, p.address),
		"discovery": m.discovery(), "identity": c.section(30 * time.Second), "policies": policies,
	})
	for service, s := range map[string]*sidecar{"api": p.api, "web": p.web} {
		s.process = spawn(t, service, exec.Command(c.programs[service], "run", "--config", s.config))
	}
	p.api.ready()
	p.web.ready()
	return p
}

type identityView struct {
	ID        string
	NotAfter  time.Time `json:"not_after"`
	Updates   int
	LastError string `json:"last_error"`
}

// serial is that of the certificate which a sidecar presents at address.
func serial(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	if err := s.Handshake(); err != nil {
		t.Fatal(err)
	}
	return s.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// SVIDs that live for eight seconds are replaced again and again under load, on
// kept connections and on new ones, and no request fails.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	ca := startDevCA(t, 8*time.Second)
	m := newMesh(t)
	// No connection is kept towards api: every request has a handshake.
	p := ca.pair(t, m, serve(t, named("api", echo("api"))), "{api: {multiplex: false, keepalive_timeout: 0s, retry: off, outlier: off}}")
	var before, after identityView
	p.api.view("/identity", &before)
	first := serial(t, p.inbound)
	l := startLoad(t, p.call+"/", loadOptions{Workers: 3, Pause: 50 * time.Millisecond})
	eventually(t, 3*patience, "api has had three new SVIDs", func() (bool, string) {
		p.api.view("/identity", &after)
		return after.Updates >= before.Updates+3, fmt.Sprintf("%+v", after)
	})
	if !after.NotAfter.After(before.NotAfter.Add(8*time.Second)) || after.ID != spiffe("api") {
		t.Errorf("api's identity went from %+v to %+v", before, after)
	}
	l.more(t, 50)
	if last := serial(t, p.inbound); last == first {
		t.Errorf("the certificate with the serial number %s is still presented", first)
	}
	l.mustEnd(t, 100)
	if n := p.web.metric("outrigger_upstream_connections_total", `cluster="api"`); n < 100 {
		t.Errorf("only %v connections were made; there was no handshake for every request", n)
	}
}

// Sidecars that have their SVID go on when the Workload API goes away, also
// with new connections, and say that it is away.
func TestWorkloadAPIGoesAway(t *testing.T) {
	t.Parallel()
	ca := startDevCA(t, time.Hour)
	m := newMesh(t)
	p := ca.pair(t, m, serve(t, echo("api")), "{api: {keepalive_timeout: 0s}}")
	mustSee(t, p.call+"/before")
	ca.kill()
	eventually(t, patience, "the trouble is shown under /identity", func() (bool, string) {
		var v identityView
		p.web.view("/identity", &v)
		return v.LastError != "", fmt.Sprintf("%+v", v)
	})
	for range 5 {
		mustSee(t, p.call+"/after")
	}
	if status, body := p.web.get("/ready"); status != 200 {
		t.Errorf("/ready: %d %s", status, body)
	}
}

// Without a Workload API the start fails in time, with an error that names the
// socket.
func TestStartWithoutWorkloadAPI(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	socket := filepath.Join(m.dir, "nobody.sock")
	s := m.prepare("web", sections{
		"service": "{name: web, port: 8080}", "inbound": fmt.Sprintf(`{listen: "%s"}`, freeAddress(t)),
		"identity": fmt.Sprintf(`{workload_api: "unix://%s", startup_timeout: 1s}`, socket),
	})
	began := time.Now()
	s.start()
	if code := s.code(patience); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("it gave up after %v", took)
	}
	if out := s.out.String(); !strings.Contains(out, "outrigger: identity: ") || !hasLine(out, "outrigger:", socket, "1s") {
		t.Errorf("the error does not name socket and time:\n%s", out)
	}
}

// A SIGTERM while the identity is awaited ends the start in order.
func TestStopWhileIdentityIsAwaited(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	s := m.prepare("web", sections{
		"service": "{name: web, port: 8080}", "inbound": fmt.Sprintf(`{listen: "%s"}`, freeAddress(t)),
		"identity": fmt.Sprintf(`{workload_api: "unix://%s", startup_timeout: 0s}`, filepath.Join(m.dir, "nobody.sock")),
	})
	s.start()
	eventually(t, patience, "it says what it waits for", func() (bool, string) {
		status, body := s.get("/ready")
		return status == 503 && strings.Contains(body, "identity"), body
	})
	s.signal(15)
	if code := s.code(patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
