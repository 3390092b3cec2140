package ratelimit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultKeys is how many keys a table keeps unless told otherwise.
const DefaultKeys = 10_000

// MaxKeys is the most keys that a table may be told to keep: about 130 MB.
const MaxKeys = 1_000_000

// Table holds a bucket for each key, up to a number. It is safe for concurrent
// use. Once it has seen as many keys as it may keep it does not allocate.
type Table struct {
	whole  Config
	rate   atomic.Pointer[rate]
	seed   maphash.Seed
	shards []shard
	shift  uint // of a hash, to the shard
}

// NewTable returns an empty table for at most keys keys, at least one. Where
// there are many they are spread over parts with a bound each, so that a part
// may be full when others are not quite.
func NewTable(c Config, keys int) *Table {
	keys = max(keys, 1)
	n, bits := 1, uint(0)
	for n < maxShards && keys/n >= 2*minShard {
		n, bits = 2*n, bits+1
	}
	t := &Table{whole: c, seed: maphash.MakeSeed(), shards: make([]shard, n), shift: 64 - bits}
	r := newRate(c, 1)
	t.rate.Store(&r)
	for i := range t.shards {
		s := &t.shards[i]
		s.max = int32(keys / n)
		heads := 1
		for heads < int(s.max) {
			heads *= 2
		}
		s.heads = make([]int32, heads)
	}
	return t
}

const (
	maxShards = 16
	minShard  = 256 // keys of a shard, where there are several
)

// Take asks for one request of key and takes it if it is there. now is any
// clock that the table is always told of.
func (t *Table) Take(now time.Duration, key *Key) Decision {
	s, h := t.of(key)
	r := t.rate.Load()
	s.mu.Lock()
	i, evicted := s.find(r, now, h, key)
	d := s.entries[i].bucket.take(r, now)
	s.mu.Unlock()
	d.Evicted = evicted
	return d
}

// Has reports whether Take would give one, and takes nothing.
func (t *Table) Has(now time.Duration, key *Key) bool {
	s, h := t.of(key)
	r := t.rate.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.lookup(h, key)
	if p == 0 {
		return true
	}
	b := &s.entries[p-1].bucket
	b.settle(r, now)
	return b.debt <= r.most-r.per
}

// of returns the shard of key, and its hash there.
func (t *Table) of(key *Key) (*shard, uint32) {
	h := maphash.Bytes(t.seed, key.bytes())
	return &t.shards[h>>t.shift], uint32(h) // a shift by 64, with one shard, gives 0
}

// Len returns how many keys the table keeps.
func (t *Table) Len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}

// shard is a part of the table: a hash index over entries, which are also in
// the order of their last use. Places are counted from 1; 0 is none.
type shard struct {
	mu      sync.Mutex
	heads   []int32 // by hash: the first entry of a chain
	entries []entry
	max     int32
	newest  int32
	oldest  int32
	_       [64]byte
}

type entry struct {
	bucket       bucket
	hash         uint32
	chain        int32 // the next with the same head
	newer, older int32
	key          Key
}

// lookup returns the place of key's entry; 0 if there is none.
func (s *shard) lookup(hash uint32, key *Key) int32 {
	p := s.heads[hash&uint32(len(s.heads)-1)]
	for p != 0 {
		e := &s.entries[p-1]
		if e.hash == hash && e.key == *key {
			break
		}
		p = e.chain
	}
	return p
}

// find returns the index of key's entry, which is now the newest; it is made,
// if need be in place of another.
func (s *shard) find(r *rate, now time.Duration, hash uint32, key *Key) (index int32, evicted bool) {
	p := s.lookup(hash, key)
	if p != 0 {
		if p != s.newest {
			s.leave(p)
			s.join(p)
		}
		return p - 1, false
	}
	if p = int32(len(s.entries)) + 1; p > s.max {
		p, evicted = s.victim(r), true
		s.unchain(p)
		s.leave(p)
	} else {
		s.entries = append(s.entries, entry{})
	}
	head := &s.heads[hash&uint32(len(s.heads)-1)]
	s.entries[p-1] = entry{hash: hash, key: *key, chain: *head, bucket: bucket{at: now}}
	*head = p
	s.join(p)
	return p - 1, evicted
}

// candidates is among how many of the longest unused the victim is chosen.
const candidates = 8

// victim is the entry whose loss forgives least: of those that have been
// unused longest, the one that is full first. Who has emptied a bucket cannot
// have it forgotten by asking under other keys a few times.
func (s *shard) victim(r *rate) int32 {
	best := s.oldest
	when := s.entries[best-1].bucket.fullAt(r)
	p := best
	for range candidates - 1 {
		if p = s.entries[p-1].newer; p == 0 {
			break
		}
		if at := s.entries[p-1].bucket.fullAt(r); at < when {
			best, when = p, at
		}
	}
	return best
}

// unchain takes an entry out of the hash index.
func (s *shard) unchain(p int32) {
	at := &s.heads[s.entries[p-1].hash&uint32(len(s.heads)-1)]
	for *at != p {
		at = &s.entries[*at-1].chain
	}
	*at = s.entries[p-1].chain
}

// leave takes an entry out of the order of use.
func (s *shard) leave(p int32) {
	e := &s.entries[p-1]
	if e.newer != 0 {
		s.entries[e.newer-1].older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != 0 {
		s.entries[e.older-1].newer = e.newer
	} else {
		s.oldest = e.newer
	}
}

// join puts an entry in as the newest.
func (s *shard) join(p int32) {
	e := &s.entries[p-1]
	e.newer, e.older = 0, s.newest
	if s.newest != 0 {
		s.entries[s.newest-1].newer = p
	} else {
		s.oldest = p
	}
	s.newest = p
}
