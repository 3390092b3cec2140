package testkit

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { VerifyNoLeaks(m) }

func TestConsulKeepsDataOverRestart(t *testing.T) {
	c := Consul(t, ConsulOptions{ACL: true, Datacenter: "north"})
	c.Do(t, "PUT", "/v1/kv/key", "value")
	c.Restart(t)
	if got := string(c.Do(t, "GET", "/v1/kv/key?raw", nil)); got != `"value"` {
		t.Errorf("after Restart the key holds %s", got)
	}
	if got := string(c.Do(t, "GET", "/v1/catalog/datacenters", nil)); !strings.Contains(got, "north") {
		t.Errorf("datacenters: %s", got)
	}
	c.Stop(t)
	c.Wipe(t)
	c.Start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if status, body, err := c.call(ctx, "GET", "/v1/kv/key?raw", nil); err != nil || status != 404 {
		t.Errorf("after Wipe: status %d, body %s, error %v; want 404", status, body, err)
	}
}

func TestFindConsulTakesConsulBin(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "my-consul")
	t.Setenv("CONSUL_BIN", bin)
	if got, err := FindConsul(t.Context(), t.Logf); err == nil || !strings.Contains(err.Error(), "CONSUL_BIN") {
		t.Errorf("a missing CONSUL_BIN gave %q, %v", got, err)
	}
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := FindConsul(t.Context(), t.Logf); err != nil || got != bin {
		t.Errorf("FindConsul = %q, %v; want %q", got, err, bin)
	}
}

func TestLockFileExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockFile(ctx, path); err == nil {
		t.Error("a second lock was given out")
	}
	unlock()
	if unlock, err = lockFile(ctx, path); err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	unlock()
}
