package admin

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

func TestLogLevel(t *testing.T) {
	var level slog.LevelVar
	var log bytes.Buffer
	s := sample(func(o *Options) {
		o.LogLevel, o.Logger = &level, slog.New(slog.NewTextHandler(&log, nil))
	})
	if w := ask(s, "GET", "/log-level", ""); w.Code != http.StatusOK || w.Body.String() != "info\n" {
		t.Errorf("at first: status %d, %q", w.Code, w.Body)
	}
	for _, c := range []struct {
		name, method, target, body string
		status                     int
		want                       slog.Level
	}{
		{"in the body", "PUT", "/log-level", "debug", 200, slog.LevelDebug},
		{"with a line end, in capitals", "PUT", "/log-level", " WARN\n", 200, slog.LevelWarn},
		{"in the query", "PUT", "/log-level?level=error", "debug", 200, slog.LevelError},
		{"unknown", "PUT", "/log-level", "loud", 400, slog.LevelError},
		{"none", "PUT", "/log-level", "", 400, slog.LevelError},
		{"an offset", "PUT", "/log-level", "info+2", 400, slog.LevelError},
		{"as long as may be", "PUT", "/log-level", strings.Repeat(" ", maxBodyBytes-4) + "info", 200, slog.LevelInfo},
		{"too long", "PUT", "/log-level", strings.Repeat(" ", maxBodyBytes) + "debug", 413, slog.LevelInfo},
		{"POST", "POST", "/log-level?level=debug", "debug", 405, slog.LevelInfo},
		{"DELETE", "DELETE", "/log-level?level=debug", "", 405, slog.LevelInfo},
		{"GET changes nothing", "GET", "/log-level?level=debug", "", 200, slog.LevelInfo},
	} {
		w := ask(s, c.method, c.target, c.body)
		if w.Code != c.status || level.Level() != c.want {
			t.Errorf("%s: status %d and level %v, want %d and %v", c.name, w.Code, level.Level(), c.status, c.want)
		}
		if allow := w.Header().Get("Allow"); c.status == 405 && allow != "GET, HEAD, PUT" {
			t.Errorf("%s: Allow %q", c.name, allow)
		}
		if want := strings.ToLower(c.want.String()) + "\n"; c.status == 200 && w.Body.String() != want {
			t.Errorf("%s: answer %q, want %q", c.name, w.Body, want)
		}
	}
	if !strings.Contains(log.String(), "from=INFO to=DEBUG by=127.0.0.1:40000") {
		t.Errorf("the change is not in the log:\n%s", &log)
	}
}

