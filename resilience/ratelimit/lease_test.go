package ratelimit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// keeper is who keeps the bucket that proxies take leases of.
type keeper struct {
	table *Table
}

// take gives as many as there are, up to want.
func (k *keeper) take(now time.Duration, key *Key, want int64) (granted int64, d Decision) {
	for granted < want {
		one := k.table.Take(now, key)
		if !one.OK {
			return granted, one
		}
		granted, d = granted+1, one
	}
	return granted, d
}

// ask does for a proxy what a request of key asks for.
func ask(l *Leases, k *keeper, now time.Duration, key *Key) (d Decision, asked bool) {
	d, want := l.Take(now, key)
	if want == 0 {
		return d, false
	}
	granted, d := k.take(now, key, want)
	return l.Told(now, key, want, granted, d), true
}

// TestLeasesKeepTheRate has several proxies share buckets by leases of several
// sizes: in any stretch of time no more pass than the rate, the burst, and
// what each proxy may hold; and with enough requests nearly the whole rate does.
// Without leases it is exact.
func TestLeasesKeepTheRate(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 3))
	c := Config{Requests: 200, Per: time.Second, Burst: 50}
	for _, size := range []int{1, 2, 10, 50} {
		for _, proxies := range []int{1, 3, 8} {
			k := &keeper{NewTable(c, 10)}
			list := make([]*Leases, proxies)
			for i := range list {
				list[i] = NewLeases(c, size, 10)
			}
			var now time.Duration
			var passed []time.Duration
			questions, requests := 0, 0
			for range 20_000 {
				now += time.Duration(r.Int64N(int64(2 * time.Millisecond)))
				d, asked := ask(list[r.IntN(proxies)], k, now, &Key{})
				requests++
				if asked {
					questions++
				}
				if d.OK {
					passed = append(passed, now)
				} else if d.Wait <= 0 {
					t.Fatalf("refused without a time to wait: %+v", d)
				}
			}
			burst := c.Burst + int64(proxies*(size-1))
			for i := 0; i < len(passed); i += 7 {
				for j := i; j < min(i+400, len(passed)); j++ {
					if n := int64(j - i + 1); (n-burst)*int64(c.Per) > int64(passed[j]-passed[i])*c.Requests {
						t.Fatalf("leases of %d, %d proxies: %d passed in %s", size, proxies, n, passed[j]-passed[i])
					}
				}
			}
			if least := int64(now) * c.Requests / int64(c.Per) * 8 / 10; int64(len(passed)) < least {
				t.Errorf("leases of %d, %d proxies: %d passed, the rate is %d", size, proxies, len(passed), least)
			}
			if questions >= requests {
				t.Errorf("leases of %d: %d questions for %d requests", size, questions, requests)
			}
			if size >= 10 && proxies == 1 && questions > requests/4 {
				t.Errorf("leases of %d: %d questions for %d requests", size, questions, requests)
			}
		}
	}
}

// Leases of one are the bucket itself: the same requests pass.
func TestLeaseOfOneIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	c := Config{Requests: 7, Per: 100 * time.Millisecond, Burst: 3}
	k, plain, l := &keeper{NewTable(c, 1)}, NewTable(c, 1), NewLeases(c, 1, 1)
	var now time.Duration
	for range 20_000 {
		now += time.Duration(r.Int64N(int64(20 * time.Millisecond)))
		got, _ := ask(l, k, now, &Key{})
		if want := plain.Take(now, &Key{}); got.OK != want.OK || got.Wait != want.Wait || got.OK && got.Remaining != want.Remaining {
			t.Fatalf("at %s: %+v, the bucket says %+v", now, got, want)
		}
	}
}

// One asks for the lease; those who come meanwhile ask for themselves, and
// nobody waits for ever for one whose answer does not come.
func TestLeaseQuestions(t *testing.T) {
	c := Config{Requests: 100, Per: time.Second}
	l := NewLeases(c, 10, 5)
	want := func(at time.Duration, n int64) {
		t.Helper()
		if _, ask := l.Take(at, &Key{}); ask != n {
			t.Errorf("at %s %d are asked for, want %d", at, ask, n)
		}
	}
	want(0, 10)
	want(0, 1)
	l.Told(1, &Key{}, 1, 1, Decision{OK: true})
	want(1, 1)
	l.Failed(&Key{}, 1)
	want(2, 1)
	l.Failed(&Key{}, 10)
	want(3, 10)
	want(maxAsking+3, 10)
	if d := l.Told(maxAsking+4, &Key{}, 10, 10, Decision{OK: true, Remaining: 90}); !d.OK || d.Remaining != 99 {
		t.Errorf("%+v", d)
	}
	for i := range int64(9) {
		if d, ask := l.Take(maxAsking+5, &Key{}); !d.OK || ask != 0 || d.Remaining != 98-i {
			t.Errorf("of the lease: %+v, %d", d, ask)
		}
	}
	want(maxAsking+6, 10)
	l.Told(maxAsking+6, &Key{}, 10, 10, Decision{OK: true})
	want(maxAsking+6+100*time.Millisecond, 10) // the lease has been held too long
	l.Told(maxAsking+time.Second, &Key{}, 10, 0, Decision{Wait: time.Hour})
	want(maxAsking+time.Second+maxEmpty-1, 0)
	want(maxAsking+time.Second+maxEmpty, 10)
}

// The keys are bounded, and those in use stay.
func TestLeaseKeys(t *testing.T) {
	l := NewLeases(Config{Requests: 10, Per: time.Second}, 2, 100)
	for i := range 10_000 {
		for _, k := range []*Key{key("kept"), key("%d", i)} {
			if d, ask := l.Take(0, k); ask > 0 {
				l.Told(0, k, ask, ask, Decision{OK: true})
			} else if !d.OK {
				t.Fatalf("%+v", d)
			}
		}
		if l.Len() > 100 {
			t.Fatalf("%d keys", l.Len())
		}
	}
	n, older := 0, (*lease)(nil)
	for e := l.oldest; e != nil; e = e.newer {
		if e.older != older || l.keys[e.key] != e {
			t.Fatal("the order is broken")
		}
		older, n = e, n+1
	}
	if n != l.Len() || older != l.newest || l.keys[*key("kept")] == nil {
		t.Errorf("%d keys in order, %d known", n, l.Len())
	}
}
