package http2

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const h2specVersion = "v2.2.1+incompatible"

// findH2spec returns the path of h2spec: H2SPEC_BIN if that is set, h2spec on the
// PATH, in the user's cache directory, or, in CI, built with the Go toolchain.
func findH2spec(t *testing.T) string {
	if bin := os.Getenv("H2SPEC_BIN"); bin != "" {
		return bin
	}
	if bin, err := exec.LookPath("h2spec"); err == nil {
		return bin
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no cache directory: ", err)
	}
	dir := filepath.Join(cache, "outrigger", "h2spec-"+h2specVersion)
	bin := filepath.Join(dir, "h2spec")
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	if os.Getenv("CI") != "true" {
		t.Skip("no h2spec: set H2SPEC_BIN, put it on the PATH, or set CI=true to have it built")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", "github.com/summerwind/h2spec/cmd/h2spec@"+h2specVersion)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building h2spec: %v\n%s", err, out)
	}
	return bin
}

// h2spec is a conformance suite that nobody here wrote. Its 146 cases must all
// pass, with --strict also those of what the RFC only recommends.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	bin := findH2spec(t)
	server, _ := tlsConfigs()
	for name, cfg := range map[string]*tls.Config{"cleartext": nil, "tls": server} {
		t.Run(name, func(t *testing.T) {
			v := serve(t, cfg, &Config{ExtendedConnect: true}, echo)
			host, port, _ := net.SplitHostPort(v.addr)
			args := []string{"--strict", "--host", host, "--port", port, "--timeout", "3"}
			if cfg != nil {
				args = append(args, "--tls", "--insecure")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, bin, args...).CombinedOutput()
			text := string(out)
			if err != nil {
				if i := strings.Index(text, "Failures:"); i >= 0 {
					text = text[i:]
				}
				t.Fatalf("%v\n%s", err, text)
			}
			m := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindStringSubmatch(text)
			if m == nil || m[1] != "146" || m[2] != "146" {
				t.Fatalf("not 146 of 146: %v", m)
			}
		})
	}
}