// A page of another site cannot change the level, whether callers from other
// machines are let in or not. Programs send neither field and may.
func TestCrossOrigin(t *testing.T) {
	for _, remote := range []bool{false, true} {
		var level slog.LevelVar
		s := sample(func(o *Options) { o.LogLevel, o.AllowRemote = &level, remote })
		for _, c := range []struct {
			name   string
			fields []string
			status int
		}{
			{"cross-site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
			{"same-site", []string{"Sec-Fetch-Site", "same-site"}, 403},
			{"another Origin", []string{"Origin", "https://example.test"}, 403},
			{"another port", []string{"Origin", "http://127.0.0.1:9901"}, 403},
			{"Origin null", []string{"Origin", "null"}, 403},
			{"the dashboard", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:9900"}, 200},
			{"an older browser on the dashboard", []string{"Origin", "http://127.0.0.1:9900"}, 200},
			{"a program", nil, 200},
		} {
			level.Set(slog.LevelInfo)
			w := ask(s, "PUT", "/log-level", "debug", c.fields...)
			if changed := level.Level() == slog.LevelDebug; w.Code != c.status || changed != (c.status == 200) {
				t.Errorf("AllowRemote %v, %s: status %d, changed %v; want %d", remote, c.name, w.Code, changed, c.status)
			}
		}
	}
}

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		host, peer string
		local      bool // let in without AllowRemote
	}{
		{"127.0.0.1:9900", "127.0.0.1:40000", true},
		{"127.0.0.1", "127.0.0.1:40000", true},
		{"127.8.9.10:9900", "127.0.0.1:40000", true},
		{"localhost:9900", "127.0.0.1:40000", true},
		{"LocalHost.", "127.0.0.1:40000", true},
		{"[::1]:9900", "[::1]:40000", true},
		{"[::1]", "[::1]:40000", true},
		{"[::ffff:127.0.0.1]:9900", "[::ffff:127.0.0.1]:40000", true},
		{"localhost", "@", true}, // over a Unix socket

		// DNS rebinding: a name of the attacker's that leads to this machine.
		{"evil.test:9900", "127.0.0.1:40000", false},
		{"localhost.evil.test", "127.0.0.1:40000", false},
		{"127.0.0.1.evil.test:9900", "127.0.0.1:40000", false},
		{"evil.test", "@", false},
		{"10.1.4.9:9900", "127.0.0.1:40000", false},
		{"0.0.0.0:9900", "127.0.0.1:40000", false},
		{"[::]:9900", "[::1]:40000", false},
		{"[fe80::1]:9900", "127.0.0.1:40000", false},
		{"", "127.0.0.1:40000", false},

		// Callers on other machines, whatever Host they say.
		{"10.1.4.9:9900", "10.1.2.9:40000", false},
		{"localhost:9900", "10.1.2.9:40000", false},
		{"localhost:9900", "[2001:db8::1]:40000", false},
		{"localhost:9900", "[::ffff:10.1.2.9]:40000", false},
	} {
		for _, path := range []string{"/ready", "/plaintext", "/config", "/dashboard.js", "/nothing"} {
			want := http.StatusForbidden
			if c.local {
				want = http.StatusOK
				if path == "/nothing" {
					want = http.StatusNotFound
				}
			}
			w := ask(sample(nil), "GET", path, "", "Host", c.host, "RemoteAddr", c.peer)
			if w.Code != want {
				t.Errorf("%s with Host %q from %s: status %d, want %d", path, c.host, c.peer, w.Code, want)
			}
			if !c.local && strings.Contains(w.Body.String(), "spiffe:") {
				t.Errorf("%s with Host %q from %s: the refusal has data", path, c.host, c.peer)
			}
		}
		s := sample(func(o *Options) { o.AllowRemote = true })
		if w := ask(s, "GET", "/ready", "", "Host", c.host, "RemoteAddr", c.peer); w.Code != http.StatusOK {
			t.Errorf("AllowRemote, Host %q from %s: status %d, want 200", c.host, c.peer, w.Code)
		}
	}
}

// What keeps browsers from using answers in other ways is on all of them,
// refusals included.
func TestSecurityFields(t *testing.T) {
	for _, host := range []string{"localhost", "evil.test"} {
		h := ask(sample(nil), "GET", "/", "", "Host", host, "Accept", "text/html").Header()
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("Host %s: %s is %q, want %q", host, name, got, want)
			}
		}
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self';", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("Host %s: the policy %q lacks %q", host, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("Host %s: the policy is open: %q", host, policy)
		}
	}
}

func TestPprof(t *testing.T) {
	paths := []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/goroutine?debug=1"}
	for _, on := range []bool{false, true} {
		s := sample(func(o *Options) { o.Pprof = on })
		for _, path := range paths {
			want := http.StatusNotFound
			if on {
				want = http.StatusOK
			}
			if w := ask(s, "GET", path, ""); w.Code != want {
				t.Errorf("pprof %v, %s: status %d, want %d", on, path, w.Code, want)
			}
		}
	}
	s := sample(func(o *Options) { o.Pprof = true })
	if w := ask(s, "GET", paths[0], "", "Host", "evil.test"); w.Code != http.StatusForbidden {
		t.Errorf("pprof for a foreign Host: status %d, want 403", w.Code)
	}
}
