package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

const (
	storeFormat  = "outrigger-mesh-snapshot"
	storeVersion = 1
	storeSettle  = 500 * time.Millisecond // changes this close together are one write
	storeRefresh = 10 * time.Minute       // keeps the age in the file true, and is the pause after a failed write
	storeGrace   = 2 * time.Second        // Consul's time to answer before the file is used
)

// storeHeader is the first line of the file; the snapshot follows it.
type storeHeader struct {
	Format      string    `json:"format"`
	Version     int       `json:"version"`
	For         string    `json:"for,omitempty"`
	ProxyID     string    `json:"proxy_id,omitempty"`
	Node        string    `json:"node,omitempty"`
	Datacenter  string    `json:"datacenter"`
	TrustDomain string    `json:"trust_domain"`
	Saved       time.Time `json:"saved"`
	Bytes       int       `json:"bytes"`
	SHA256      string    `json:"sha256"`
}

// encodeStore returns the content of the file.
func encodeStore(s *Snapshot, me consul.Sidecar, saved time.Time) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	head, err := json.Marshal(storeHeader{
		Format: storeFormat, Version: storeVersion, For: me.For, ProxyID: me.ProxyID, Node: me.Node,
		Datacenter: s.Datacenter, TrustDomain: s.TrustDomain,
		Saved: saved.UTC().Truncate(time.Millisecond), Bytes: len(body), SHA256: hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return nil, err
	}
	return append(append(head, '\n'), body...), nil
}

// decodeStore checks and decodes the content of the file for a sidecar. An empty
// datacenter is one that is not known.
func decodeStore(data []byte, me consul.Sidecar, datacenter string) (*Snapshot, time.Time, error) {
	fail := func(format string, a ...any) (*Snapshot, time.Time, error) {
		return nil, time.Time{}, fmt.Errorf(format, a...)
	}
	line, body, ok := bytes.Cut(data, []byte{'\n'})
	var head storeHeader
	if err := json.Unmarshal(line, &head); !ok || err != nil || head.Format != storeFormat {
		return fail("it is not a snapshot of a sidecar")
	}
	if head.Version != storeVersion {
		return fail("it has format version %d and this program reads version %d", head.Version, storeVersion)
	}
	if head.Bytes != len(body) {
		return fail("it is cut short or damaged: %d bytes of content where %d were written", len(body), head.Bytes)
	}
	if sum := sha256.Sum256(body); head.SHA256 != hex.EncodeToString(sum[:]) {
		return fail("it is damaged: its checksum does not match its content")
	}
	if datacenter != "" && head.Datacenter != datacenter {
		return fail("it was taken in datacenter %q and this proxy is configured for %q", head.Datacenter, datacenter)
	}
	if head.For != me.For || head.ProxyID != me.ProxyID || head.Node != me.Node {
		return fail("it is of another sidecar: for %q, proxy_id %q, node %q", head.For, head.ProxyID, head.Node)
	}
	s := new(Snapshot)
	if err := json.Unmarshal(body, s); err != nil {
		return fail("its content cannot be decoded: %v", err)
	}
	if s.Datacenter != head.Datacenter || s.TrustDomain != head.TrustDomain || s.TrustDomain == "" || s.Proxy.OwnService() == "" {
		return fail("its content does not fit its first line")
	}
	s.Stale = true
	return s, head.Saved, nil
}

// load reads the file, once.
func (f *Follower) load() {
	if f.path == "" {
		return
	}
	data, err := discovery.ReadKept(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var s *Snapshot
	var saved time.Time
	if err == nil {
		s, saved, err = decodeStore(data, f.me, f.cfg.Datacenter)
	}
	if err != nil {
		f.log.Warn("the sidecar's snapshot is not used; starting without it", "path", f.path, "error", err.Error())
		return
	}
	f.mu.Lock()
	f.kept, f.saved = s, saved
	f.mu.Unlock()
}

// fill completes a live snapshot with the chains that were good when the file
// was written, where Consul has none to give now. f.mu is held.
func (f *Follower) fill(s *Snapshot) {
	k := f.kept
	if k == nil {
		return
	}
	if k.Datacenter != s.Datacenter || k.TrustDomain != s.TrustDomain {
		f.log.Warn("the sidecar's snapshot is not used: it was taken elsewhere", "path", f.path,
			"datacenter", k.Datacenter, "trust_domain", k.TrustDomain, "own_datacenter", s.Datacenter, "own_trust_domain", s.TrustDomain)
		f.kept = nil
		return
	}
	for name := range s.Failures {
		if c := k.Chains[name]; c != nil {
			s.Chains[name] = c
			delete(s.Failures, name)
		}
	}
}

// keep writes the file after changes, and now and then without any, until ctx ends.
func (f *Follower) keep(ctx context.Context) {
	if f.path == "" {
		return
	}
	refresh := time.NewTicker(storeRefresh)
	defer refresh.Stop()
	for {
		select {
		case <-ctx.Done():
			f.save()
			return
		case <-refresh.C:
		case <-f.unsaved:
			discovery.Sleep(ctx, storeSettle, nil)
		}
		f.save()
	}
}

// save writes what was handed over last, if Consul has said it.
func (f *Follower) save() {
	f.mu.Lock()
	s := f.last
	f.mu.Unlock()
	if s == nil || s.Stale {
		return
	}
	data, err := encodeStore(s, f.me, time.Now())
	if err == nil {
		err = discovery.WriteKept(f.path, data)
	}
	f.mu.Lock()
	before := f.unwritten
	f.unwritten = err != nil
	f.mu.Unlock()
	switch {
	case err != nil && !before:
		f.log.Warn("the sidecar's snapshot cannot be written; a restart without Consul would find the one before", "path", f.path, "error", err.Error())
	case err == nil && before:
		f.log.Info("the sidecar's snapshot is written again", "path", f.path)
	}
}
