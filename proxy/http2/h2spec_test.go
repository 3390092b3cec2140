package http2

import (
	"context"
	"crypto/tls"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// h2spec is a conformance suite that nobody here wrote. Its 146 cases must all
// pass, with --strict also those of what the RFC only recommends.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	bin := testkit.H2spec().Find(t)
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
