package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk that is full keeps the snapshot from being written and nothing else:
// traffic goes on and changes are followed. When there is room again, it is
// written.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		missing(t, "mounting a small file system needs root")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close()
	m := newMesh(t)
	list := m.instances(2, echo, nil)
	m.catalog(addresses(list[:1]))
	snapshot := filepath.Join(disk, "snapshot.json")
	web, call := m.outbound("web", "api", sections{
		"discovery": strings.TrimSuffix(m.discovery(), "}") + fmt.Sprintf(`, snapshot: "%s"}`, snapshot),
	})
	web.ready()
	mustSee(t, "http://"+call+"/")
	eventually(t, patience, "the trouble is shown", func() (bool, string) {
		w := web.watch()
		return strings.Contains(w.LastError, "no space left"), fmt.Sprintf("%+v", w)
	})
	web.says("snapshot cannot be written", "no space left")
	m.catalog(addresses(list))
	eventually(t, patience, "changes are followed", func() (bool, string) {
		return web.endpoint(list[1].address).Address != "", ""
	})
	if _, err := os.Stat(snapshot); err == nil {
		t.Error("there is half a snapshot")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	m.catalog(addresses(list[1:]))
	eventually(t, patience, "the snapshot is written", func() (bool, string) {
		b, err := os.ReadFile(snapshot)
		return err == nil && strings.Contains(string(b), list[1].address), fmt.Sprint(err)
	})
	eventually(t, patience, "the trouble is over", func() (bool, string) {
		w := web.watch()
		return w.LastError == "", fmt.Sprintf("%+v", w)
	})
}
