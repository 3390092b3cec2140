package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// TestDemo runs the demo as it is run by hand, from a binary that is built for
// it, and reads what it says.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nine processes for twelve seconds; run without -short")
	}
	program := build(t)
	t.Run("file catalog", func(t *testing.T) {
		t.Parallel()
		checkReport(t, runDemo(t, program, nil))
	})
	t.Run("consul", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		bin, err := testkit.FindConsul(ctx, t.Logf)
		if err != nil {
			t.Skip("needs a Consul program: ", err)
		}
		checkReport(t, runDemo(t, program, []string{"CONSUL_BIN=" + bin}, "--consul"))
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		dieWithDemo(t, program)
	})
}

func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "outrigger")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/outrigger").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

func runDemo(t *testing.T, program string, env []string, args ...string) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"demo", "--duration", "12s", "--json"}, args...)...)
	temp := t.TempDir()
	cmd.Env = append(append(os.Environ(), "TMPDIR="+shortDir(t)), env...)
	cmd.Dir = temp
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", stderr.String())
	}
	if strings.Count(stdout.String(), "\n") != 1 {
		t.Errorf("standard output is not one line:\n%s", stdout.String())
	}
	dec := json.NewDecoder(strings.NewReader(stdout.String()))
	dec.DisallowUnknownFields()
	var rep Report
	if err := dec.Decode(&rep); err != nil {
		t.Fatalf("%v\n%s", err, stdout.String())
	}
	return &rep
}

// shortDir is a directory that must be empty again in the end. Its path is
// short enough for sockets, which t.TempDir does not promise.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := filepath.Glob(filepath.Join(dir, "outrigger-demo-*")); len(left) > 0 && !t.Failed() {
			t.Errorf("left behind: %v", left)
		}
		os.RemoveAll(dir)
	})
	return dir
}

func checkReport(t *testing.T, rep *Report) {
	t.Helper()
	if rep.Requests < 500 {
		t.Errorf("only %d requests in %v s", rep.Requests, rep.Seconds)
	}
	// The sidecar retries what meets a fault; a request may be lost with the
	// connection of a machine that is too busy to answer in time.
	if allowed := rep.Requests / 500; rep.Failures > allowed {
		t.Errorf("%d of %d requests failed", rep.Failures, rep.Requests)
	}
	if want := (Identities{Client: "spiffe://demo.test/web", Servers: []string{"spiffe://demo.test/api"}}); !reflect.DeepEqual(rep.Identities, want) {
		t.Errorf("identities %+v", rep.Identities)
	}
	if rep.Retries == 0 || rep.P50Ms <= 0 || rep.P99Ms < rep.P50Ms {
		t.Errorf("%d retries, p50 %v, p99 %v", rep.Retries, rep.P50Ms, rep.P99Ms)
	}
	// Each fault is followed by the ejection of the instance that has it.
	fault := map[string]time.Time{}
	ejected := map[string]bool{}
	var last time.Time
	for _, e := range rep.Events {
		if e.At.Before(last) {
			t.Errorf("%+v comes before an earlier event", e)
		}
		last = e.At
		switch e.Kind {
		case kindErrs, kindKilled:
			fault[e.Instance] = e.At
		case kindEjected:
			if at, ok := fault[e.Instance]; ok && !e.At.Before(at) && e.Cause != "" && e.Endpoint != "" {
				ejected[e.Instance] = true
			}
		case kindLost:
			t.Errorf("%+v", e)
		}
	}
	if len(fault) != 2 || len(ejected) != 2 || rep.Ejections < 2 {
		t.Errorf("faults %v, ejected %v, %d ejections; events:\n%+v", fault, ejected, rep.Ejections, rep.Events)
	}
}

// dieWithDemo kills a demo, which then can end nothing itself.
func dieWithDemo(t *testing.T, program string) {
	dir := shortDir(t)
	cmd := exec.Command(program, "demo", "--rate", "20")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	running := make(chan struct{})
	var once sync.Once
	cmd.Stdout = newLineWriter(func(line []byte) {
		if strings.HasPrefix(string(line), "admin pages:") {
			once.Do(func() { close(running) })
		}
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	select {
	case <-running:
	case <-ended:
		t.Fatalf("the demo ended: %v", cmd.ProcessState)
	}
	children := childrenOf(t, cmd.Process.Pid)
	if len(children) != 8 {
		t.Errorf("%d child processes: %v", len(children), children)
	}
	_ = cmd.Process.Kill()
	<-ended
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(children) > 0 {
		if !alive(children[0]) {
			children = children[1:]
			continue
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			for _, pid := range children {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			t.Fatalf("still running: %v", children)
		}
	}
	// It could not clean up either.
	left, _ := filepath.Glob(filepath.Join(dir, "outrigger-demo-*"))
	for _, d := range left {
		os.RemoveAll(d)
	}
}

// stat returns the state and the parent of a process (proc(5)).
func stat(pid int) (state string, parent int, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

func alive(pid int) bool {
	state, _, ok := stat(pid)
	return ok && state != "Z" && state != "X"
}

func childrenOf(t *testing.T, parent int) (list []int) {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if _, p, ok := stat(pid); ok && p == parent {
			list = append(list, pid)
		}
	}
	return list
}
