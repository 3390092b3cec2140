package ratelimit

// MaxShares is the most parts that a rate is divided into. With it no number in
// a bucket can overflow.
const MaxShares = 1_000_000

// Divide makes the table keep to one of so many equal shares of its rate, 1 to
// MaxShares; a number beyond is taken as the nearest. The rates of all shares
// make up the whole exactly; each share of the burst is rounded up to whole
// requests, so that together they are less than shares requests above it.
//
// A bucket stays as full as it was in proportion: when a share doubles, so does
// what is in it. A table that is new has full buckets, so that one that joins
// brings its share of the burst along.
func (t *Table) Divide(shares int) {
	n := int64(min(max(shares, 1), MaxShares))
	if t.rate.Load().shares == n {
		return
	}
	r := newRate(t.whole, n)
	t.rate.Store(&r)
}

// Shares returns into how many parts the rate is divided.
func (t *Table) Shares() int { return int(t.rate.Load().shares) }
