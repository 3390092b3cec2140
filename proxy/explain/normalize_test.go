package explain

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// TestNormalized: rules are asked about the path that the application would get.
func TestNormalized(t *testing.T) {
	l, err := config.Parse("web.yaml", []byte(`
service: {name: web, port: 8080}
inbound: {mtls: off, normalize: {path: true, escaped_slashes: redirect, underscores: reject}}
authorization: {rules: [{name: open, from: [anonymous], paths: [/open/*]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target, field string
		want          []string
	}{
		{"/secret/../open/a", "", []string{"would be forwarded", "GET /open/a", "rule       open"}},
		{"/open/../secret", "", []string{"denied, status 403"}},
		{"/open/%00", "", []string{"bad_request, status 400", "escaped NUL"}},
		{"/open/a", "X_A: 1", []string{"bad_request, status 400", "underscore"}},
		{"/open%2Fa?b", "", []string{"307", "redirected to /open/a?b"}},
	} {
		q := admin.Question{To: "web", Target: c.target}
		if c.field != "" {
			q.Fields = []string{c.field}
		}
		v, err := File(&q, l)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		_ = v.WriteText(&b)
		text := b.String()
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", c.target, want, text)
			}
		}
	}
}
