package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// plainSidecar is one sidecar in front of an application, without mTLS.
func (m *mesh) plainSidecar(application string, app int) (*sidecar, string) {
	m.t.Helper()
	listen := freeAddress(m.t)
	s := m.sidecar("api", speaking(application, app).with(sections{"inbound": fmt.Sprintf(`{listen: "%s", mtls: "off"}`, listen)}))
	s.ready()
	return s, listen
}

// execute runs a program to its end and returns what it wrote.
func execute(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, tail(out.String(), 6000))
	}
	return out.String()
}

// pythonWith returns a Python that has a module: Debian's, or the first of PATH.
func pythonWith(t *testing.T, module string) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(name, "-c", "import "+module).Run() == nil {
			return name
		}
	}
	missing(t, "no Python with the module "+module)
	return ""
}

// h2load counts every answer: through two sidecars and through one without mTLS,
// by HTTP/2 and HTTP/1.1, with and without a body, none fails.
func TestH2load(t *testing.T) {
	t.Parallel()
	h2load := need(t, "h2load")
	m := newMesh(t)
	app := serveHTTP2(t, trailing("api"))
	p := m.pairAs("http2", "http2", app, nil, nil)
	_, alone := m.plainSidecar("http2", app)
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, make([]byte, 30_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for where, url := range map[string]string{"two sidecars": p.call, "one": "http://" + alone} {
		for name, args := range map[string][]string{
			"GET":      {"-n", "2000", "-c", "8", "-m", "16", url + "/bytes/3000"},
			"POST":     {"-n", "300", "-c", "4", "-m", "8", "-d", body, url + "/post"},
			"HTTP/1.1": {"-n", "500", "-c", "8", "--h1", url + "/bytes/3000"},
			"windows":  {"-n", "60", "-c", "2", "-m", "10", "-w", "14", "-W", "16", url + "/bytes/300000"},
		} {
			t.Run(where+" "+name, func(t *testing.T) {
				out := execute(t, h2load, args...)
				want := args[1]
				if !strings.Contains(out, want+" succeeded, 0 failed, 0 errored, 0 timeout") || !strings.Contains(out, "status codes: "+want+" 2xx") {
					t.Errorf("%s", tail(out, 2000))
				}
			})
		}
	}
}

// The library h2 knows the states of every stream and ends a connection on which
// anything is not as RFC 9113 has it. It is caller and application at once.
func TestStrictPeers(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "h2")
	script, err := filepath.Abs("testdata/h2peer.py")
	if err != nil {
		t.Fatal(err)
	}
	m := newMesh(t)
	address := freeAddress(t)
	port := netip.MustParseAddrPort(address).Port()
	app := spawn(t, "h2peer.py", exec.Command(python, script, "server", fmt.Sprint(port)))
	eventually(t, patience, "the application listens", func() (bool, string) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false, err.Error()
		}
		return c.Close() == nil, ""
	})
	n := int(port)
	p := m.pairAs("http2", "http2", n, nil, nil)
	h2 := m.pairAs("http2", "http2", n, sections{"policies": "{api: {multiplex: false}}"}, nil)
	_, alone := m.plainSidecar("http2", n)
	for where, to := range map[string]string{"two sidecars": p.address, "two by h2": h2.address, "one": alone} {
		t.Run(where, func(t *testing.T) {
			if out := execute(t, python, script, "client", to); out != "well\n" {
				t.Errorf("%s", tail(out, 2000))
			}
		})
	}
	if s := app.out.String(); s != "" {
		t.Errorf("the application met %s", tail(s, 2000))
	}
}

// varnishtest plays clients and servers byte for byte. Each scenario goes through
// one sidecar and through two.
func TestScenarios(t *testing.T) {
	t.Parallel()
	varnishtest := need(t, "varnishtest")
	files, err := filepath.Glob("testdata/vtc/*.vtc")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	m := newMesh(t)
	for _, file := range files {
		for _, where := range []string{"one", "two"} {
			t.Run(filepath.Base(file)+" through "+where, func(t *testing.T) {
				app := freeAddress(t)
				port := netip.MustParseAddrPort(app).Port()
				var proxy string
				if where == "one" {
					_, proxy = m.plainSidecar("http", int(port))
				} else {
					proxy = m.pairAs("http", "http", int(port), nil, nil).address
				}
				execute(t, varnishtest, "-t", "20", "-D", "app="+app, "-D", "proxy="+proxy, file)
			})
		}
	}
}
