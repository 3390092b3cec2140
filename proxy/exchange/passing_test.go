package exchange

import (
	"net/netip"
	"testing"
)

// A connection is one's own only when it goes where one's own goes: a caller may
// use the port from which its address was kept, to somewhere else.
func TestPassing(t *testing.T) {
	var p passing
	caller := netip.MustParseAddrPort("10.8.0.2:40000")
	app, other := netip.MustParseAddrPort("10.8.0.1:9090"), netip.MustParseAddrPort("10.8.0.1:9091")
	p.add(way{caller, app})
	if !p.has(way{caller, app}) || p.has(way{caller, other}) || p.has(way{app, caller}) {
		t.Errorf("has %v", p.own)
	}
	p.remove(way{caller, app})
	if p.has(way{caller, app}) || len(p.own) != 0 {
		t.Errorf("keeps %v", p.own)
	}
}
