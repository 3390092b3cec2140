package jwks

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/jwt"
)

func TestPauses(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		keys jwt.Keys
		want []time.Duration // the longest that each may be
	}{
		{jwt.Keys{}, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}},
		{jwt.Keys{RetryTimes: 3}, []time.Duration{s, 2 * s, 4 * s, 30 * s, 30 * s}},
		{jwt.Keys{RetryTimes: 20}, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}},
		{jwt.Keys{RetryBase: 3 * s, RetryMax: 10 * s}, []time.Duration{3 * s, 6 * s, 10 * s, 10 * s}},
		{jwt.Keys{RetryBase: s, RetryMax: s, RetryTimes: 1}, []time.Duration{s, s, s}},
	} {
		least, most := pausesOf(&c.keys), pausesOf(&c.keys)
		for i, want := range c.want {
			if got := most.next(1); got != want {
				t.Errorf("%+v: pause %d is %v at most, want %v", c.keys, i, got, want)
			}
			if got := least.next(0); got != want/2 {
				t.Errorf("%+v: pause %d is %v at least, want %v", c.keys, i, got, want/2)
			}
		}
	}
}

// Whatever is asked for, a pause is what a slow reckoning of the n-th says.
func TestPausesByModel(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		k := jwt.Keys{RetryBase: 1 + time.Duration(random.Int64N(int64(jwt.MaxRetry))), RetryTimes: random.IntN(6)}
		k.RetryMax = k.RetryBase + time.Duration(random.Int64N(int64(jwt.MaxRetry)))
		p := pausesOf(&k)
		for n := range 10 {
			want := k.RetryBase
			for range n {
				want *= 2
			}
			if want > k.RetryMax || k.RetryTimes > 0 && n >= k.RetryTimes {
				want = k.RetryMax
			}
			if got := p.next(random.Float64()); got < want/2 || got > want {
				t.Fatalf("%+v: pause %d is %v, want half of %v to that", k, n, got, want)
			}
		}
	}
}
