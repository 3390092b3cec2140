package balance

import (
	"testing"
	"unsafe"
)

// Two cache lines: one that is written, and one between it and its neighbour.
func TestLoadIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Load{}); n != 128 {
		t.Errorf("a Load has %d bytes, want 128", n)
	}
}
