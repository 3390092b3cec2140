package config

import (
	"fmt"
	"strings"
	"testing"
)

// large returns a configuration with n upstreams and a policy for each.
func large(n int) []byte {
	var b strings.Builder
	b.WriteString(start + "discovery: {file: {path: catalog.yaml}}\noutbound:\n  upstreams:\n")
	for i := range n {
		fmt.Fprintf(&b, "    - {service: s%d, listen: \"127.0.%d.%d:9001\"}\n", i, i/250, i%250+1)
	}
	b.WriteString("policies:\n  \"*\": {timeout: 2s, outlier: {window: 20s}, breaker: {}}\n")
	for i := range n {
		fmt.Fprintf(&b, "  s%d: {timeout: %dms, identities: [\"spiffe://example.org/s%d\"], retry: {on: [reset]}, outlier: off}\n", i, i+1, i)
	}
	return []byte(b.String())
}

func TestLarge(t *testing.T) {
	l, err := Parse("large.yaml", large(200))
	if err != nil {
		t.Fatal(err)
	}
	p := l.Config.Policy("s199")
	if len(l.Config.Policies) != 201 || p.Outlier != nil || len(p.Retry.On) != 1 || p.Breaker == nil {
		t.Errorf("%d policies, the last %+v", len(l.Config.Policies), p)
	}
}

// Every mistake of a file full of them is reported.
func TestManyMistakes(t *testing.T) {
	text := start + "policies:\n"
	for i := range 300 {
		text += fmt.Sprintf("  s%d: {tiemout: 1s}\n", i)
	}
	_, err := Parse("many.yaml", []byte(text))
	if got := strings.Count(fmt.Sprint(err), `did you mean "timeout"?`); got != 300 {
		t.Errorf("%d of 300 unknown keys reported", got)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		data := large(n)
		b.Run(fmt.Sprintf("upstreams=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := Parse("large.yaml", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
