package discovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	snapshotFormat  = "outrigger-discovery-snapshot"
	snapshotVersion = 1
	// maxSnapshot bounds what is read at start: about 300,000 endpoints.
	maxSnapshot = 64 << 20
)

// snapshotHeader is the first line of a snapshot file; the body follows it.
type snapshotHeader struct {
	Format     string    `json:"format"`
	Version    int       `json:"version"`
	Datacenter string    `json:"datacenter"`
	Saved      time.Time `json:"saved"`
	Bytes      int       `json:"bytes"`
	SHA256     string    `json:"sha256"`
}

// encodeSnapshot returns the content of a snapshot file: the header and the
// services, each as one line of JSON.
func encodeSnapshot(services []*Service, datacenter string, saved time.Time) ([]byte, error) {
	body, err := json.Marshal(services)
	if err != nil {
		return nil, err
	}
	body = append(body, '\n')
	sum := sha256.Sum256(body)
	head, err := json.Marshal(snapshotHeader{
		Format: snapshotFormat, Version: snapshotVersion, Datacenter: datacenter,
		Saved: saved.UTC().Truncate(time.Millisecond), Bytes: len(body), SHA256: hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return nil, err
	}
	return append(append(head, '\n'), body...), nil
}

// decodeSnapshot checks and decodes the content of a snapshot file. The
// services are all marked Stale.
func decodeSnapshot(data []byte, datacenter string) ([]*Service, time.Time, error) {
	fail := func(format string, a ...any) ([]*Service, time.Time, error) {
		return nil, time.Time{}, fmt.Errorf(format, a...)
	}
	line, body, ok := bytes.Cut(data, []byte{'\n'})
	var head snapshotHeader
	if err := json.Unmarshal(line, &head); !ok || err != nil || head.Format != snapshotFormat {
		return fail("it is not a discovery snapshot")
	}
	if head.Version != snapshotVersion {
		return fail("it has format version %d and this program reads version %d", head.Version, snapshotVersion)
	}
	if head.Bytes != len(body) {
		return fail("it is cut short or damaged: %d bytes of content where %d were written", len(body), head.Bytes)
	}
	if sum := sha256.Sum256(body); head.SHA256 != hex.EncodeToString(sum[:]) {
		return fail("it is damaged: its checksum does not match its content")
	}
	if head.Datacenter != datacenter {
		return fail("it was taken in datacenter %q and this proxy is configured for %q", head.Datacenter, datacenter)
	}
	var services []*Service
	if err := json.Unmarshal(body, &services); err != nil {
		return fail("its content cannot be decoded: %v", err)
	}
	seen := map[string]bool{}
	for i, s := range services {
		if s == nil || s.Name == "" || seen[s.Name] {
			return fail("its service number %d has no name or repeats one", i+1)
		}
		seen[s.Name] = true
		for _, e := range s.Endpoints {
			if !e.Address.IsValid() || e.Address.Port() == 0 || e.Weight < 1 || e.Weight > MaxWeight {
				return fail("service %q has an endpoint with a bad address or weight: %v weight %d", s.Name, e.Address, e.Weight)
			}
		}
		s.Endpoints = SortEndpoints(s.Endpoints)
		s.Stale = true
	}
	return services, head.Saved, nil
}

// ReadKept reads a file that WriteKept wrote, whole. A file that someone else could have
// written is refused, because its content decides where traffic goes. The
// error is fs.ErrNotExist when there is none.
func ReadKept(path string) ([]byte, error) {
	// Non-blocking, so that a FIFO in its place cannot hold up the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("others may write to it (mode %04o); make it 0600", info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("it belongs to user %d and this proxy runs as %d", st.Uid, os.Geteuid())
	}
	if info.Size() > maxSnapshot {
		return nil, fmt.Errorf("it has %d bytes; the limit is %d", info.Size(), maxSnapshot)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSnapshot+1))
	if err == nil && len(data) > maxSnapshot {
		err = fmt.Errorf("it has more than %d bytes", maxSnapshot)
	}
	return data, err
}

// WriteKept replaces a file in one step, with mode 0600: whoever reads it, also
// after a loss of power, finds the old content or the new one, never a part.
func WriteKept(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp := path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // The folder may be written to but not read; the rename stands.
	}
	defer d.Close()
	_ = d.Sync() // Not every file system can; the rename stands.
	return nil
}
