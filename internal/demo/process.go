package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxLine   = 64 << 10 // a longer line of a child is dropped
	keptLines = 20       // of its standard error, for the report of a failure
	stopGrace = 3 * time.Second
)

// starter starts processes from one thread that lives until the demo ends. The
// kernel kills a child with PR_SET_PDEATHSIG when the thread that started it
// ends (prctl(2)), so it must be one that does not end before.
type starter struct {
	jobs chan func()
}

func newStarter() *starter { return &starter{jobs: make(chan func())} }

// run serves start until ctx ends; the children should have ended by then.
func (s *starter) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-s.jobs:
			job()
		}
	}
}

// child is a process of the demo.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	errors *lines // the last of its standard error
	exited chan struct{}

	mu      sync.Mutex
	stopped bool // its end is wanted
}

// spec says what to start.
type spec struct {
	name   string
	path   string
	args   []string
	stdout func(line []byte) // may be nil
	stderr func(line []byte) // may be nil
}

// start starts a process in a group of its own, so that a Ctrl-C in the
// terminal reaches the demo alone. The child is killed when the demo dies.
func (s *starter) start(sp spec) (*child, error) {
	c := &child{name: sp.name, cmd: exec.Command(sp.path, sp.args...), errors: &lines{}, exited: make(chan struct{})}
	out, errs := newLineWriter(sp.stdout), newLineWriter(func(line []byte) {
		c.errors.add(line)
		if sp.stderr != nil {
			sp.stderr(line)
		}
	})
	c.cmd.Stdout, c.cmd.Stderr = out, errs
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.cmd.WaitDelay = stopGrace
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.stdin = stdin
	started := make(chan error, 1)
	s.jobs <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", sp.name, err)
	}
	go func() {
		defer close(c.exited)
		_ = c.cmd.Wait() // its result is in ProcessState
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// say writes a word to the child's standard input.
func (c *child) say(word string) error {
	_, err := io.WriteString(c.stdin, word+"\n")
	return err
}

// signal sends sig to the child's group. A child that has gone is no error.
func (c *child) signal(sig syscall.Signal) {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	select {
	case <-c.exited: // the number may be another's by now
	default:
		_ = syscall.Kill(-c.pid(), sig)
	}
}

// kill ends the child at once and waits for it.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.exited
}

// failed reports whether the child has ended though nobody asked it to.
func (c *child) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.exited:
		return !c.stopped
	default:
		return false
	}
}

// failure describes an end that nobody asked for.
func (c *child) failure() error {
	said := c.errors.text()
	if said != "" {
		said = "; it said last:\n" + said
	}
	return fmt.Errorf("%s ended by itself (%v)%s", c.name, c.cmd.ProcessState, said)
}

// portTaken reports whether the child complained that a port is in use.
func (c *child) portTaken() bool {
	return strings.Contains(c.errors.text(), syscall.EADDRINUSE.Error())
}

// stopAll ends children: first asked, then after stopGrace forced.
func stopAll(children []*child) {
	for _, c := range children {
		c.signal(syscall.SIGTERM)
		_ = c.stdin.Close()
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	over := false
	for _, c := range children {
		if !over {
			select {
			case <-c.exited:
				continue
			case <-grace.C:
				over = true
			}
		}
		c.kill()
	}
}

// lines keeps the last lines that it is given.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (l *lines) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == keptLines {
		l.list = append(l.list[:0], l.list[1:]...)
	}
	l.list = append(l.list, string(line))
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.list, "\n")
}

// lineWriter cuts what is written to it into lines.
type lineWriter struct {
	each    func(line []byte)
	partial []byte
	skip    bool // within a line that is too long
}

func newLineWriter(each func([]byte)) *lineWriter { return &lineWriter{each: each} }

// Write implements io.Writer; it never fails, so that the child is never blocked.
func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		switch {
		case w.skip:
		case len(w.partial)+len(line) > maxLine:
			w.skip, w.partial = true, w.partial[:0]
		case !whole:
			w.partial = append(w.partial, line...)
		case len(w.partial) > 0:
			w.emit(append(w.partial, line...))
			w.partial = w.partial[:0]
		default:
			w.emit(line)
		}
		if whole {
			w.skip = false
		}
		b = rest
	}
	return n, nil
}

func (w *lineWriter) emit(line []byte) {
	if w.each != nil && len(line) > 0 {
		w.each(line)
	}
}

// tempDir makes the demo's directory, which only this user may enter. A
// socket's path is short (unix(7)), so a long TMPDIR is passed over.
func tempDir() (string, error) {
	const room = 107 - len("/outrigger-demo-0123456789/agent.sock")
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		if len(parent) <= room {
			return os.MkdirTemp(parent, "outrigger-demo-")
		}
	}
	return "", errors.New("no temporary directory with a path short enough for a socket; set TMPDIR")
}
