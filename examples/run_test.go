package examples

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

var ports = testkit.Ports{Low: 20000, High: 26000}

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// build makes the binary for all examples.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outrigger")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/outrigger").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// example is a copy of one example's files whose ports and socket are free on
// this machine; everything else is as it stands in the repository.
type example struct {
	t     *testing.T
	dir   string
	bin   string
	ports map[string]string // as written → as used
}

// sockets is where the examples keep sockets and copies of the binary.
const sockets = "/tmp/outrigger-example"

func prepare(t *testing.T, bin, name string) *example {
	t.Helper()
	// A socket's path is limited to 107 bytes, so the test's own directory,
	// which has its name in it, may be too long.
	dir, err := os.MkdirTemp("", "oe-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	x := &example{t: t, dir: dir, bin: bin, ports: map[string]string{}}
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)|port: (\d+)`)
	files, err := filepath.Glob(filepath.Join(name, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no configuration files: %v", name, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := port.ReplaceAllStringFunc(string(text), func(m string) string {
			old := m[strings.LastIndexAny(m, ": ")+1:]
			if x.ports[old] == "" {
				x.ports[old] = strconv.Itoa(ports.Free(t))
			}
			return strings.TrimSuffix(m, old) + x.ports[old]
		})
		s = strings.ReplaceAll(s, sockets, dir)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// address is the loopback address that stands for a port of the example.
func (x *example) address(port string) string {
	x.t.Helper()
	p := x.ports[port]
	if p == "" {
		x.t.Fatalf("the example has no port %s", port)
	}
	return "127.0.0.1:" + p
}

// devCA starts the development CA with one entry a service, and copies the
// binary for each, as the README says.
func (x *example) devCA(services ...string) {
	x.t.Helper()
	socket := filepath.Join(x.dir, "ca", "agent.sock")
	args := []string{"dev-ca", "--trust-domain", "example.test", "--socket", "unix://" + socket}
	for _, s := range services {
		copied := filepath.Join(x.dir, s, "outrigger")
		if err := os.Mkdir(filepath.Dir(copied), 0o700); err != nil {
			x.t.Fatal(err)
		}
		if err := os.Link(x.bin, copied); err != nil {
			x.t.Fatal(err)
		}
		args = append(args, "--entry", "spiffe://example.test/"+s+"=unix:path:"+copied)
	}
	x.start("dev-ca", x.bin, args...)
	x.eventually("the CA's socket", func() error {
		_, err := os.Stat(socket)
		return err
	})
}

// sidecar runs a configuration from the service's own copy of the binary, or
// the common one, and waits until it is ready.
func (x *example) sidecar(service, file, admin string) {
	x.t.Helper()
	bin := x.bin
	if own := filepath.Join(x.dir, service, "outrigger"); exists(own) {
		bin = own
	}
	x.start(file, bin, "run", "--config", file)
	x.eventually(file+" ready", func() error {
		status, body, err := get("http://" + x.address(admin) + "/ready")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// start runs a program in the example's directory until the test ends. What
// it wrote is shown when the test fails.
func (x *example) start(name, bin string, args ...string) {
	x.t.Helper()
	log, err := os.Create(filepath.Join(x.dir, filepath.Base(name)+".log"))
	if err != nil {
		x.t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = x.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() {
		// The first signal begins the drain, the second ends it.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			x.t.Errorf("%s did not end within a minute of SIGTERM", name)
			_ = cmd.Process.Kill()
			<-ended
		}
		log.Close()
		if x.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			x.t.Logf("%s:\n%s", name, text)
		}
	})
}

// eventually asks again and again, since other processes give no sign that
// could be waited for, and fails after a while.
func (x *example) eventually(what string, ask func() error) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 2*testkit.Patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			x.t.Fatalf("%s: %v", what, err)
		}
	}
}

// get makes one request on a connection of its own.
func get(url string) (int, string, error) { return send(http.MethodGet, url) }

func send(method, url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(body), err
}

// serve runs an HTTP application at a port of the example until the returned
// function, or the end of the test.
func (x *example) serve(port string, h http.HandlerFunc) (stop func()) {
	x.t.Helper()
	l, err := net.Listen("tcp", x.address(port))
	if err != nil {
		x.t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	stop = sync.OnceFunc(func() {
		srv.Close()
		<-served
	})
	x.t.Cleanup(stop)
	return stop
}
