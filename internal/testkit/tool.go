package testkit

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Tool is a program of a Go module that tests run.
type Tool struct {
	Name     string // of the program
	Variable string // of the environment, that may hold its path
	OnPath   bool   // take what is on the PATH under that name
	Folder   string // below the cache directory, with the version in its name
	Package  string // with its version, for go install
}

// H2spec is a conformance suite for HTTP/2.
func H2spec() Tool {
	const version = "v2.2.1+incompatible"
	return Tool{
		Name: "h2spec", Variable: "H2SPEC_BIN", OnPath: true,
		Folder: "h2spec-" + version, Package: "github.com/summerwind/h2spec/cmd/h2spec@" + version,
	}
}

// RateLimit is Envoy's rate limit service, which keeps its counts in Redis.
func RateLimit() Tool {
	const version = "v1.4.1-0.20260122083618-3fb702589d36"
	return Tool{
		Name: "service_cmd", Variable: "RATELIMIT_BIN",
		Folder: "ratelimit-" + version, Package: "github.com/envoyproxy/ratelimit/src/service_cmd@" + version,
	}
}

// Find returns the path of the program: what the variable says, that on the PATH
// where it may be, or in the user's cache directory, where it is built when
// CI=true. Without it the test is skipped.
func (k Tool) Find(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv(k.Variable); bin != "" {
		return bin
	}
	if k.OnPath {
		if bin, err := exec.LookPath(k.Name); err == nil {
			return bin
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no cache directory: ", err)
	}
	dir := filepath.Join(cache, "outrigger", k.Folder)
	bin := filepath.Join(dir, k.Name)
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	if os.Getenv("CI") != "true" {
		t.Skipf("no %s: set %s, or set CI=true to have it built", k.Name, k.Variable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", k.Package)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", k.Name, err, out)
	}
	return bin
}
