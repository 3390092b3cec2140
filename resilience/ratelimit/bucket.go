package ratelimit

import "time"

// bucket is a token bucket that counts what is missing from it, so that its
// zero value is full. A request takes per nanoseconds, and each nanosecond
// gives back as many as there are requests in that time: so all of it is exact
// in whole numbers. This is the generic cell rate algorithm (ITU-T I.371) with
// the arrival time multiplied by the rate.
type bucket struct {
	debt int64         // what is missing; at most size*per
	at   time.Duration // when that was so
}

// settle gives back what has come since the bucket was last asked. A now
// before that counts as that moment: time does not go back.
func (b *bucket) settle(r *rate, now time.Duration) {
	if now > b.at {
		elapsed := int64(now - b.at)
		b.at = now
		// elapsed is beyond 0 also where the difference did not fit.
		if elapsed < 0 || elapsed > b.debt/r.requests {
			b.debt = 0
		} else {
			b.debt -= elapsed * r.requests
		}
	}
	// The size may have become smaller since; see Table.Divide.
	b.debt = min(b.debt, r.most)
}

// take takes one request out of the bucket if there is one.
func (b *bucket) take(r *rate, now time.Duration) (d Decision) {
	b.settle(r, now)
	if b.debt <= r.most-r.per {
		b.debt += r.per
		d.OK = true
	} else {
		d.Wait = up(b.debt-(r.most-r.per), r.requests)
	}
	d.Remaining = (r.most - b.debt) / r.per
	d.Full = up(b.debt, r.requests)
	return d
}

// fullAt is when the bucket will be full.
func (b *bucket) fullAt(r *rate) time.Duration {
	if at := b.at + up(b.debt, r.requests); at >= b.at {
		return at
	}
	return maxTime
}

const maxTime = time.Duration(1<<63 - 1)

// up is a/b, rounded up.
func up(a, b int64) time.Duration {
	n := a / b
	if a%b != 0 {
		n++
	}
	return time.Duration(n)
}

// rate is a share of a Config in the units of a bucket.
type rate struct {
	requests int64 // what a nanosecond gives back
	per      int64 // what a request takes
	most     int64 // what may be missing
	shares   int64
}

// newRate returns one of so many equal shares of c. A request takes the more
// the more shares there are, so that what is missing means the same part of a
// bucket whatever their number.
func newRate(c Config, shares int64) rate {
	per := int64(c.Per) * shares
	return rate{requests: c.Requests, per: per, most: (c.Size() + shares - 1) / shares * per, shares: shares}
}

// Decision is what a bucket says of a request.
type Decision struct {
	OK        bool
	Evicted   bool          // another key's bucket had to go
	Remaining int64         // requests that may still come at once
	Wait      time.Duration // until one would pass; 0 when this one does
	Full      time.Duration // until the bucket is full
}
