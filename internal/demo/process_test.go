package demo

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
)

// withStarter runs f with a starter that ends with it.
func withStarter(t *testing.T, f func(s *starter)) {
	t.Helper()
	s := newStarter()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	f(s)
}

func TestChild(t *testing.T) {
	withStarter(t, func(s *starter) {
		got := make(chan string, 1)
		c, err := s.start(spec{
			name: "cat", path: "/bin/sh", args: []string{"-c", "cat; echo over >&2"},
			stdout: func(line []byte) { got <- string(line) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.say("hello"); err != nil {
			t.Fatal(err)
		}
		if line := <-got; line != "hello" {
			t.Errorf("%q", line)
		}
		if c.failed() {
			t.Error("failed while it runs")
		}
		// The end of its input ends it, which nobody asked for by a signal.
		c.stdin.Close()
		<-c.exited
		if !c.failed() || !strings.Contains(c.failure().Error(), "cat ended by itself (exit status 0); it said last:\nover") {
			t.Errorf("failed %v: %v", c.failed(), c.failure())
		}
	})
}

func TestStopAll(t *testing.T) {
	withStarter(t, func(s *starter) {
		var all []*child
		ready := make(chan struct{}, 2)
		for _, script := range []string{"echo; exec sleep 60", "trap '' TERM; echo; sleep 60"} {
			c, err := s.start(spec{
				name: "sleep", path: "/bin/sh", args: []string{"-c", "exec 2>&1; echo up >&2; " + script + " & wait"},
				stdout: func(line []byte) { ready <- struct{}{} },
			})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		<-ready
		<-ready
		stopAll(all)
		for i, want := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			c := all[i]
			if c.failed() {
				t.Errorf("%v", c.failure())
			}
			if got := c.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != want {
				t.Errorf("%d ended by %v, want %v", i, got, want)
			}
		}
		all[0].signal(syscall.SIGTERM) // of one that has gone: nothing
	})
}

func TestStartFails(t *testing.T) {
	withStarter(t, func(s *starter) {
		if _, err := s.start(spec{name: "the sidecar", path: "/no/such/program"}); err == nil || !strings.Contains(err.Error(), "the sidecar: ") {
			t.Errorf("%v", err)
		}
	})
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := newLineWriter(func(line []byte) { got = append(got, string(line)) })
	long := strings.Repeat("x", maxLine)
	for _, part := range []string{"a", "b\nc\n\nd", "", "\n", long, "y\n", "e\n", long + "\nf", "g\n", long + "z", "more", "end\nlast\n"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	for i := range got {
		if got[i] == long {
			got[i] = "long"
		}
	}
	if s := strings.Join(got, ","); s != "ab,c,d,e,long,fg,last" {
		t.Errorf("%s", s)
	}
}

func TestLinesKeepsTheLast(t *testing.T) {
	var l lines
	for i := range 3 * keptLines {
		l.add([]byte{byte('a' + i%26)})
	}
	if n := strings.Count(l.text(), "\n") + 1; n != keptLines {
		t.Errorf("%d lines", n)
	}
	if !strings.HasSuffix(l.text(), string(rune('a'+(3*keptLines-1)%26))) {
		t.Errorf("%q", l.text())
	}
}

func TestTempDir(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp/"+strings.Repeat("x", 100))
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 || !strings.HasPrefix(dir, "/tmp/outrigger-demo-") {
		t.Errorf("%s, %v, %v", dir, info, err)
	}
}
