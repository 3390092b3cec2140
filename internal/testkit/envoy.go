package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Envoy is a real Envoy that a Consul agent configures by xDS.
type Envoy struct {
	// Admin is "127.0.0.1:PORT".
	Admin string

	name    string
	cmd     *exec.Cmd
	exited  chan struct{} // closed when it has ended and was waited for
	logFile *os.File
}

const (
	envoyStart = 60 * time.Second
	envoyFetch = 5 * time.Minute
	// envoyVariable holds the path of an Envoy to use in place of one that is fetched.
	envoyVariable = "ENVOY_BIN"
)

// FindEnvoy returns the path of an Envoy: what ENVOY_BIN says, that on the
// PATH, or the one that the benchmark fetches into .cache/bench. Without it the
// test is skipped; with CI=true it fails.
func FindEnvoy(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real Envoy; run without -short")
	}
	bin, err := findEnvoy()
	if err != nil {
		Missing(t, err.Error())
	}
	return bin
}

// findEnvoy looks once a process: fetching may take long to fail.
var findEnvoy = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv(envoyVariable); bin != "" {
		if _, err := exec.LookPath(bin); err != nil {
			return "", fmt.Errorf("%s: %w", envoyVariable, err)
		}
		return bin, nil
	}
	if bin, err := exec.LookPath("envoy"); err == nil {
		return bin, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "outrigger")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), envoyFetch)
	defer cancel()
	unlock, err := lockFile(ctx, filepath.Join(dir, "envoy.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.CommandContext(ctx, "go", "run", "github.com/outrigger-mesh/outrigger/bench", "fetch", "envoy")
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("no Envoy: set %s, or see why it cannot be fetched: %w\n%s", envoyVariable, err, problems.String())
	}
	return strings.TrimSpace(string(out)), nil
})

// Envoy starts a real Envoy as the sidecar or gateway with that ID, which is
// registered with the agent, and waits until it has its listeners. It ends with
// the test.
func (c *ConsulAgent) Envoy(t testing.TB, proxyID string) *Envoy {
	t.Helper()
	bin := FindEnvoy(t)
	dir := t.TempDir()
	admin := filepath.Join(dir, "admin")
	bootstrap := filepath.Join(dir, "bootstrap.json")
	c.bootstrap(t, proxyID, bootstrap)

	e := &Envoy{name: proxyID}
	var err error
	if e.logFile, err = os.Create(filepath.Join(dir, "envoy.log")); err != nil {
		t.Fatal(err)
	}
	e.cmd = exec.Command(bin, "-c", bootstrap, "--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--admin-address-path", admin)
	e.cmd.Stdout, e.cmd.Stderr, e.cmd.Dir = e.logFile, e.logFile, dir
	if e.exited, err = Start(e.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Stop(t)
		e.logFile.Close()
		if t.Failed() {
			if log, err := os.ReadFile(e.logFile.Name()); err == nil {
				t.Logf("the end of the log of Envoy %s:\n%s", proxyID, tail(log, 4000))
			}
		}
	})
	e.wait(t, "has written its admin address", func(context.Context) bool {
		b, err := os.ReadFile(admin)
		e.Admin = string(b)
		return err == nil && len(b) > 0
	})
	e.wait(t, "has its listeners", func(ctx context.Context) bool {
		body, err := e.get(ctx, "/listeners")
		return err == nil && body != ""
	})
	e.wait(t, "is live", func(ctx context.Context) bool {
		body, err := e.get(ctx, "/ready")
		return err == nil && strings.TrimSpace(body) == "LIVE"
	})
	return e
}

// bootstrap writes what Consul tells an Envoy, with an admin port of the
// kernel's choice.
func (c *ConsulAgent) bootstrap(t testing.TB, proxyID, file string, more ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), envoyStart)
	defer cancel()
	// Consul lists the releases of Envoy that it was tested with and takes newer ones.
	args := append([]string{
		"connect", "envoy", "-bootstrap", "-ignore-envoy-compatibility",
		"-proxy-id", proxyID, "-admin-bind", "127.0.0.1:0", "-grpc-addr", c.GRPC, "-http-addr", c.Address,
	}, more...)
	cmd := exec.CommandContext(ctx, c.bin, args...)
	cmd.Env = []string{"HOME=" + c.dir, "PATH=" + os.Getenv("PATH"), "CONSUL_HTTP_TOKEN=" + c.Token}
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("consul connect envoy -bootstrap -proxy-id %s: %v\n%s", proxyID, err, problems.String())
	}
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Bootstrap returns the path of a file with what Consul tells an Envoy that is to
// be the sidecar with that ID. more are arguments of "consul connect envoy".
func (c *ConsulAgent) Bootstrap(t testing.TB, proxyID string, more ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	c.bootstrap(t, proxyID, file, more...)
	return file
}

// Stop ends Envoy at once. It does nothing when it has ended.
func (e *Envoy) Stop(t testing.TB) {
	t.Helper()
	_ = e.cmd.Process.Kill()
	<-e.exited
}

// Get returns what the admin interface says under a path.
func (e *Envoy) Get(t testing.TB, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	body, err := e.get(ctx, path)
	if err != nil {
		t.Fatalf("Envoy %s: %v", e.name, err)
	}
	return body
}

func (e *Envoy) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Admin+path, http.NoBody)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	return string(b), err
}

// Healthy waits until Envoy knows that many healthy endpoints of the cluster
// whose name begins so.
func (e *Envoy) Healthy(t testing.TB, cluster string, n int) {
	t.Helper()
	e.wait(t, "has "+strconv.Itoa(n)+" healthy endpoints of "+cluster, func(ctx context.Context) bool {
		body, err := e.get(ctx, "/clusters?format=json")
		var view struct {
			Clusters []struct {
				Name  string `json:"name"`
				Hosts []struct {
					Status struct {
						EDS    string `json:"eds_health_status"`
						Failed bool   `json:"failed_outlier_check"`
					} `json:"health_status"`
				} `json:"host_statuses"`
			} `json:"cluster_statuses"`
		}
		if err != nil || json.Unmarshal([]byte(body), &view) != nil {
			return false
		}
		found := 0
		for _, c := range view.Clusters {
			if !strings.HasPrefix(c.Name, cluster) {
				continue
			}
			for _, h := range c.Hosts {
				if h.Status.EDS == "HEALTHY" {
					found++
				}
			}
		}
		return found == n
	})
}

// wait looks until ok or Envoy has ended or it takes too long.
func (e *Envoy) wait(t testing.TB, what string, ok func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), envoyStart)
	defer cancel()
	for !ok(ctx) {
		select {
		case <-e.exited:
			t.Fatalf("Envoy %s has ended: %v", e.name, e.cmd.ProcessState)
		default:
		}
		if !pause(ctx) {
			t.Fatalf("Envoy %s: not within %v: %s", e.name, envoyStart, what)
		}
	}
}
