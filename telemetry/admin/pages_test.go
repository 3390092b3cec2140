package admin

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with the file testdata/name, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update when that is meant\n--- got\n%s--- want\n%s", path, got, want)
	}
}

// sample is a server with the sample data, at noon.
func sample(change func(*Options)) *Server {
	o := Options{Views: sampleViews(noon), Now: func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	return New(o)
}

// ask sends one request, with pairs of a field's name and its value, as a
// caller on this machine. The field Host sets the host.
func ask(s *Server, method, target, body string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:9900", "127.0.0.1:40000"
	for i := 0; i < len(fields); i += 2 {
		switch fields[i] {
		case "Host":
			r.Host = fields[i+1]
		case "RemoteAddr":
			r.RemoteAddr = fields[i+1]
		default:
			r.Header.Set(fields[i], fields[i+1])
		}
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// pages are those with a text and a JSON form.
var pages = map[string]string{
	"/": "overview", "/ready": "ready", "/endpoints": "endpoints", "/clusters": "clusters", "/connections": "connections",
	"/rate-limits": "ratelimits",
	"/plaintext":   "plaintext", "/identity": "identity", "/discovery": "discovery",
}

func TestPages(t *testing.T) {
	s := sample(nil)
	for path, name := range pages {
		t.Run(name, func(t *testing.T) {
			text := ask(s, "GET", path, "")
			if text.Code != http.StatusOK || text.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("text: status %d, type %q", text.Code, text.Header().Get("Content-Type"))
			}
			golden(t, name+".txt", text.Body.String())
			js := ask(s, "GET", path+"?format=json", "")
			if js.Code != http.StatusOK || js.Header().Get("Content-Type") != "application/json" {
				t.Errorf("JSON: status %d, type %q", js.Code, js.Header().Get("Content-Type"))
			}
			golden(t, name+".json", js.Body.String())
			if strings.Contains(js.Body.String(), "null") {
				t.Error("JSON: there is a null")
			}
			if w := ask(s, "GET", path, "", "Accept", "application/json"); w.Body.String() != js.Body.String() {
				t.Error("Accept: application/json gives something else than ?format=json")
			}
			for _, method := range []string{"POST", "PUT", "DELETE"} {
				w := ask(s, method, path, "")
				if allow := w.Header().Get("Allow"); w.Code != http.StatusMethodNotAllowed || allow != "GET, HEAD" {
					t.Errorf("%s: status %d, Allow %q; want 405 and GET, HEAD", method, w.Code, allow)
				}
			}
		})
	}
}

// A proxy that has given no views yet answers every page, with empty lists.
func TestPagesWithoutViews(t *testing.T) {
	s := New(Options{Logger: slog.New(slog.DiscardHandler)})
	for path, name := range pages {
		want := http.StatusOK
		if name == "ready" {
			want = http.StatusServiceUnavailable
		}
		if w := ask(s, "GET", path, ""); w.Code != want || w.Body.Len() == 0 {
			t.Errorf("%s: status %d with %d bytes, want %d with some", path, w.Code, w.Body.Len(), want)
		}
		w := ask(s, "GET", path+"?format=json", "")
		if w.Code != want || !json.Valid(w.Body.Bytes()) || strings.Contains(w.Body.String(), "null") {
			t.Errorf("%s: status %d, JSON %s", path, w.Code, w.Body)
		}
		switch name {
		case "endpoints", "clusters", "connections", "ratelimits", "plaintext", "discovery":
			if w.Body.String() != "[]\n" {
				t.Errorf("%s: %q, want an empty list", path, w.Body)
			}
		}
	}
	if got := ask(s, "GET", "/plaintext", "").Body.String(); got != "no plaintext caller seen since the start\n" {
		t.Errorf("/plaintext: %q", got)
	}
	for _, path := range []string{"/config", "/metrics", "/log-level", "/nothing", "/ready/", "/assets/dashboard.js"} {
		if w := ask(s, "GET", path, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
}

// Lists that views leave nil inside of their values are empty in JSON.
func TestNoNulls(t *testing.T) {
	s := sample(func(o *Options) {
		o.Views.Endpoints = func() []EndpointView { return make([]EndpointView, 2) }
		o.Views.Clusters = func() []ClusterView { return make([]ClusterView, 2) }
		o.Views.Identity = func() IdentityView { return IdentityView{Source: "none"} }
		o.Views.Ready = func() (bool, []Check) { return true, nil }
	})
	for path := range pages {
		if body := ask(s, "GET", path+"?format=json", "").Body.String(); strings.Contains(body, "null") {
			t.Errorf("%s: there is a null:\n%s", path, body)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		target, accept string
		want           format
	}{
		{"/", "", asText},
		{"/", "*/*", asText},
		{"/", "application/json", asJSON},
		{"/", "application/json; q=0.9, text/html", asJSON},
		{"/", "text/html,application/xhtml+xml,*/*;q=0.8", asHTML},
		{"/", "image/png, text/plain", asText},
		{"/?format=text", "text/html", asText},
		{"/?format=json", "text/html", asJSON},
		{"/?format=html", "application/json", asHTML},
		{"/?format=xml", "application/json", asJSON},
	} {
		r := httptest.NewRequest("GET", c.target, nil)
		r.Header.Set("Accept", c.accept)
		if got := formatOf(r); got != c.want {
			t.Errorf("%s with Accept %q: %d, want %d", c.target, c.accept, got, c.want)
		}
	}
}

func TestReady(t *testing.T) {
	ok := false
	s := sample(func(o *Options) {
		o.Views.Ready = func() (bool, []Check) {
			return ok, []Check{{Name: "identity", OK: ok, Detail: "no SVID yet: the socket is gone"}, {Name: "listeners", OK: true}}
		}
	})
	w := ask(s, "GET", "/ready", "")
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("not ready: status %d, want 503", w.Code)
	}
	golden(t, "notready.txt", w.Body.String())
	w = ask(s, "GET", "/ready?format=json", "")
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("not ready, JSON: status %d, want 503", w.Code)
	}
	golden(t, "notready.json", w.Body.String())
	if w := ask(s, "GET", "/live", ""); w.Code != http.StatusOK || w.Body.String() != "live\n" {
		t.Errorf("/live of a proxy that is not ready: status %d %q, want 200", w.Code, w.Body)
	}
	ok = true
	if w := ask(s, "GET", "/ready", ""); w.Code != http.StatusOK {
		t.Errorf("ready: status %d, want 200", w.Code)
	}
	if w := ask(s, "HEAD", "/ready", ""); w.Code != http.StatusOK {
		t.Errorf("HEAD: status %d, want 200", w.Code)
	}
}

func TestConfig(t *testing.T) {
	var fail error
	s := sample(func(o *Options) {
		o.Views.Config = func() ([]byte, error) { return []byte("service:\n  name: web\n"), fail }
	})
	if w := ask(s, "GET", "/config", ""); w.Code != http.StatusOK || w.Body.String() != "service:\n  name: web\n" {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
	fail = errors.New("no values")
	if w := ask(s, "GET", "/config", ""); w.Code != http.StatusInternalServerError || w.Body.String() != "configuration: no values\n" {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
}

func TestMetrics(t *testing.T) {
	s := sample(func(o *Options) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	})
	if w := ask(s, "GET", "/metrics", ""); w.Code != http.StatusOK || w.Body.String() != "up 1\n" {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
	if w := ask(s, "POST", "/metrics", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d, want 405", w.Code)
	}
}

// Text of peers and sources cannot move the cursor of who reads the page, or
// add a line to it. U+009B starts a terminal's control sequence as ESC [ does.
func TestTextIsPlain(t *testing.T) {
	const evil = "a\x1b[2Jb\rc\nd\te\u009bf\x7fg"
	s := sample(func(o *Options) {
		o.Views.Discovery = func() []WatchView { return []WatchView{{Service: evil, LastError: evil}} }
		o.Views.Identity = func() IdentityView { return IdentityView{ID: evil, LastError: evil} }
		o.Views.Reload = func() ReloadView { return ReloadView{LastError: evil} }
		o.Views.Endpoints = func() []EndpointView { return []EndpointView{{ID: evil, Cause: evil}} }
		o.Views.Plaintext = func() []PlaintextView { return []PlaintextView{{Address: evil}} }
	})
	for _, path := range []string{"/", "/discovery", "/identity", "/endpoints", "/plaintext"} {
		body := ask(s, "GET", path, "").Body.String()
		if !strings.Contains(body, "a [2Jb c d e f g") {
			t.Errorf("%s does not show the text with blanks:\n%q", path, body)
		}
		if strings.ContainsAny(body, "\x1b\r\t\u009b\x7f") {
			t.Errorf("%s has control characters:\n%q", path, body)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1499 * time.Microsecond: "1ms", -350 * time.Millisecond: "350ms", 4849 * time.Millisecond: "4.8s",
		59400 * time.Millisecond: "59s", 42*time.Minute + 3*time.Second: "42m3s", 3*time.Hour + 12*time.Minute: "3h12m",
		47 * time.Hour: "47h", 80 * 24 * time.Hour: "80d",
	} {
		if got := Short(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := ahead(noon.Add(-time.Minute), noon); got != "1m ago" {
		t.Errorf("a time gone by: %q", got)
	}
}

// The dashboard is one page with its own style and script, and nothing else:
// it works without the network and under the policy that the server sends.
func TestDashboard(t *testing.T) {
	s := sample(func(o *Options) {
		o.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	})
	w := ask(s, "GET", "/", "", "Accept", "text/html,*/*;q=0.8")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("status %d, type %q", w.Code, w.Header().Get("Content-Type"))
	}
	html := w.Body.String()
	var refs []string
	for _, m := range regexp.MustCompile(`(?i)\b(?:src|href|action|srcset|data)\s*=\s*"([^"]*)"`).FindAllStringSubmatch(html, -1) {
		refs = append(refs, m[1])
	}
	for _, want := range []string{"/dashboard.css", "/dashboard.js", "/plaintext", "/connections", "/config", "/metrics"} {
		if !slices.Contains(refs, want) {
			t.Errorf("no reference to %s", want)
		}
	}
	for _, ref := range refs {
		if ref == "data:," {
			continue // the empty icon
		}
		if !strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, "//") {
			t.Errorf("reference %q is not to this server", ref)
		} else if w := ask(s, "GET", ref, ""); w.Code != http.StatusOK {
			t.Errorf("reference %q: status %d", ref, w.Code)
		}
	}
	if m := regexp.MustCompile(`(?i)<style|<script>|\sstyle=|\son[a-z]+=|javascript:`).FindString(html); m != "" {
		t.Errorf("%q: the policy forbids what is inline", m)
	}

	css, js := ask(s, "GET", "/dashboard.css", ""), ask(s, "GET", "/dashboard.js", "")
	if got := css.Header().Get("Content-Type"); got != "text/css; charset=utf-8" {
		t.Errorf("style: type %q", got)
	}
	if got := js.Header().Get("Content-Type"); got != "text/javascript; charset=utf-8" {
		t.Errorf("script: type %q", got)
	}
	for name, text := range map[string]string{"page": html, "style": css.Body.String(), "script": js.Body.String()} {
		if m := regexp.MustCompile(`(?i)https?:|wss?:|url\(|@import|\bimport\b|innerHTML|\beval\b`).FindString(text); m != "" {
			t.Errorf("the %s has %q", name, m)
		}
	}
	ids := regexp.MustCompile(`\$\("([^"]+)"\)`).FindAllStringSubmatch(js.Body.String(), -1)
	if len(ids) == 0 {
		t.Error("the script fills nothing in")
	}
	for _, m := range ids {
		if !strings.Contains(html, `id="`+m[1]+`"`) {
			t.Errorf("the script looks for id %q, which the page does not have", m[1])
		}
	}
}
