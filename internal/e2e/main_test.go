// Package e2e tests the program as its users have it: processes, files, sockets and signals, one behaviour a file.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// program is the path of the binary under test, built once.
var program string

func TestMain(m *testing.M) {
	offerConnect()
	os.Exit(run(m))
}

// offerConnect starts the tests anew with what lets net/http's server take
// extended CONNECT (RFC 8441), which it looks for as the process starts.
func offerConnect() {
	const setting = "http2xconnect=1"
	old := os.Getenv("GODEBUG")
	if strings.Contains(old, setting) {
		return
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Setenv("GODEBUG", strings.TrimPrefix(old+","+setting, ","))
	}
	if err == nil {
		err = syscall.Exec(self, os.Args, os.Environ())
	}
	fmt.Fprintf(os.Stderr, "starting the tests anew: %v\n", err)
	os.Exit(1)
}

func run(m *testing.M) int {
	if program = os.Getenv(insideNamespace); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "outrigger-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "outrigger")
	build := exec.Command("go", "build", "-o", program, "github.com/outrigger-mesh/outrigger/cmd/outrigger")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building outrigger: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// need returns the path of a program that a test uses as a peer or a client.
// Without it the test is skipped, and fails where everything must be there.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name+" is not installed")
	}
	return path
}

// missing skips the test for want of something, and fails it when CI=true.
func missing(t *testing.T, what string) {
	t.Helper()
	testkit.Missing(t, what)
}
