package upstream

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// A list that is taken as it is, is what the long way would have made of it; the long
// way leaves the list that it was given as it was.
func TestDistinct(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	short := 0
	for range 2000 {
		list := make([]EndpointSpec, r.IntN(5))
		for i := range list {
			list[i] = EndpointSpec{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(6))}), uint16(1+r.IntN(2))),
				Weight:  uint32(r.IntN(8)), Healthy: r.IntN(2) == 0, ID: string(rune('a' + i)),
			}
		}
		if r.IntN(2) == 0 {
			slices.SortFunc(list, func(a, b EndpointSpec) int { return a.Address.Compare(b.Address) })
		}
		given := slices.Clone(list)
		got := distinct(list)
		if !slices.Equal(list, given) {
			t.Fatalf("the list was changed: %v, was %v", list, given)
		}
		if isDistinct(list) {
			short++
			if len(got) != len(list) || len(list) > 0 && &got[0] != &list[0] {
				t.Fatalf("%v was copied", list)
			}
		}
		if !isDistinct(got) {
			t.Fatalf("%v is not distinct", got)
		}
		for _, s := range list {
			s.Weight = max(s.Weight, 1)
			if !slices.ContainsFunc(got, func(o EndpointSpec) bool { return o.Address == s.Address && o.rank() <= s.rank() }) {
				t.Fatalf("%v is missing in %v, or a worse one is there", s, got)
			}
		}
	}
	if short < 100 {
		t.Errorf("only %d of 2000 lists were distinct", short)
	}
}
