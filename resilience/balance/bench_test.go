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
	for a := P2CEWMA; a <= Maglev; a++ {
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
	for _, a := range []Algorithm{P2CEWMA, WeightedRoundRobin, RingHash, Maglev} {
		for _, n := range []int{1000, 10_000} {
			for name, members := range map[string][]Member{"equal": fresh(n), "weighted": cluster(n)} {
				b.Run(fmt.Sprintf("%v/%s/%d", a, name, n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						NewPicker(configured(a), members)
					}
				})
			}
		}
	}
}

func BenchmarkPickKey(b *testing.B) {
	for _, a := range []Algorithm{RingHash, Maglev} {
		for _, bounded := range []float64{0, 125} {
			b.Run(fmt.Sprintf("%v/1000/bounded=%v", a, bounded), func(b *testing.B) {
				cfg := configured(a)
				cfg.BoundedLoadPercent = bounded
				p := NewPicker(cfg, fresh(1000))
				rnd := rand.New(rand.NewPCG(1, 1))
				for range 5000 { // load as it settles
					i, _ := p.PickKey(rnd.Uint64(), 5000, nil)
					p.Member(i).Load.Begin(0)
				}
				b.ReportAllocs()
				for b.Loop() {
					p.PickKey(rnd.Uint64(), 5000, nil)
				}
			})
		}
	}
}

func BenchmarkPickChoices(b *testing.B) {
	for _, choices := range []int{2, 5, 1000} {
		b.Run(fmt.Sprintf("least_request/1000/choices=%d", choices), func(b *testing.B) {
			cfg := configured(LeastRequest)
			cfg.Choices = choices
			p := NewPicker(cfg, fresh(1000))
			rnd := rand.New(rand.NewPCG(1, 1))
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(0, rnd.Uint64(), nil)
			}
		})
	}
}
