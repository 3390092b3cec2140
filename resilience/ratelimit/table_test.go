package ratelimit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func key(format string, args ...any) *Key {
	k := KeyOf(fmt.Appendf(nil, format, args...))
	return &k
}

// Keys are told apart whatever their length, also where one begins another.
func TestKeys(t *testing.T) {
	seen := map[Key]string{}
	for n := range 200 {
		for _, last := range []string{"", "a", "b", "\x00"} {
			text := strings.Repeat("x", n) + last
			k := KeyOf([]byte(text))
			if other, ok := seen[k]; ok && other != text {
				t.Fatalf("%q and %q have the same key", other, text)
			}
			seen[k] = text
		}
	}
	if k := KeyOf(nil); k != (Key{}) {
		t.Errorf("the key of no text is %v", k)
	}
	// A digest is not the key of the text that it is as bytes.
	long := KeyOf([]byte(strings.Repeat("y", 100)))
	if short := KeyOf(long.bytes()); short == long {
		t.Error("a text stands for the digest of another")
	}
}

// TestBounded has more keys come than there is room for.
// The buffer is used again, as that of a connection is.
func TestMemoryRemembersNothingFalse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var m Memory
	texts := [][]byte{nil, []byte("short")}
	for _, n := range []int{keyBytes, keyBytes + 1, 100, 100, rememberedBytes, rememberedBytes + 1} {
		b := bytes.Repeat([]byte{'z'}, n)
		b[n-1] = byte('a' + len(texts))
		texts = append(texts, b)
	}
	buffer := make([]byte, 0, 1024)
	for range 10_000 {
		buffer = append(buffer[:0], texts[r.IntN(len(texts))]...)
		if got, want := m.KeyOf(buffer), KeyOf(buffer); got != want {
			t.Fatalf("the key of %q is that of another text", buffer)
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		m.KeyOf(texts[r.IntN(len(texts))])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestBounded(t *testing.T) {
	for _, keys := range []int{1, 2, 100, 511, 512, 5000, DefaultKeys} {
		table := NewTable(Config{Requests: 1, Per: time.Second}, keys)
		evicted := 0
		for i := range 3*keys + 10 {
			d := table.Take(time.Duration(i), key("%d", i))
			if !d.OK {
				t.Fatalf("%d keys: the first request of key %d is refused", keys, i)
			}
			if d.Evicted {
				evicted++
			}
			if table.Len() > keys {
				t.Fatalf("%d keys of %d", table.Len(), keys)
			}
		}
		if table.Len()+evicted != 3*keys+10 {
			t.Errorf("%d keys: %d are there and %d went, of %d", keys, table.Len(), evicted, 3*keys+10)
		}
		if table.Len() < keys*98/100 {
			t.Errorf("only %d of %d places are used", table.Len(), keys)
		}
		for i := range table.shards {
			table.shards[i].check(t)
		}
	}
}

// check follows the lists of a shard.
func (s *shard) check(t *testing.T) {
	t.Helper()
	n, older := 0, int32(0)
	for p := s.oldest; p != 0; p = s.entries[p-1].newer {
		if s.entries[p-1].older != older {
			t.Fatal("the order of use is broken")
		}
		older = p
		n++
	}
	chained := 0
	for h, p := range s.heads {
		for ; p != 0; p = s.entries[p-1].chain {
			if s.entries[p-1].hash&uint32(len(s.heads)-1) != uint32(h) {
				t.Fatal("an entry is in another's chain")
			}
			chained++
		}
	}
	if n != len(s.entries) || chained != n || older != s.newest {
		t.Fatalf("%d entries, %d in order, %d chained", len(s.entries), n, chained)
	}
}

// An emptied bucket is not forgotten for others that have hardly been used;
// where all are alike the one that has been unused longest goes.
func TestEviction(t *testing.T) {
	table := NewTable(Config{Requests: 10, Per: time.Hour}, 20)
	for range 10 {
		table.Take(0, key("spent"))
	}
	for i := range 1000 {
		table.Take(time.Duration(i), key("%d", i))
	}
	if d := table.Take(1000, key("spent")); d.OK || d.Evicted {
		t.Errorf("the emptied bucket was forgotten: %+v", d)
	}

	table = NewTable(Config{Requests: 10, Per: time.Hour}, 3)
	for i, k := range []string{"a", "b", "c", "a"} {
		table.Take(time.Duration(i), key("%s", k))
	}
	table.Take(4, key("d")) // in place of b
	for _, want := range []struct {
		key  string
		left int64
	}{{"a", 7}, {"c", 8}, {"d", 8}} {
		if d := table.Take(5, key("%s", want.key)); d.Evicted || d.Remaining != want.left {
			t.Errorf("%s: %+v, want %d left", want.key, d, want.left)
		}
	}
	if d := table.Take(5, key("b")); !d.Evicted || d.Remaining != 9 {
		t.Errorf("b was kept: %+v", d)
	}
}

// A clock that jumps forward fills every bucket once; one that jumps back
// gives nothing until it has caught up.
func TestClockJumps(t *testing.T) {
	table := NewTable(Config{Requests: 2, Per: time.Second}, 1)
	for _, s := range []struct {
		now time.Duration
		ok  bool
	}{
		{time.Hour, true},
		{time.Hour, true},
		{time.Hour, false},
		{time.Minute, false},
		{time.Hour + time.Second/2 - 1, false},
		{time.Hour + time.Second/2, true},
		{1<<63 - 1, true},
		{1<<63 - 1, true},
		{1<<63 - 1, false},
		{-1 << 63, false},
		{0, false},
	} {
		if d := table.Take(s.now, &Key{}); d.OK != s.ok {
			t.Fatalf("at %d: %+v", s.now, d)
		}
	}
}

// TestTogether has many goroutines take from one bucket and from their own.
func TestTogether(t *testing.T) {
	table := NewTable(Config{Requests: 1000, Per: time.Hour}, 1000)
	var shared, own atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			mine := key("own %d", g)
			for range 2000 {
				if table.Take(0, key("shared")).OK {
					shared.Add(1)
				}
				if table.Take(0, mine).OK {
					own.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if shared.Load() != 1000 || own.Load() != 8000 {
		t.Errorf("%d and %d passed, want 1000 and 8000", shared.Load(), own.Load())
	}
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	table := NewTable(Config{Requests: 1, Per: time.Second}, 1000)
	var text [100]byte
	n := 0
	take := func() {
		n++
		text[0], text[1] = byte(n), byte(n>>8)
		k := KeyOf(text[:10])
		table.Take(time.Duration(n), &k)
		k = KeyOf(text[:])
		table.Take(time.Duration(n), &k)
	}
	for range 5000 {
		take()
	}
	if got := testing.AllocsPerRun(5000, take); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Default(), "requests"},
		{Config{Requests: 1, Per: MinPer}, ""},
		{Config{Requests: MaxCount, Per: MaxPer, Burst: MaxCount}, ""},
		{Config{Requests: -1, Per: -1, Burst: -1}, "requests per burst"},
		{Config{Requests: MaxCount + 1, Per: MaxPer + 1, Burst: MaxCount + 1}, "requests per burst"},
	} {
		var got []string
		c.cfg.Validate(func(field, _ string) { got = append(got, field) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", c.cfg, s, c.want)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	for _, n := range []int{1, 8000} {
		b.Run(fmt.Sprint(n, " keys"), func(b *testing.B) {
			table := NewTable(Config{Requests: 100, Per: time.Second}, DefaultKeys)
			keys := make([]Key, n)
			for i := range keys {
				keys[i] = *key("spiffe://example.org/ns/shop/sa/%d", i)
			}
			i := 0
			for b.Loop() {
				table.Take(time.Duration(i), &keys[i%n])
				i++
			}
		})
	}
}
