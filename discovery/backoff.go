package discovery

import (
	"context"
	"math/bits"
	"time"
)

// Backoff yields growing pauses with full jitter: the n-th is uniform between
// 0 and Base·2ⁿ⁻¹, at most Max. Full jitter keeps a fleet that lost its server
// at one moment from coming back at one moment.
type Backoff struct {
	Base, Max time.Duration
	n         uint
}

// Next returns the next pause; r is a fresh uniformly random word.
func (b *Backoff) Next(r uint64) time.Duration {
	ceiling := b.Max
	if b.n < 32 && b.Base<<b.n < b.Max {
		ceiling = b.Base << b.n
		b.n++
	}
	return scale(ceiling, r)
}

// Reset makes the next pause a first one again.
func (b *Backoff) Reset() { b.n = 0 }

// Jitter returns a duration uniform between d·(1-part) and d·(1+part); r is a
// fresh uniformly random word, part between 0 and 1.
func Jitter(d time.Duration, part float64, r uint64) time.Duration {
	span := time.Duration(float64(d) * part)
	return d - span + scale(2*span, r)
}

// Sleep waits for d and reports whether it did so to the end. It returns
// early, with false, when ctx ends or early is closed; early may be nil.
func Sleep(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-early:
		return false
	}
}

// scale maps r to [0, d).
func scale(d time.Duration, r uint64) time.Duration {
	if d <= 0 {
		return 0
	}
	hi, _ := bits.Mul64(uint64(d), r)
	return time.Duration(hi)
}
