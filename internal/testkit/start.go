package testkit

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// Missing skips a test for want of what why says; in CI, which has all that tests
// can use, it fails instead.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Start starts cmd, so that it ends with this process even where that is killed.
// The channel is closed when cmd has ended and was waited for.
//
// The kernel takes the end of the thread that has started cmd for the end of
// this process. Threads end with what runs on them, such as calls from other
// network namespaces, so one is kept for cmd.
func Start(cmd *exec.Cmd) (exited chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	exited = make(chan struct{})
	started := make(chan error)
	go func() {
		defer close(exited)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return exited, <-started
}
