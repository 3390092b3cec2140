package balance

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// cluster returns n members, half of them with a weight of their own.
func cluster(n int) []Member {
	members := fresh(n)
	for i := range members {
		members[i].Weight = uint32(1 + i%2*i)
		members[i].Load.Begin(0)
		members[i].Load.End(0, 10*time.Millisecond, false)
	}
	return members
}

func BenchmarkPick(b *testing.B) {
	for a := P2CEWMA; a <= Random; a++ {
		for _, n := range []int{10, 1000, 10_000} {
			b.Run(fmt.Sprintf("%v/%d", a, n), func(b *testing.B) {
				p := NewPicker(configured(a), cluster(n))
				rnd := rand.New(rand.NewPCG(1, 1))
				b.ReportAllocs()
				now := time.Second
				for b.Loop() {
					p.Pick(now, rnd.Uint64(), nil)
					now += time.Microsecond
				}
			})
		}
	}
}

func BenchmarkPickAvoiding(b *testing.B) {
	for _, n := range []int{10, 64, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := NewPicker(configured(P2CEWMA), cluster(n))
			rnd := rand.New(rand.NewPCG(1, 1))
			avoid := []*Load{p.Member(0).Load}
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(time.Second, rnd.Uint64(), avoid)
			}
		})
	}
}

func BenchmarkBeginEnd(b *testing.B) {
	var l Load
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := time.Duration(0)
		for pb.Next() {
			l.Begin(now)
			l.End(now, time.Millisecond, false)
			now += time.Microsecond
		}
	})
}

func BenchmarkNewPicker(b *testing.B) {
	for _, a := range []Algorithm{P2CEWMA, WeightedRoundRobin} {
		b.Run(fmt.Sprintf("%v/10000", a), func(b *testing.B) {
			members := cluster(10_000)
			b.ReportAllocs()
			for b.Loop() {
				NewPicker(configured(a), members)
			}
		})
	}
}
