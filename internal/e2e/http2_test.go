package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clientOf is a client that speaks HTTP/2 by prior knowledge, or HTTP/1.1.
func clientOf(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(http2)
	tr.Protocols.SetHTTP1(!http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// trailing is echo, and under /trailers an application that answers with an
// early hint, a body, and trailers that tell of the request's.
func trailing(instance string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", echo(instance))
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum, X-Got")
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, r.Proto)
		_ = http.NewResponseController(w).Flush() // of unknown length, so that HTTP/1.1 can carry trailers
		w.Header().Set("X-Sum", hex.EncodeToString(sum.Sum(nil)))
		w.Header().Set("X-Got", r.Trailer.Get("X-Sent"))
	})
	return mux
}

// Every pair of protocols is translated on the way: that of the caller, that
// between the sidecars, and that of the application.
func TestProtocols(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	sum := sha256.Sum256(body)
	want := hex.EncodeToString(sum[:])
	for _, app := range []string{"http", "http2"} {
		for _, between := range []string{"http", "http2", "mesh"} {
			m := &mesh{t: t, dir: t.TempDir(), ca: m.ca}
			start := serve
			if app == "http2" {
				start = serveHTTP2
			}
			protocol, web := between, sections{"policies": "{api: {multiplex: false}}"}
			if between == "mesh" {
				protocol, web = "http", nil
			}
			p := m.pairAs(protocol, app, start(t, trailing("api")), web, nil)
			for _, http2 := range []bool{false, true} {
				client := clientOf(t, http2)
				version := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[http2]
				t.Run(fmt.Sprintf("%s, %s, %s", version, between, app), func(t *testing.T) {
					call := func(method, path string, body io.Reader, change func(*http.Request)) (*http.Response, string) {
						t.Helper()
						req, err := http.NewRequestWithContext(t.Context(), method, p.call+path, body)
						if err != nil {
							t.Fatal(err)
						}
						if change != nil {
							change(req)
						}
						resp, err := client.Do(req)
						if err != nil {
							t.Fatalf("%s %s: %v", method, path, err)
						}
						defer resp.Body.Close()
						b, err := io.ReadAll(resp.Body)
						if err != nil {
							t.Fatalf("%s %s: %v", method, path, err)
						}
						return resp, string(b)
					}
					id := fmt.Sprintf("%s-%s-%s", strings.ReplaceAll(version, "/", ""), between, app)
					resp, text := call("GET", "/hello?x=1", nil, func(r *http.Request) {
						r.Header.Set("X-Request-Id", id)
						r.Header["Cookie"] = []string{"a=1; b=2"}
					})
					s := parseSeen(t, text)
					if resp.StatusCode != 200 || s.Method != "GET" || s.Path != "/hello" || s.Header.Get("Cookie") != "a=1; b=2" {
						t.Errorf("GET: %d %+v", resp.StatusCode, s)
					}
					if r := p.web.recorded("the request", func(r *record) bool { return r.RequestID == id }); r.Protocol != version || r.UpstreamID != spiffe("api") {
						t.Errorf("web's record: %+v", r)
					}
					inner := map[string]string{"http": "HTTP/1.1", "http2": "HTTP/2", "mesh": version}[between]
					if r := p.api.recorded("the request", func(r *record) bool { return r.RequestID == id }); r.Protocol != inner || r.DownstreamID != spiffe("web") {
						t.Errorf("api's record: %+v; want %s", r, inner)
					}
					resp, text = call("HEAD", "/bytes/1234", nil, nil)
					if resp.ContentLength != 1234 || text != "" {
						t.Errorf("HEAD: length %d, body %q", resp.ContentLength, text)
					}
					for _, n := range []string{"204", "304", "404", "500"} {
						if resp, _ := call("POST", "/status/"+n, strings.NewReader("x"), nil); fmt.Sprint(resp.StatusCode) != n {
							t.Errorf("status %d; want %s", resp.StatusCode, n)
						}
					}
					_, text = call("POST", "/long", bytes.NewReader(body), nil)
					if s := parseSeen(t, text); s.Sum != want || s.Header.Get("Content-Length") != "" && s.Header.Get("Content-Length") != fmt.Sprint(len(body)) {
						t.Errorf("POST: %+v", s)
					}
					_, text = call("POST", "/unknown", struct{ io.Reader }{bytes.NewReader(body)}, nil)
					if s := parseSeen(t, text); s.Sum != want {
						t.Errorf("POST of unknown length: %+v", s)
					}
					resp, text = call("GET", "/bytes/16777216", nil, nil)
					if len(text) != 16777216 || resp.ContentLength != 16777216 {
						t.Errorf("download: %d bytes, announced %d", len(text), resp.ContentLength)
					}
					hints := 0
					resp, text = call("POST", "/trailers", struct{ io.Reader }{bytes.NewReader(body)}, func(r *http.Request) {
						r.Header.Set("Te", "trailers")
						r.Trailer = http.Header{"X-Sent": {"yes"}}
						*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
							Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
								if code == 103 && h.Get("Link") != "" {
									hints++
								}
								return nil
							},
						}))
					})
					proto := map[string]string{"http": "HTTP/1.1", "http2": "HTTP/2.0"}[app]
					if text != proto || resp.Trailer.Get("X-Sum") != want || resp.Trailer.Get("X-Got") != "yes" || hints != 1 {
						t.Errorf("body %q (want %s), trailers %v, %d early hints", text, proto, resp.Trailer, hints)
					}
				})
			}
		}
	}
}

