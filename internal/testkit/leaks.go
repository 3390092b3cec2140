// Package testkit holds what tests of several packages share: leak checks, real Consul and Envoy, free ports, certificates.
package testkit

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// VerifyNoLeaks runs the tests of a package and fails it when goroutines that
// the tests started are still there twenty seconds after the last one ended.
// Call it from TestMain.
func VerifyNoLeaks(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(20 * time.Second); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: %d goroutines outlive the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

func leaked(patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	pause := time.Millisecond
	for {
		left := interesting()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// interesting returns the stacks of goroutines that neither the runtime nor
// the testing package owns.
func interesting() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		head, stack, _ := strings.Cut(g, "\n")
		switch {
		case stack == "",
			strings.Contains(head, " [running]") && strings.Contains(stack, "testkit.interesting"),
			strings.Contains(stack, "testing.(*M)."),
			strings.Contains(stack, "testing.Main("),
			strings.Contains(stack, "testing.tRunner("),
			strings.Contains(stack, "created by runtime"),
			strings.Contains(stack, "runtime.goexit0"),
			strings.Contains(stack, "os/signal.signal_recv"),
			strings.Contains(stack, "os/signal.loop"),
			strings.Contains(stack, "runtime.ensureSigM"),
			strings.Contains(stack, "runtime.ReadTrace"),
			strings.Contains(stack, "internal/fuzz"),
			strings.Contains(stack, "testing.runFuzzing"):
			continue
		}
		left = append(left, g)
	}
	return left
}
