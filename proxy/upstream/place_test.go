package upstream

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

func placed(b *bed, per int64, endpoints int, change func(*Spec)) *Cluster {
	c := b.r.Acquire(spec(func(s *Spec) {
		gateSpec(s, 0, func(q *queue.Config) { q.Size, q.Target, q.Order = queue.MaxSize, 0, queue.FIFO })
		s.Policy.Limits.MaxRequestsPerEndpoint = per
		if change != nil {
			change(s)
		}
	}), 0)
	c.SetLocal(numbered(endpoints))
	return c
}

// However many come at once, no endpoint ever has more than it may, and who
// is let in finds one that has room, whatever picks it: also where a hash leads
// all to the same.
func TestPlacesPerEndpoint(t *testing.T) {
	const per, endpoints, workers, rounds = 2, 4, 32, 200
	for name, change := range map[string]func(*Spec){
		"p2c": nil,
		"hash": func(s *Spec) {
			s.Policy.Balance.Algorithm = balance.RingHash
			s.Policy.Balance.Hash = []balance.HashOn{{SourceIP: true}}
			s.Policy.Balance.MinRingSize = 64
		},
		"round robin": func(s *Spec) { s.Policy.Balance.Algorithm = balance.WeightedRoundRobin },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			c := placed(b, per, endpoints, change)
			if c.Gate.Most() != per*endpoints {
				t.Fatalf("%d may be in, want %d", c.Gate.Most(), per*endpoints)
			}
			var at sync.Map
			var tooMany, none atomic.Int64
			var wg sync.WaitGroup
			for i := range workers {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(1, uint64(i)))
					for range rounds {
						if c.Gate.ask(Ask{Caller: uint64(i)}) != queue.Entered {
							none.Add(1)
							continue
						}
						var tried Tried
						for range 1 + r.IntN(2) { // and again, elsewhere
							now := b.sw.Now()
							e := c.Pick(now, &Wish{Key: 7, Keyed: true}, &tried)
							if e == nil {
								none.Add(1)
								break
							}
							v, _ := at.LoadOrStore(e, new(atomic.Int64))
							n := v.(*atomic.Int64)
							if n.Add(1) > per {
								tooMany.Add(1)
							}
							c.Begin(e, now)
							c.Finish(e, now, 1, outcome.OK, 200)
							n.Add(-1)
							tried.Add(e)
							tried.Vacate()
						}
						c.Gate.Leave(b.sw.Now())
					}
				})
			}
			wg.Wait()
			// Room that moves at the wrong moments may be missed, hardly ever.
			if tooMany.Load() > 0 || none.Load() > workers*rounds/100 {
				t.Errorf("%d times an endpoint had too many, %d times there was none", tooMany.Load(), none.Load())
			}
			for _, e := range c.list() {
				if n := e.occupied().Value(); n != 0 {
					t.Errorf("%s has %d at the end", e.Address(), n)
				}
			}
		})
	}
}

// A full endpoint is passed over; where all are full, that is said.
func TestPlacesAllFull(t *testing.T) {
	b := newBed(t)
	c := placed(b, 1, 2, nil)
	pick := func() (*Endpoint, *Tried) {
		tried := new(Tried)
		return c.Pick(b.sw.Now(), &Wish{}, tried), tried
	}
	a, first := pick()
	other, second := pick()
	if a == nil || other == nil || a == other {
		t.Fatalf("picked %v and %v", a, other)
	}
	if e, tried := pick(); e != nil || !tried.Full() {
		t.Fatalf("picked %v, full %v", e, tried.Full())
	}
	first.Vacate()
	first.Vacate() // once is enough
	if e, _ := pick(); e != a {
		t.Errorf("picked %v, not the one with room", e)
	}
	second.Vacate()
	c.SetLocal(numbered(5))
	if c.Gate.Most() != 5 {
		t.Errorf("with five endpoints %d may be in", c.Gate.Most())
	}
	b.r.Acquire(spec(nil), 0)
	b.r.Release(c)
	if c.Gate.Most() != 0 {
		t.Errorf("without the limit %d may be in", c.Gate.Most())
	}
	for range 20 {
		if e, tried := pick(); e == nil || tried.placed != nil {
			t.Fatal("without the limit a place is taken")
		}
	}
}

func TestPlacesObserved(t *testing.T) {
	b := newBed(t)
	c := placed(b, 1, 1, func(s *Spec) { s.Policy.Limits.Mode = guard.Observe })
	for range 3 {
		if e := c.Pick(b.sw.Now(), &Wish{}, new(Tried)); e == nil || c.Gate.ask(Ask{}) != queue.Entered {
			t.Fatal("observe mode refused")
		}
	}
}
