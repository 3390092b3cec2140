package e2e

import (
	"strconv"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

var ports = testkit.Ports{Low: 12000, High: 20000}

// freePort returns a loopback port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	return ports.Free(t)
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// freeAddress returns a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	return loopback(freePort(t))
}
