package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// Find agrees with looking through a list, and makes no memory.
func TestInterceptionFind(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	addr := func() netip.AddrPort {
		a := netip.AddrFrom4([4]byte{240, 0, 0, byte(rng.IntN(6))})
		if rng.IntN(2) == 0 {
			a = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(rng.IntN(6))})
		}
		return netip.AddrPortFrom(a, uint16(rng.IntN(4)))
	}
	for range 200 {
		var i Interception
		type entry struct {
			a netip.AddrPort
			l *Listener
		}
		var list []entry
		for n := range rng.IntN(12) {
			e := entry{addr(), &Listener{Name: fmt.Sprint(n)}}
			i.Add(e.a, e.l)
			list = append(list, e)
		}
		for range 50 {
			a := netip.AddrPortFrom(addr().Addr(), uint16(1+rng.IntN(4)))
			var exact, whole *Listener
			for _, e := range list { // the last one with an address has it
				switch e.a {
				case a:
					exact = e.l
				case netip.AddrPortFrom(a.Addr(), 0):
					whole = e.l
				}
			}
			if exact == nil {
				exact = whole
			}
			if got := i.Find(a); got != exact {
				t.Fatalf("%s of %v: %v, want %v", a, list, got, exact)
			}
		}
	}
	var i Interception
	a := netip.MustParseAddrPort("240.0.0.1:80")
	i.Add(netip.AddrPortFrom(a.Addr(), 0), &Listener{})
	i.Add(netip.MustParseAddrPort("240.0.0.2:80"), &Listener{})
	if n := testing.AllocsPerRun(100, func() { i.Find(a) }); n != 0 && !raceEnabled {
		t.Errorf("a look-up makes %v allocations", n)
	}
}

func TestInterceptionOwnAddress(t *testing.T) {
	i := Interception{Own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:15001"), netip.MustParseAddrPort("[::1]:15001"), netip.MustParseAddrPort("0.0.0.0:15006")}}
	for text, want := range map[string]bool{
		"127.0.0.1:15001": true, "127.0.0.2:15001": false, "[::1]:15001": true, "10.0.0.1:15001": false,
		"127.0.0.1:15006": true, "127.0.0.1:80": false, "0.0.0.0:15006": true,
	} {
		if got := i.OwnAddress(netip.MustParseAddrPort(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestInterceptionText(t *testing.T) {
	api := &Listener{Name: "outbound:api"}
	i := &Interception{Early: EarlyAllow, Unknown: &Listener{Name: "passthrough"}}
	i.Add(netip.MustParseAddrPort("[fd00::1]:80"), api)
	i.Add(netip.MustParseAddrPort("240.0.0.1:0"), api)
	got := i.text([]*Listener{api})
	for _, want := range []string{"redirect", "early        allow", "240.0.0.1: outbound:api", "[fd00::1]:80: outbound:api", "unknown      passthrough"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}
