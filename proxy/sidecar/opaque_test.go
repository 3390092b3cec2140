package sidecar

import (
	"testing"
)

// Nomad registers a block of a job's proxy { config { } } as a list of one map.
func TestOpaqueOfAJob(t *testing.T) {
	block := func(m map[string]any) []any { return []any{m} }
	tr := &translation{}
	o := tr.opaque("registration web", "Proxy.Config", map[string]any{
		"outrigger": block(map[string]any{"authorization": map[string]any{"rules": []any{map[string]any{"name": "one"}}}}),
		"limits":    block(map[string]any{"max_connections": 3.0}),
		"two":       []any{map[string]any{}, map[string]any{}},
	})
	if got, want := string(o.layer()), `{"authorization":{"rules":[{"name":"one"}]}}`; got != want {
		t.Errorf("our own language: %s, want %s", got, want)
	}
	limits := o.section("limits")
	if limits == nil {
		t.Fatal("a block is not taken for a map")
	}
	if n, ok := limits.number("max_connections"); !ok || n != 3 {
		t.Errorf("max_connections: %d, %t", n, ok)
	}
	if len(tr.findings) != 0 {
		t.Errorf("findings: %+v", tr.findings)
	}
	if o.section("two") != nil || len(tr.findings) != 1 {
		t.Errorf("two blocks: findings %+v", tr.findings)
	}
}
