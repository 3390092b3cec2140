package detect

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// slow is Memory as a list, the one used last in front.
type slow struct {
	max  int
	age  time.Duration
	list []taught
}

type taught struct {
	key    int
	lesson Lesson
	at     time.Duration
}

func (s *slow) find(key int) int {
	return slices.IndexFunc(s.list, func(e taught) bool { return e.key == key })
}

func (s *slow) front(i int) {
	e := s.list[i]
	s.list = slices.Insert(slices.Delete(s.list, i, i+1), 0, e)
}

func (s *slow) lookup(key int, now time.Duration) (Lesson, bool) {
	i := s.find(key)
	if i < 0 {
		return Lesson{}, false
	}
	e := s.list[i]
	if now-e.at >= s.age {
		s.list = slices.Delete(s.list, i, i+1)
		return Lesson{}, false
	}
	s.front(i)
	return e.lesson, true
}

func (s *slow) learn(key int, l Lesson, now time.Duration) {
	if i := s.find(key); i >= 0 {
		if e := s.list[i]; e.lesson.ServerFirst && !l.ServerFirst && now-e.at < s.age {
			return
		}
		s.list = slices.Delete(s.list, i, i+1)
	}
	s.list = slices.Insert(s.list, 0, taught{key, l, now})
	s.list = s.list[:min(len(s.list), s.max)]
}

func TestMemoryIsAsTheModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := 1 + r.IntN(5)
		m, s := NewMemory[int](size, 50), &slow{max: size, age: 50}
		now := time.Duration(0)
		for range 2000 {
			now += time.Duration(r.IntN(8))
			key := r.IntN(8)
			if r.IntN(2) == 0 {
				l := Lesson{ServerFirst: r.IntN(3) == 0, Client: Kind(r.IntN(4))}
				m.Learn(key, l, now)
				s.learn(key, l, now)
				continue
			}
			got, ok := m.Lookup(key, now)
			if want, known := s.lookup(key, now); got != want || ok != known {
				t.Fatalf("seed %d: %d is %v %v, want %v %v", seed, key, got, ok, want, known)
			}
			if len(m.entries) != len(s.list) {
				t.Fatalf("seed %d: %d entries, want %d", seed, len(m.entries), len(s.list))
			}
		}
	}
}

func TestMemoryOfNothing(t *testing.T) {
	var m *Memory[string]
	m.Learn("a", Lesson{ServerFirst: true}, 0)
	if _, ok := m.Lookup("a", 0); ok {
		t.Error("nil knows something")
	}
	n := NewMemory[string](0, time.Hour)
	n.Learn("a", Lesson{ServerFirst: true}, 0)
	if l, ok := n.Lookup("a", 0); !ok || !l.ServerFirst {
		t.Error("there is room for one")
	}
}

func TestMemoryFromManySides(t *testing.T) {
	m := NewMemory[int](10, time.Hour)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 1000 {
				m.Learn(i+n%20, Lesson{Client: HTTP1}, time.Duration(n))
				if l, ok := m.Lookup(n%20, time.Duration(n)); ok && l.Client != HTTP1 {
					t.Error("something else came back")
				}
			}
		})
	}
	wg.Wait()
	if n := len(m.entries); n > 10 {
		t.Errorf("%d entries", n)
	}
}
