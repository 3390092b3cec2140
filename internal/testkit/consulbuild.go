package testkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// ConsulVersion is the version that FindConsul builds when none is installed.
const ConsulVersion = "v1.22.3"

const consulModule = "github.com/hashicorp/consul"

// FindConsul returns the path of a Consul program: CONSUL_BIN if that is set,
// consul on the PATH, or one built with the Go toolchain, once for this
// machine, in the user's cache directory. Building takes some minutes and
// needs the Go module proxy; logf says so. Consul is never linked into
// anything here: it is an external program.
func FindConsul(ctx context.Context, logf func(format string, a ...any)) (string, error) {
	if bin := os.Getenv("CONSUL_BIN"); bin != "" {
		if _, err := exec.LookPath(bin); err != nil {
			return "", fmt.Errorf("CONSUL_BIN: %w", err)
		}
		return bin, nil
	}
	if bin, err := exec.LookPath("consul"); err == nil {
		return bin, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "outrigger", "consul-"+ConsulVersion)
	bin := filepath.Join(dir, "consul")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	logf("building Consul %s in %s; this happens once and takes some minutes", ConsulVersion, dir)
	if err := buildConsul(ctx, dir, bin); err != nil {
		return "", fmt.Errorf("building Consul %s: %w; install consul, set CONSUL_BIN, or run the tests with -short", ConsulVersion, err)
	}
	return bin, nil
}

// buildConsul builds the program as a tool of a scratch module and moves it
// into place when it is complete.
func buildConsul(ctx context.Context, dir, bin string) error {
	scratch, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	for _, args := range [][]string{
		{"mod", "init", "outrigger.invalid/consultool"},
		{"get", "-tool", consulModule + "@" + ConsulVersion},
		{"build", "-ldflags=-s -w", "-o", "consul", consulModule},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = scratch
		// The flags and workspace of the tests around are not meant for it.
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", args[0], err, tail(out, 2000))
		}
	}
	return os.Rename(filepath.Join(scratch, "consul"), bin)
}

// lockFile holds an exclusive lock on a file, so that packages which are
// tested at the same time build Consul once. It waits until ctx ends.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if !pause(ctx) {
			f.Close()
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, ctx.Err())
		}
	}
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}
