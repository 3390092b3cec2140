package config

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/fault"
)

func faulty(t testing.TB) *Config {
	t.Helper()
	data, err := os.ReadFile("testdata/good/faults.yaml")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Parse("web.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	return l.Config
}

// One fault is read and checked as those in the file are.
func TestParseFault(t *testing.T) {
	c := faulty(t)
	f, err := c.ParseFault([]byte(`{"to": "payments", "match": {"headers": [{"name": "x-test", "present": true}]}, "inject": {"abort": 503, "percent": 5}, "for": "30s"}`))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "" || f.To != "payments" || f.Inject.Abort != 503 || f.Inject.Percent != 5 || f.For != 30*time.Second || f.Stop != fault.DefaultStop() || !f.OnlyHTTP() {
		t.Errorf("%+v", f)
	}
	if f, err = c.ParseFault([]byte("inbound: true\nname: x\ninject: {reset: true}\n")); err != nil || f.For != fault.DefaultFor || f.OnlyHTTP() {
		t.Errorf("%+v, %v", f, err)
	}
	for text, want := range map[string]string{
		``:                                       "is empty",
		`{`:                                      "",
		`[]`:                                     "must be a section",
		`{"inject": {"delay": "1s"}}`:            "to: is required",
		`{"to": "payments"}`:                     "inject: does nothing",
		`{"to": "db", "inject": {"abort": 500}}`: "takes an answer",
		`{"to": "payments", "inject": {"abort": 5}, "for": "25h"}`:                                "from 400 to 599|from 1s to 24h",
		`{"to": "payments", "inject": {"delay": "1s"}, "stop": {"window": "1ms"}}`:                "from 1s to 10m",
		`{"to": "payments", "inject": {"delay": "1s"}, "match": {"path": "x"}}`:                   "begins with a slash",
		`{"to": "payments", "inject": {"delay": "1s"}, "match": {"headers": [{"name": "x"}]}}`:    "headers",
		`{"to": "payments", "name": "a b", "inject": {"delay": "1s"}}`:                            "use letters",
		`{"to": "payments", "inject": {"delay": "1s"}, "route": "nowhere"}`:                       "not the name of a route",
		`{"inbound": true, "inject": {"delay": "1s"}, "from": ["web", "web*", "spiffe://a/ok*"]}`: "from[0]|from[1]",
		`{"to": "payments", "inject": {"delay": "1s"}, "unknown": 1}`:                             "not a key",
	} {
		_, err := c.ParseFault([]byte(text))
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for w := range strings.SplitSeq(want, "|") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q", text, err, w)
			}
		}
		if n := len(strings.Split(want, "|")); len(problems) != n {
			t.Errorf("%s: %d problems, want %d: %v", text, len(problems), n, err)
		}
	}
}

// Two faults say the same exactly when their summaries do.
func TestFaultSummary(t *testing.T) {
	texts := []string{
		`{to: payments, name: a, inject: {delay: 1s}}`,
		`{to: payments, name: a, inject: {delay: 2s}}`,
		`{to: payments, name: a, inject: {delay: 1s}, match: {grpc: {service: shop.Cart}}}`,
		`{to: payments, name: a, inject: {delay: 1s}, match: {grpc: {service: shop.Cart, method: Add}}}`,
		`{to: payments, name: a, inject: {delay: 1s}, match: {headers: [{name: x, exact: a}]}}`,
		`{to: payments, name: a, inject: {delay: 1s}, stop: {panic: false}}`,
	}
	c, seen := faulty(t), map[string]string{}
	for range 2 {
		for _, text := range texts {
			f, err := c.ParseFault([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			s := f.Summary()
			if other, ok := seen[s]; ok && other != text {
				t.Errorf("%s and %s are one", text, other)
			}
			seen[s] = text
		}
	}
	if len(seen) != len(texts) {
		t.Errorf("%d summaries of %d faults", len(seen), len(texts))
	}
}

// FuzzParseFault: whatever is ordered, it is read or refused with what is wrong.
func FuzzParseFault(f *testing.F) {
	for _, s := range []string{`{"to":"payments","inject":{"delay":"1s"}}`, "inbound: true\ninject: {reset: true}", "{", "", "a: &a\n  <<: *a\n", "[]", `{"inject":{"percent":1e309}}`} {
		f.Add([]byte(s))
	}
	c := faulty(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := c.ParseFault(data)
		var problems Problems
		switch {
		case err == nil:
			got.Inject.Validate(func(field, problem string) { t.Errorf("%s %s", field, problem) })
			got.Stop.Validate(func(field, problem string) { t.Errorf("%s %s", field, problem) })
		case !errors.As(err, &problems) || len(problems) == 0:
			t.Errorf("%v", err)
		}
	})
}
