package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// code is the exit code that an error asks for.
func code(err error) int {
	var c *exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &c):
		return c.code
	}
	return 1
}

// The exit code is for CI: 0 clean, 2 with findings, 1 when nothing can be said.
func TestLintExitCodes(t *testing.T) {
	catalog := writeConfig(t, "catalog.yaml", "services:\n  api:\n    endpoints: [{address: \"10.0.0.1:1\"}, {address: \"10.0.0.2:1\"}]\n  web: {endpoints: []}\n")
	const text = "service: {name: web}\ndiscovery: {file: {path: \"CATALOG\"}}\npolicies: {\"*\": {transport: plaintext}, api: POLICY}\noutbound: {upstreams: [{service: api, listen: \"127.0.0.1:1\"}]}\n"
	web := func(policy, catalog string) string {
		return writeConfig(t, "web.yaml", strings.NewReplacer("POLICY", policy, "CATALOG", catalog).Replace(text))
	}
	clean := web("{timeout: 1s}", catalog)
	keeps := web("{outlier: {keep_endpoints: 2}}", catalog)
	empties := web("{outlier: {max_ejected_percent: 100, keep_endpoints: 0}, balance: {panic_percent: 0}}", catalog)
	for _, c := range []struct {
		name string
		args []string
		code int
		out  string
	}{
		{"clean", []string{clean, "--catalogs", "--replicas", "api=9"}, 0, ""},
		{"a note", []string{keeps, "--catalogs"}, 0, "note: web never ejects an endpoint of api"},
		{"a note is enough", []string{keeps, "--catalogs", "--fail-on", "note"}, 2, "note: "},
		{"an error", []string{empties, "--catalogs", "--fail-on", "error"}, 2, "ejection-empties-pool"},
		{"nothing is known", []string{empties}, 0, ""},
		{"told", []string{empties, "--replicas", "api=3"}, 2, "all 3 endpoints"},
		{"told otherwise", []string{empties, "--catalogs", "--replicas", "api=5"}, 2, "all 5 endpoints"},
		{"as JSON", []string{empties, "--replicas", "api=3", "--json"}, 2, `"rule": "ejection-empties-pool"`},
		{"nothing as JSON", []string{clean, "--json"}, 0, "[]\n"},
		{"not valid", []string{writeConfig(t, "bad.yaml", "service: {}\n")}, 1, ""},
		{"no catalog", []string{web("{}", filepath.Join(t.TempDir(), "none.yaml")), "--catalogs", "--wait", "50ms"}, 1, ""},
		{"no number", []string{clean, "--replicas", "api"}, 1, ""},
		{"no severity", []string{clean, "--fail-on", "all"}, 1, ""},
	} {
		out, err := execute(t, newLintCommand(), c.args...)
		if code(err) != c.code || !strings.Contains(out, c.out) || c.out == "" && out != "" {
			t.Errorf("%s: %d %v\n%s", c.name, code(err), err, out)
		}
	}
}
