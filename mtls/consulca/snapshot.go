package consulca

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// snapshot is what is kept on disk.
type snapshot struct {
	Version     int      `json:"version"`
	Method      Method   `json:"method"`
	TrustDomain string   `json:"trust_domain"`
	ActiveRoot  string   `json:"active_root"` // PEM
	Roots       []string `json:"roots"`       // PEM
	Chain       string   `json:"chain"`       // PEM, leaf first
	Key         string   `json:"key"`         // PEM, PKCS #8
}

const (
	snapshotVersion = 1
	maxSnapshot     = 1 << 20
)

// save writes the file anew: whole or not at all, and for its owner alone.
func save(path string, l *leaf, r *roots) error {
	key, err := x509.MarshalPKCS8PrivateKey(l.cert.PrivateKey)
	if err != nil {
		return err
	}
	s := snapshot{Version: snapshotVersion, Method: l.from, TrustDomain: r.domain, Roots: r.pems, ActiveRoot: r.activePEM}
	s.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	for _, der := range l.cert.Certificate {
		s.Chain += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	// CreateTemp makes files with mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// restore reads the file; os.ErrNotExist when there is none.
func restore(path string) (*leaf, *roots, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return nil, nil, fmt.Errorf("%s has the mode %v and holds a private key; others must have no right to it (chmod 600)", path, mode)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSnapshot+1))
	if err != nil {
		return nil, nil, err
	}
	if len(b) > maxSnapshot {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes", path, maxSnapshot)
	}
	l, r, err := parseSnapshot(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, r, nil
}

func parseSnapshot(b []byte) (*leaf, *roots, error) {
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, nil, err
	}
	if s.Version != snapshotVersion {
		return nil, nil, fmt.Errorf("version %d; this program reads %d", s.Version, snapshotVersion)
	}
	if len(s.Roots) > maxRoots {
		return nil, nil, errTooMany
	}
	list := make([]rootMessage, len(s.Roots))
	for i, text := range s.Roots {
		list[i] = rootMessage{id: text, cert: text}
	}
	r, err := newRoots(s.TrustDomain, s.ActiveRoot, list)
	if err != nil {
		return nil, nil, err
	}
	key, err := parseKey([]byte(s.Key))
	if err != nil {
		return nil, nil, err
	}
	l, err := newLeaf([]byte(s.Chain), key, s.Method)
	return l, r, err
}
