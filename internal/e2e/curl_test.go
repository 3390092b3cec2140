package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Two sidecars carry everything that curl can send and receive; each knows the
// other's identity, and the application gets to know the caller's.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	m := newMesh(t)
	p := m.pair(serve(t, echo("api")), nil, nil)
	run := func(stdin []byte, args ...string) (stdout, stderr string) {
		t.Helper()
		cmd := exec.Command(curl, append([]string{"-sS", "--max-time", "30", "--noproxy", "*"}, args...)...)
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("curl %q: %v\n%s", args, err, errs.String())
		}
		return out.String(), errs.String()
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	sum := sha256.Sum256(body)
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	whole := func(what, out string) seen {
		t.Helper()
		s := parseSeen(t, out)
		if s.Length != int64(len(body)) || s.Sum != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: %d bytes with sum %s came; %d with %x were sent", what, s.Length, s.Sum, len(body), sum)
		}
		return s
	}

	t.Run("GET", func(t *testing.T) {
		out, _ := run(nil, "-i", p.call+"/hello?x=1")
		if !strings.HasPrefix(out, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("answer: %s", out)
		}
	})
	t.Run("POST", func(t *testing.T) {
		out, _ := run(nil, "-d", "name=value", p.call+"/form")
		if s := parseSeen(t, out); s.Method != "POST" || s.Length != 10 || s.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("the application saw %+v", s)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		out, _ := run(nil, "-I", p.call+"/bytes/1234")
		if !strings.HasPrefix(out, "HTTP/1.1 200") || !strings.Contains(strings.ToLower(out), "content-length: 1234\r\n") {
			t.Errorf("answer: %s", out)
		}
		// The connection is still in step.
		out, _ = run(nil, "-I", p.call+"/bytes/9", "--next", "-sS", "-d", "x", p.call+"/after")
		if !strings.Contains(out, `"Path":"/after"`) {
			t.Errorf("after HEAD: %s", out)
		}
	})
	t.Run("chunked", func(t *testing.T) {
		out, _ := run(body, "-T", "-", p.call+"/chunked")
		if s := whole("chunked", out); len(s.Encoding) != 1 || s.Encoding[0] != "chunked" {
			t.Errorf("the application saw the transfer codings %q", s.Encoding)
		}
	})
	t.Run("Expect", func(t *testing.T) {
		out, errs := run(nil, "-v", "-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", "@"+file, p.call+"/expect")
		whole("Expect", out)
		if !strings.Contains(errs, "< HTTP/1.1 100 Continue") {
			t.Errorf("no 100 (Continue) came:\n%s", errs)
		}
	})
	t.Run("large", func(t *testing.T) {
		out, _ := run(nil, "-o", "/dev/null", "-w", "%{size_download} %{http_code}", p.call+"/bytes/67108864")
		if out != "67108864 200" {
			t.Errorf("size and status: %s", out)
		}
	})
	t.Run("identities", func(t *testing.T) {
		out, _ := run(nil, "-H", "X-Forwarded-Client-Cert: URI=spiffe://evil.test/admin", "-H", "X-Request-Id: curl-7", p.call+"/whoami")
		xfcc := parseSeen(t, out).Header.Values("X-Forwarded-Client-Cert")
		if len(xfcc) != 1 || strings.Contains(xfcc[0], "evil") || !strings.Contains(xfcc[0], "URI="+spiffe("web")) || !strings.Contains(xfcc[0], "By="+spiffe("api")) {
			t.Errorf("the application saw x-forwarded-client-cert %q", xfcc)
		}
		mine := func(r *record) bool { return r.RequestID == "curl-7" }
		web := p.web.recorded("the request", mine)
		if web.LocalID != spiffe("web") || web.UpstreamID != spiffe("api") || web.Direction != "outbound" || web.Endpoint != p.inbound {
			t.Errorf("web's record: %+v", web)
		}
		api := p.api.recorded("the request", mine)
		if api.LocalID != spiffe("api") || api.DownstreamID != spiffe("web") || api.Direction != "inbound" {
			t.Errorf("api's record: %+v", api)
		}
		if web.TraceID == "" || web.TraceID != api.TraceID {
			t.Errorf("trace ids: web %q, api %q", web.TraceID, api.TraceID)
		}
	})
}
