package compile

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// Bounds of the secret in a key file, in bytes.
const (
	leastKey = 32
	mostKey  = 4096
)

// balance prepares what p's balancing goes by.
func (c *compiler) balance(p *upstream.Policy, service string) {
	p.Balance.Hash = slices.Clone(p.Balance.Hash)
	for i := range p.Balance.Hash {
		h := &p.Balance.Hash[i]
		h.Header = strings.ToLower(h.Header)
	}
	a := p.Balance.Affinity
	if a == nil || a.KeyFile == "" {
		return
	}
	key, err := readKey(a.KeyFile)
	if err != nil {
		c.problem("policies."+service+".balance.affinity.key_file", "%v", err)
		return
	}
	p.AffinityKey = key
}

// readKey reads a secret. White space around it does not count.
func readKey(path string) (*upstream.AffinityKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostKey+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(b) > mostKey {
		return nil, fmt.Errorf("names a file of more than %d bytes; a key is made by: openssl rand -hex 32", mostKey)
	}
	if b = bytes.TrimSpace(b); len(b) < leastKey {
		return nil, fmt.Errorf("names a file with %d bytes; a key has at least %d, made by: openssl rand -hex 32", len(b), leastKey)
	}
	key := upstream.AffinityKey(sha256.Sum256(b))
	return &key, nil
}
