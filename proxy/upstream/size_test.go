package upstream

import (
	"testing"
	"unsafe"
)

// A sidecar of a large mesh has ten thousand endpoints, of which it uses a few. The
// runtime gives out memory in sizes: one byte more would be 64 more for each.
func TestEndpointIsSmall(t *testing.T) {
	var e Endpoint
	if n := unsafe.Sizeof(e); n > 512 {
		t.Errorf("an Endpoint has %d bytes, want 512 at most", n)
	}
	if n := unsafe.Offsetof(e.Load); n != 0 {
		t.Errorf("the Load of an Endpoint is at %d; it has a cache line to itself only at 0", n)
	}
	if n := unsafe.Sizeof(Cluster{}); n > 1024 {
		t.Errorf("a Cluster has %d bytes, want 1024 at most", n)
	}
}
