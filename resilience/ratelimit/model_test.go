package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// model is a token bucket in fractions without limits: slow, and plainly right.
type model struct {
	c      Config
	tokens *big.Rat
	at     time.Duration
}

func newModel(c Config, now time.Duration) *model {
	return &model{c: c, tokens: new(big.Rat).SetInt64(c.Size()), at: now}
}

func (m *model) take(now time.Duration) Decision {
	size := new(big.Rat).SetInt64(m.c.Size())
	speed := big.NewRat(m.c.Requests, int64(m.c.Per))
	if now > m.at {
		elapsed := new(big.Rat).SetInt(new(big.Int).Sub(big.NewInt(int64(now)), big.NewInt(int64(m.at))))
		m.tokens.Add(m.tokens, elapsed.Mul(elapsed, speed))
		if m.tokens.Cmp(size) > 0 {
			m.tokens.Set(size)
		}
		m.at = now
	}
	one := big.NewRat(1, 1)
	var d Decision
	if m.tokens.Cmp(one) >= 0 {
		d.OK = true
		m.tokens.Sub(m.tokens, one)
	} else {
		d.Wait = m.until(one, speed)
	}
	d.Full = m.until(size, speed)
	d.Remaining = new(big.Int).Quo(m.tokens.Num(), m.tokens.Denom()).Int64()
	return d
}

// until is when there will be so many, in whole nanoseconds.
func (m *model) until(tokens, speed *big.Rat) time.Duration {
	q := new(big.Rat).Sub(tokens, m.tokens)
	q.Quo(q, speed)
	n, rest := new(big.Int).QuoRem(q.Num(), q.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return time.Duration(n.Int64())
}

func randomConfig(r *rand.Rand) Config {
	sizes := []int64{1, 2, 3, 7, 100, 999_983, MaxCount}
	pers := []time.Duration{MinPer, 7*time.Millisecond + 1, time.Second, time.Minute, MaxPer}
	c := Config{Requests: sizes[r.IntN(len(sizes))], Per: pers[r.IntN(len(pers))]}
	if r.IntN(2) == 0 {
		c.Burst = sizes[r.IntN(len(sizes))]
	}
	return c
}

// TestAgainstModel lets random requests of a few keys meet table and model.
func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	for range 300 {
		c := randomConfig(r)
		table := NewTable(c, 20)
		models := map[string]*model{}
		now := time.Duration(r.Int64N(int64(time.Hour)))
		for range 200 {
			now += step(r, c)
			name := strconv.Itoa(r.IntN(20))
			m := models[name]
			if m == nil {
				m = newModel(c, now)
				models[name] = m
			}
			k := KeyOf([]byte(name))
			has := table.Has(now, &k)
			if got, want := table.Take(now, &k), m.take(now); got != want || has != want.OK {
				t.Fatalf("%+v at %d: %v %+v, the model says %+v", c, now, has, got, want)
			}
		}
		if table.Len() != len(models) {
			t.Fatalf("%d keys, want %d", table.Len(), len(models))
		}
	}
}

// step is how far the clock moves: often as long as a request takes, and at
// times far forward or back.
func step(r *rand.Rand, c Config) time.Duration {
	one := int64(c.Per)/c.Requests + 2
	switch r.IntN(20) {
	case 0:
		return time.Duration(r.Int64N(int64(24 * time.Hour)))
	case 1:
		return -time.Duration(r.Int64N(int64(time.Hour)))
	case 2, 3, 4, 5, 6:
		return 0
	}
	return time.Duration(r.Int64N(one))
}

// TestNeverMoreThanTheRate counts what passes in any stretch of time.
func TestNeverMoreThanTheRate(t *testing.T) {
	c := Config{Requests: 3, Per: 7 * time.Millisecond, Burst: 5}
	table := NewTable(c, 1)
	r := rand.New(rand.NewPCG(1, 1))
	var passed []time.Duration
	var now time.Duration
	for range 20_000 {
		now += time.Duration(r.Int64N(int64(2 * time.Millisecond)))
		if table.Take(now, &Key{}).OK {
			passed = append(passed, now)
		}
	}
	for i := range passed {
		for j := i; j < min(i+50, len(passed)); j++ {
			// n in a time of d: n <= burst + d*requests/per.
			if n := int64(j - i + 1); (n-c.Burst)*int64(c.Per) > int64(passed[j]-passed[i])*c.Requests {
				t.Fatalf("%d passed in %s", n, passed[j]-passed[i])
			}
		}
	}
	if least := int64(now) * c.Requests / int64(c.Per) * 9 / 10; int64(len(passed)) < least {
		t.Errorf("%d passed, which is less than the rate would let pass (%d)", len(passed), least)
	}
}

func FuzzTake(f *testing.F) {
	f.Add(int64(3), int64(time.Second), int64(0), int64(0), int64(1), int64(1<<62))
	f.Add(int64(MaxCount), int64(MaxPer), int64(MaxCount), int64(-1<<63), int64(1<<63-1), int64(0))
	f.Add(int64(1), int64(MinPer), int64(1), int64(1<<63-1), int64(-1<<63), int64(5))
	f.Fuzz(func(t *testing.T, requests, per, burst, a, b, c int64) {
		cfg := Config{Requests: requests, Per: time.Duration(per), Burst: burst}
		bad := false
		cfg.Validate(func(string, string) { bad = true })
		if bad {
			return
		}
		table := NewTable(cfg, 1)
		m := newModel(cfg, time.Duration(a))
		for _, now := range []int64{a, b, b, c, a, c} {
			got, want := table.Take(time.Duration(now), &Key{}), m.take(time.Duration(now))
			if got != want {
				t.Fatalf("%+v at %d: %+v, the model says %+v", cfg, now, got, want)
			}
			if got.Remaining < 0 || got.Remaining >= cfg.Size() || got.Full < 0 || got.Wait < 0 || got.OK != (got.Wait == 0) {
				t.Fatalf("%+v at %d: %+v", cfg, now, got)
			}
		}
	})
}
