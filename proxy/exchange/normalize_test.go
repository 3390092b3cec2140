package exchange_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// normalizing allows /open/* to everybody, and has requests brought into the form
// of n.
func normalizing(t *testing.T, n http1.Normalization) func(*setup) {
	policy, err := authz.Compile(authz.Config{Rules: []authz.Rule{
		{Name: "open", Action: authz.Allow, From: []string{"*", "anonymous"}, Paths: []string{"/open/*"}},
		{Name: "fields", Action: authz.Deny, From: []string{"*", "anonymous"}, Headers: []authz.Header{{Name: "x_admin", Exact: "1"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return func(s *setup) { s.route.Authz, s.dir, s.http.Normalize = policy, telemetry.Inbound, &n }
}

// TestNormalized: rules judge the very path that the application gets and the
// access log has, whatever carries the request.
func TestNormalized(t *testing.T) {
	path := http1.Normalization{Path: true}
	for name, test := range map[string]struct {
		n      http1.Normalization
		target string
		field  string
		status int
		want   string // the target that the application gets, what the answer says, or where it leads
	}{
		"served in normal form":   {path, "/secret/../open/a?x=/../y", "", 200, "/open/a?x=/../y"},
		"escaped":                 {path, "/open/%61/%2E%2e/b", "", 200, "/open/b"},
		"normal already":          {path, "/open/a.b//c", "", 200, "/open/a.b//c"},
		"judged in normal form":   {path, "/open/../secret", "", 403, ""},
		"judged with backslashes": {path, `/open\..\secret`, "", 403, ""},
		"ambiguous all the same":  {path, "/open/..;/secret", "", 403, authz.AmbiguousPath},
		"NUL":                     {path, "/open/%00", "", 400, "the path has an escaped NUL"},
		"not configured":          {http1.Normalization{MergeSlashes: true}, "/secret/../open/a", "", 403, authz.AmbiguousPath},
		"merged":                  {http1.Normalization{MergeSlashes: true}, "//open///a", "", 200, "/open/a"},
		"kept":                    {path, "/open/a%2Fb", "", 403, authz.AmbiguousPath},
		"rejected":                {http1.Normalization{Slashes: http1.RejectSlashes}, "/open/a%2Fb", "", 400, "escaped slash"},
		"forwarded":               {http1.Normalization{Path: true, Slashes: http1.ForwardSlashes}, "/secret%2f..%5Copen/a", "", 200, "/open/a"},
		"forwarded, and judged":   {http1.Normalization{Path: true, Slashes: http1.ForwardSlashes}, "/open%2f..%2fsecret", "", 403, ""},
		"redirected":              {http1.Normalization{Path: true, Slashes: http1.RedirectSlashes}, "/open/a%2F../b?q", "", 307, "/open/b?q"},
		"redirected, and judged":  {http1.Normalization{Path: true, Slashes: http1.RedirectSlashes}, "/open%2F../b", "", 403, ""},
		"to no other host":        {http1.Normalization{Slashes: http1.RedirectSlashes}, "/%2Fopen/b", "", 307, "/.//open/b"},
		"field refused":           {http1.Normalization{Underscores: http1.RejectUnderscores}, "/open/a", "X_other", 400, "underscore"},
		"field dropped":           {http1.Normalization{Underscores: http1.DropUnderscores}, "/open/a", "x_admin", 200, "/open/a"},
		"field allowed":           {path, "/open/a", "x_admin", 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			echo := func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.RequestURI+r.Header.Get(test.field))
			}
			runLegs(t, allLegs, normalizing(t, test.n), echo, func(t *testing.T, p *pair) {
				for _, body := range []string{"", "some", strings.Repeat("long", 30_000)} {
					r, err := http.NewRequest(http.MethodPost, "http://"+p.ln.Addr().String(), strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					r.URL.Opaque = test.target
					if strings.HasPrefix(test.target, "//") {
						r.URL = &url.URL{Scheme: "http", Host: r.URL.Host, Path: test.target}
					}
					if test.field != "" {
						r.Header[test.field] = []string{"1"}
					}
					res, err := p.client.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					text, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if err != nil || res.StatusCode != test.status {
						t.Fatalf("%d, %v: %q", res.StatusCode, err, text)
					}
					switch got := string(text); {
					case test.status == 200 && got != test.want, test.status == 307 && res.Header.Get("Location") != test.want, test.status/100 == 4 && !strings.Contains(got, test.want):
						t.Errorf("%q, to %q; want %q", got, res.Header.Get("Location"), test.want)
					}
				}
				for _, r := range p.records() {
					if test.status == 200 && r.Path != test.want {
						t.Errorf("the access log has %q", r.Path)
					}
				}
				if n := p.heads.Load(); (test.status == 200) != (n == 3) {
					t.Errorf("the application got %d requests", n)
				}
			})
		})
	}
}

// TestNormalizedBetweenSidecars: a head that another sidecar passes on as it is.
func TestNormalizedBetweenSidecars(t *testing.T) {
	b := meshBed(t, normalizing(t, http1.Normalization{Path: true}))
	o := b.start(answering(okResponse))
	f := b.joined()
	f.block(1, true, "1GET /secret/%2e./open/a HTTP/1.1\r\nhost: a\r\n\r\n")
	if got := f.answer(1); got != "200" {
		t.Errorf("the stream got %s", got)
	}
	f.block(3, true, "1GET /open/../secret HTTP/1.1\r\nhost: a\r\n\r\n")
	if got := f.answer(3); got != "403" {
		t.Errorf("the stream got %s", got)
	}
	if n := o.heads.Load(); n != 1 {
		t.Errorf("the application got %d requests", n)
	}
	for _, r := range b.records() {
		if r.Path != "/open/a" && r.Path != "/secret" {
			t.Errorf("the access log has %q", r.Path)
		}
	}
}

// TestNormalizedPipeline: what stands before a path moves within the buffer, and
// the requests behind it are not touched.
func TestNormalizedPipeline(t *testing.T) {
	b := newBed(t, plain, normalizing(t, http1.Normalization{Path: true}))
	b.start(func(c *originConn) {
		for {
			head := c.head()
			if head == "" {
				return
			}
			if line, _, _ := strings.Cut(head, "\r\n"); line != "GET /open/b HTTP/1.1" {
				t.Errorf("the application got %q", line)
			}
			if !strings.Contains(head, "Host: other\r\n") {
				t.Errorf("the application got %q", head)
			}
			_, _ = io.WriteString(c, okResponse)
		}
	})
	c := b.dial()
	c.send(strings.Repeat("GET http://other/a/../open/x/../b HTTP/1.1\r\nHost: a\r\n\r\nGET /open/./b HTTP/1.1\r\nHost: other\r\n\r\n", 3))
	for range 6 {
		c.expect(okResponse)
	}
	b.wantReasons("ok", "ok", "ok", "ok", "ok", "ok")
}

// TestNoAllocationNormalized: to bring a request into form allocates nothing,
// whether it is already or has to be rewritten.
func TestNoAllocationNormalized(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for i, s := range steady {
		if s.name != "GET" && s.name != "not in normal form" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			got := mallocs(t, plain, i, func(b *bed) {
				l := *b.plan.Load()
				l.HTTP.Normalize = &http1.Normalization{Path: true, MergeSlashes: true, Slashes: http1.ForwardSlashes, Underscores: http1.DropUnderscores}
				b.plan.Store(&l)
			})
			if got > 0.05 {
				t.Errorf("%.3f allocations an exchange", got)
			}
		})
	}
}
