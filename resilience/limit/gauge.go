package limit

import "sync/atomic"

// Gauge counts what is in use at present. It is safe for concurrent use, its
// zero value is ready, and it has a cache line of its own.
type Gauge struct {
	_ [64]byte
	n atomic.Int64
	_ [56]byte
}

// Acquire takes one if fewer than limit are in use, and says whether it did.
// A limit of 0 or below means unlimited. However many call it at once, no
// more than limit are ever in use through calls with that limit.
func (g *Gauge) Acquire(limit int64) bool {
	if limit <= 0 {
		g.n.Add(1)
		return true
	}
	for {
		n := g.n.Load()
		if n >= limit {
			return false
		}
		if g.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives one back. When none is in use it does nothing: a negative
// gauge would let more than the limit pass later.
func (g *Gauge) Release() {
	for {
		n := g.n.Load()
		if n <= 0 || g.n.CompareAndSwap(n, n-1) {
			return
		}
	}
}

// Value returns how many are in use.
func (g *Gauge) Value() int64 { return g.n.Load() }
