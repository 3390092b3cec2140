package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// shareModel is one share of a bucket in fractions: what is missing is counted
// in whole buckets, which a change of the number of shares leaves as it is.
type shareModel struct {
	c       Config
	shares  int64
	missing *big.Rat // of requests, times the number of shares
	at      time.Duration
}

func (m *shareModel) size() int64 { return (m.c.Size() + m.shares - 1) / m.shares }

func (m *shareModel) take(now time.Duration) Decision {
	n := new(big.Rat).SetInt64(m.shares)
	speed := big.NewRat(m.c.Requests, int64(m.c.Per)) // of all shares
	if now > m.at {
		back := new(big.Rat).SetInt64(int64(now - m.at))
		m.missing.Sub(m.missing, back.Mul(back, speed))
		if m.missing.Sign() < 0 {
			m.missing.SetInt64(0)
		}
		m.at = now
	}
	size := new(big.Rat).Mul(new(big.Rat).SetInt64(m.size()), n)
	if m.missing.Cmp(size) > 0 {
		m.missing.Set(size)
	}
	until := func(missing *big.Rat) time.Duration {
		q := new(big.Rat).Sub(m.missing, missing)
		q.Quo(q, speed)
		d, rest := new(big.Int).QuoRem(q.Num(), q.Denom(), new(big.Int))
		if rest.Sign() > 0 {
			d.Add(d, big.NewInt(1))
		}
		return time.Duration(d.Int64())
	}
	var d Decision
	if last := new(big.Rat).Sub(size, n); m.missing.Cmp(last) <= 0 {
		d.OK = true
		m.missing.Add(m.missing, n)
	} else {
		d.Wait = until(last)
	}
	d.Full = until(new(big.Rat))
	left := new(big.Rat).Sub(size, m.missing)
	left.Quo(left, n)
	d.Remaining = new(big.Int).Quo(left.Num(), left.Denom()).Int64()
	return d
}

// TestDivideAgainstModel lets the number of shares change under random requests.
func TestDivideAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 9))
	for range 300 {
		c := randomConfig(r)
		table := NewTable(c, 1)
		now := time.Duration(r.Int64N(int64(time.Hour)))
		m := &shareModel{c: c, shares: 1, missing: new(big.Rat), at: now}
		for range 200 {
			if r.IntN(10) == 0 {
				m.shares = []int64{1, 2, 3, 7, 100, 12345, MaxShares}[r.IntN(7)]
				table.Divide(int(m.shares))
			}
			now += step(r, c) * time.Duration(1+r.Int64N(m.shares))
			if now < 0 {
				now = 0
			}
			if table.Len() == 0 {
				m.at = now // the bucket is made at its first request
			}
			if got, want := table.Take(now, &Key{}), m.take(now); got != want {
				t.Fatalf("%+v in %d shares at %d: %+v, the model says %+v", c, m.shares, now, got, want)
			}
		}
	}
}

// TestSharesMakeTheWhole counts what all shares let pass together, in any
// stretch of time: never more than the rate and the rounded bursts, and with
// enough requests at each the whole rate.
func TestSharesMakeTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	for _, c := range []Config{{Requests: 10, Per: time.Second}, {Requests: 1, Per: time.Second, Burst: 7}, {Requests: 1000, Per: time.Second, Burst: 3}} {
		for _, shares := range []int{1, 2, 3, 10, 33} {
			tables := make([]*Table, shares)
			for i := range tables {
				tables[i] = NewTable(c, 1)
				tables[i].Divide(shares)
			}
			burst := int64(shares) * ((c.Size() + int64(shares) - 1) / int64(shares))
			if burst >= c.Size()+int64(shares) {
				t.Fatalf("%+v: the bursts of %d shares make %d", c, shares, burst)
			}
			var passed []time.Duration
			var now time.Duration
			one := int64(c.Per) / c.Requests
			for range 3000 {
				now += time.Duration(r.Int64N(one/2 + 1))
				for _, table := range tables {
					if table.Take(now, &Key{}).OK {
						passed = append(passed, now)
					}
				}
			}
			for i := range passed {
				for j := i; j < min(i+60, len(passed)); j++ {
					if n := int64(j - i + 1); (n-burst)*int64(c.Per) > int64(passed[j]-passed[i])*c.Requests {
						t.Fatalf("%+v: %d shares let %d pass in %s", c, shares, n, passed[j]-passed[i])
					}
				}
			}
			if least := int64(now) * c.Requests / int64(c.Per) * 9 / 10; int64(len(passed)) < least {
				t.Errorf("%+v: %d shares let %d pass, the rate would be %d", c, shares, len(passed), least)
			}
		}
	}
}

// A bucket stays as full as it was in proportion.
func TestDivideKeepsProportion(t *testing.T) {
	table := NewTable(Config{Requests: 100, Per: time.Hour}, 1)
	for range 50 {
		table.Take(0, &Key{})
	}
	for _, c := range []struct {
		shares, left int
	}{{2, 25 - 1}, {1, 48 - 1}, {10, 4 - 1}, {0, 37 - 1}} {
		table.Divide(c.shares)
		if want := max(c.shares, 1); table.Shares() != want {
			t.Errorf("%d shares, want %d", table.Shares(), want)
		}
		if d := table.Take(0, &Key{}); d.Remaining != int64(c.left) {
			t.Errorf("in %d shares: %d left, want %d", c.shares, d.Remaining, c.left)
		}
	}
	table.Divide(MaxShares + 5)
	if table.Shares() != MaxShares {
		t.Errorf("%d shares", table.Shares())
	}
}
