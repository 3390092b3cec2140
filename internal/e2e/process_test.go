package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// process is a program that a test has started. It ends with the test.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	out    lockedBuffer
	exited chan struct{} // closed when it has ended and was waited for
}

// lockedBuffer takes what a process writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// spawn starts cmd with its output kept, which is shown when the test fails.
func spawn(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	var err error
	if p.exited, err = testkit.Start(cmd); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("the end of what %s wrote:\n%s", name, tail(p.out.String(), 6000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}

// signal sends a signal to the process itself.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// kill ends the process at once.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// code waits for the end of the process and returns its exit code, or -1 when
// a signal ended it.
func (p *process) code(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(within):
		p.t.Fatalf("%s has not ended within %v", p.name, within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// running reports whether the process is alive.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// patience is how long something may take that should take no time at all on
// a machine with nothing else to do.
const patience = testkit.Patience

// eventually waits until what is true. The text that check returns tells how
// things stand, for the failure.
func eventually(t *testing.T, within time.Duration, what string, check func() (bool, string)) {
	t.Helper()
	testkit.EventuallyWithin(t, within, what, check)
}
