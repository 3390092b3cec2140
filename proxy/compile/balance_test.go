package compile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sticky = `
service:   {name: web}
discovery: {file: {path: catalog.yaml}}
outbound:  {upstreams: [{service: api, listen: "127.0.0.1:9001"}]}
policies:
  api: {transport: plaintext, balance: {algorithm: maglev, hash: [{header: X-User-ID}], affinity: {name: srv, key_file: %q}}}
`

// TestAffinityKey: the key is read with the configuration, and one that cannot
// be used is a mistake at its place.
func TestAffinityKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := bytes.Repeat([]byte("k"), leastKey)
	keys := map[string]bool{}
	for _, path := range []string{
		write("plain", secret), write("line", append([]byte("\n "), append(secret, '\n')...)), write("other", bytes.Repeat([]byte("x"), mostKey)),
	} {
		p, r := build(t, input(t, fmt.Sprintf(sticky, path)))
		pol := p.Clusters[0].Policy()
		if pol.AffinityKey == nil {
			t.Fatalf("%s: no key", path)
		}
		keys[string(pol.AffinityKey[:])] = true
		if got := pol.Balance.Hash[0].Header; got != "x-user-id" {
			t.Errorf("the header is %q", got)
		}
		Release(p, r)
	}
	if len(keys) != 2 {
		t.Errorf("%d keys, want 2: white space does not count", len(keys))
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "is a directory",
		write("short", append(secret[1:], "\n\n\n"...)):     "31 bytes; a key has at least 32, made by: openssl rand -hex 32",
		write("long", bytes.Repeat([]byte("x"), mostKey+1)): "more than 4096 bytes",
	} {
		_, err := Compile(input(t, fmt.Sprintf(sticky, path)))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "test.yaml:6:") || !strings.Contains(err.Error(), "policies.api.balance.affinity.key_file") {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