// curl and nghttp, two clients that nobody here wrote, over HTTP/2.
func TestHTTP2Clients(t *testing.T) {
	t.Parallel()
	curl, nghttp := need(t, "curl"), need(t, "nghttp")
	m := newMesh(t)
	p := m.pairAs("http2", "http2", serveHTTP2(t, trailing("api")), nil, nil)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	sum := sha256.Sum256(body)
	want := hex.EncodeToString(sum[:])
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, stdin []byte, program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s %q: %v\n%s%s", program, args, err, tail(out.String(), 2000), tail(errs.String(), 2000))
		}
		return out.String()
	}
	c := []string{"-sS", "--max-time", "30", "--noproxy", "*", "--http2-prior-knowledge"}
	t.Run("curl GET", func(t *testing.T) {
		if out := run(t, nil, curl, append(c, "-i", p.call+"/hello")...); !strings.HasPrefix(out, "HTTP/2 200") {
			t.Errorf("answer: %s", out)
		}
	})
	t.Run("curl POST", func(t *testing.T) {
		out := run(t, nil, curl, append(c, "--data-binary", "@"+file, p.call+"/post")...)
		if s := parseSeen(t, out); s.Sum != want || s.Method != "POST" {
			t.Errorf("the application saw %+v", s)
		}
	})
	t.Run("curl upload of unknown length", func(t *testing.T) {
		if s := parseSeen(t, run(t, body, curl, append(c, "-T", "-", p.call+"/put")...)); s.Sum != want || s.Method != "PUT" {
			t.Errorf("the application saw %+v", s)
		}
	})
	t.Run("curl large", func(t *testing.T) {
		out := run(t, nil, curl, append(c, "-o", "/dev/null", "-w", "%{size_download} %{http_code} %{http_version}", p.call+"/bytes/67108864")...)
		if out != "67108864 200 2" {
			t.Errorf("size, status and version: %s", out)
		}
	})
	t.Run("curl trailers", func(t *testing.T) {
		out := run(t, nil, curl, append(c, "-D", "-", "-H", "TE: trailers", "--data-binary", "@"+file, p.call+"/trailers")...)
		if !hasLine(out, "x-sum: "+want) || !hasLine(out, "HTTP/2 103") {
			t.Errorf("answer: %s", out)
		}
	})
	t.Run("nghttp GET", func(t *testing.T) {
		if out := run(t, nil, nghttp, "-v", "--no-dep", p.call+"/hello"); !strings.Contains(out, ":status: 200") || !strings.Contains(out, `"Path":"/hello"`) {
			t.Errorf("answer: %s", out)
		}
	})
	t.Run("nghttp with priorities", func(t *testing.T) {
		if out := run(t, nil, nghttp, "-v", "-m", "20", "--weight", "7", p.call+"/bytes/100"); strings.Count(out, ":status: 200") != 20 {
			t.Errorf("answer: %s", tail(out, 3000))
		}
	})
	t.Run("nghttp POST with trailers", func(t *testing.T) {
		out := run(t, nil, nghttp, "-v", "-d", file, "--trailer", "x-sent: yes", "-H", "te: trailers", p.call+"/trailers")
		if !strings.Contains(out, "x-sum: "+want) || !strings.Contains(out, "x-got: yes") {
			t.Errorf("answer: %s", tail(out, 3000))
		}
	})
	t.Run("nghttp in small windows", func(t *testing.T) {
		if out := run(t, nil, nghttp, "-s", "-n", "-w", "10", "-W", "10", p.call+"/bytes/4194304"); !strings.Contains(out, " 200 ") {
			t.Errorf("answer: %s", tail(out, 3000))
		}
	})
}
