package config

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

func mustParse(t *testing.T, text string) *Loaded {
	t.Helper()
	l, err := Parse("web.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const start = "service: {name: web, port: 8080}\nidentity: {workload_api: unix:///run/spire/agent.sock}\n"

const threeUpstreams = start + `discovery: {file: {path: catalog.yaml}}
outbound:
  upstreams:
    - {service: a, listen: "127.0.0.1:9001"}
    - {service: b, listen: "127.0.0.1:9002"}
    - {service: c, listen: "127.0.0.1:9003"}
`

// The policy "*" is where the others start, wherever in the file it stands.
func TestOriginsOfPolicies(t *testing.T) {
	l := mustParse(t, threeUpstreams+`policies:
  a:
    timeout: 3s
    outlier: off
  b: {retry: {on: [reset]}, breaker: {}}
  "*":
    timeout: 2s
    retry: {attempts: 4, on: [connect_failure, reset]}
    outlier: {window: 20s}
`)
	for _, c := range []struct{ path, value, origin string }{
		{"policies.*.timeout", "2s", "web.yaml:15:14"},
		{"policies.*.retry.attempts", "4", "web.yaml:16:23"},
		{"policies.*.retry.on", "[connect_failure, reset]", "web.yaml:16:26"},
		{"policies.*.breaker", "off", "default"},
		{"policies.a.timeout", "3s", "web.yaml:11:14"},
		{"policies.a.outlier", "off", "web.yaml:12:14"},
		{"policies.a.retry.attempts", "4", "web.yaml:16:23 (policies.*)"},
		{"policies.a.connect_timeout", "1s", "default"},
		{"policies.b.timeout", "2s", "web.yaml:15:14 (policies.*)"},
		{"policies.b.retry.on", "[reset]", "web.yaml:13:15"},
		{"policies.b.retry.attempts", "4", "web.yaml:16:23 (policies.*)"},
		{"policies.b.breaker.failure_percent", "50", "default"},
		{"policies.b.outlier.window", "20s", "web.yaml:17:23 (policies.*)"},
		{"policies.c.outlier.window", "20s", "web.yaml:17:23 (policies.*)"},
		{"inbound.protocol", "http", "from service.protocol"},
	} {
		found := false
		for _, s := range l.Effective() {
			if s.Path == c.path {
				found = true
				if s.Value != c.value || s.Origin != c.origin {
					t.Errorf("%s = %s, %s; want %s, %s", c.path, s.Value, s.Origin, c.value, c.origin)
				}
			}
		}
		if !found {
			t.Errorf("%s is missing", c.path)
		}
	}
	for _, s := range l.Effective() {
		if strings.HasPrefix(s.Path, "policies.a.outlier.") {
			t.Errorf("%s is shown although the section is off", s.Path)
		}
	}
	p := l.Config.Policy("a")
	if p.Outlier != nil || p.Retry.Attempts != 4 || p.Breaker != nil {
		t.Errorf("policy a: %+v", p)
	}
	if l.Config.Policies["b"].Outlier == l.Config.Policies["c"].Outlier {
		t.Error("two policies share one section")
	}
}

// What one upstream's policy sets must not leak into the one they start from.
func TestPoliciesShareNothing(t *testing.T) {
	c := mustParse(t, threeUpstreams+`policies:
  "*": {retry: {attempts: 3}, breaker: {}}
  a: {retry: {attempts: 5, on: [reset]}, breaker: {failure_percent: 10}}
`).Config
	if got := c.Policies["*"].Retry.Attempts; got != 3 {
		t.Errorf(`attempts of "*" = %d`, got)
	}
	if got := c.Policies["b"].Breaker.FailurePercent; got != 50 {
		t.Errorf("failure_percent of b = %v", got)
	}
	if got := len(c.Policies["c"].Retry.On); got != 4 {
		t.Errorf("c retries on %d conditions", got)
	}
	if got := c.Policy("unheard-of").Retry.Attempts; got != 3 {
		t.Errorf("attempts for another service = %d", got)
	}
	var none Config
	if p, d := none.Policy("x"), DefaultPolicy(); !reflect.DeepEqual(p, d) {
		t.Errorf("policy without any = %+v", p)
	}
}

// Printing what is in force and reading that again changes nothing.
func TestEffectiveIsAConfiguration(t *testing.T) {
	for _, path := range files(t, "testdata/good/*", 7) {
		l, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		checkRoundTrip(t, l)
	}
}

func checkRoundTrip(t *testing.T, l *Loaded) {
	t.Helper()
	text := l.write(true).String()
	again, err := Parse("again.yaml", []byte(text))
	if err != nil {
		// A service without a port may not write inbound.listen down.
		if l.Config.Service.Port == 0 {
			text = withoutLine(text, "  listen: ")
			again, err = Parse("again.yaml", []byte(text))
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", l.File, err, text)
		}
	}
	if got := again.write(true); withoutOrigins(got) != withoutOrigins(l.write(true)) {
		t.Errorf("%s: read again it is\n%s", l.File, got)
	}
}

func withoutOrigins(w *yamlWriter) string {
	var b strings.Builder
	for _, l := range w.lines {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

// withoutLine drops the first line that begins with prefix.
func withoutLine(text, prefix string) string {
	before, rest, ok := strings.Cut(text, "\n"+prefix)
	if !ok {
		return text
	}
	_, rest, _ = strings.Cut(rest, "\n")
	return before + "\n" + rest
}

func TestSecretsAreHidden(t *testing.T) {
	l := mustParse(t, start+"discovery: {consul: {token: 5e3a-secret}}\n")
	var yaml, js strings.Builder
	if err := l.WriteEffective(&yaml); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteEffectiveJSON(&js); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{yaml.String(), js.String()} {
		if strings.Contains(out, "5e3a-secret") || !strings.Contains(out, "(hidden)") {
			t.Errorf("token shown:\n%s", out)
		}
	}
}

func TestEffectiveJSON(t *testing.T) {
	l := mustParse(t, start)
	var b strings.Builder
	if err := l.WriteEffectiveJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got []Setting
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, l.Effective()) || len(got) < 50 {
		t.Errorf("%d settings", len(got))
	}
	if want := (Setting{"service.name", "web", "web.yaml:1:17"}); got[0] != want {
		t.Errorf("first setting %+v, want %+v", got[0], want)
	}
	for i := 0; i < 5; i++ {
		var again strings.Builder
		if err := mustParse(t, start).WriteEffectiveJSON(&again); err != nil || again.String() != b.String() {
			t.Fatal("the order changes from run to run")
		}
	}
}

func TestQuoteYAML(t *testing.T) {
	for in, want := range map[string]string{
		"web":                    "web",
		"":                       `""`,
		"*":                      `"*"`,
		"127.0.0.1:80":           `"127.0.0.1:80"`,
		"1.3":                    `"1.3"`,
		"true":                   `"true"`,
		"Null":                   `"Null"`,
		"off":                    "off",
		"unix:///run/a.sock":     "unix:///run/a.sock",
		"a: b":                   `"a: b"`,
		"a:":                     `"a:"`,
		"<a&b>":                  `"<a&b>"`,
		"line\nbreak":            `"line\nbreak"`,
		"/var/log/x.log":         "/var/log/x.log",
		"a #b":                   `"a #b"`,
		`say "x"`:                `"say \"x\""`,
		strings.Repeat("a", 201): `"` + strings.Repeat("a", 201) + `"`,
	} {
		if got := quoteYAML(in); got != want {
			t.Errorf("quoteYAML(%q) = %s, want %s", in, got, want)
		}
		n, problems := readNode("x", []byte("k: "+want+"\n"))
		if len(problems) > 0 || n.entries[0].value.kind != kindString && in != "" || n.entries[0].value.text != in {
			t.Errorf("%s is read as %+v, %v", want, n.entries[0].value, problems)
		}
	}
}

// The file is only read: what is in it stays as it was.
func TestParseKeepsItsInput(t *testing.T) {
	data, err := os.ReadFile("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before := string(data)
	if _, err := Parse("full.yaml", data); err != nil {
		t.Fatal(err)
	}
	if string(data) != before {
		t.Error("Parse changed its input")
	}
}
