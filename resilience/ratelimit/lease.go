package ratelimit

import (
	"sync"
	"time"
)

// Leases are what one proxy knows of the buckets that somebody else keeps:
// requests that it has taken of them in advance, and until when a bucket is
// known to be empty. With them one question serves many requests. It is safe for
// concurrent use; the keys are bounded, the longest unused make room.
type Leases struct {
	size int64         // how many are taken at a time
	hold time.Duration // how long they may be kept
	max  int

	mu             sync.Mutex
	keys           map[Key]*lease
	newest, oldest *lease
}

// lease is what is known of one bucket.
type lease struct {
	key          Key
	left         int64         // that may pass without a question
	until        time.Duration // when they are given up
	remaining    int64         // in the bucket, as it was told
	full         time.Duration // when it is full
	empty        time.Duration // until then it has none
	asked        time.Duration // since when a question for a whole lease is under way
	asking       bool
	newer, older *lease
}

// Bounds of leases.
const (
	// MaxLease is the most requests that may be taken at a time.
	MaxLease = 10_000
	// maxHold is the longest that they are kept.
	maxHold = time.Second
	// maxEmpty bounds how long a bucket is taken to be empty without a question: it
	// may have been forgotten where it is kept.
	maxEmpty = time.Second
	// maxAsking is after what time the answer to a question is not waited for any more.
	maxAsking = 10 * time.Second
)

// NewLeases returns leases of size requests of rate c, for at most keys keys.
// Unused requests are given up in the time in which the bucket gets as many,
// at most a second.
func NewLeases(c Config, size, keys int) *Leases {
	l := &Leases{size: max(min(int64(size), c.Size(), MaxLease), 1), max: max(keys, 1), keys: map[Key]*lease{}}
	l.hold = min(time.Duration(float64(c.Per)/float64(c.Requests)*float64(l.size)), maxHold)
	return l
}

// Take decides about a request of key where that is possible without a question.
// Else ask is how many requests to ask for, and Told or Failed is owed.
func (l *Leases) Take(now time.Duration, key *Key) (d Decision, ask int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(key)
	switch {
	case e.left > 0 && now < e.until:
		e.left--
		return Decision{OK: true, Remaining: e.remaining + e.left, Full: max(e.full-now, 0)}, 0
	case now < e.empty:
		return Decision{Wait: e.empty - now, Full: max(e.full-now, 0)}, 0
	}
	e.left = 0
	if e.asking && now-e.asked < maxAsking && now >= e.asked {
		return d, 1 // another request asks for the lease
	}
	e.asking, e.asked = true, now
	return d, l.size
}

// Told takes the answer to a question for ask requests: granted of them were
// given, and d is what is left in the bucket then; Wait in it is when another one
// would be given. It returns what that is for the request that asked.
func (l *Leases) Told(now time.Duration, key *Key, ask, granted int64, d Decision) Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(key)
	if ask == l.size {
		e.asking = false
	}
	e.remaining, e.full = d.Remaining, now+d.Full
	e.empty = now + min(d.Wait, maxEmpty)
	if d.OK = granted > 0; !d.OK {
		return d
	}
	d.Wait = 0
	if granted > 1 {
		if now >= e.until {
			e.left = 0
		}
		e.left, e.until = e.left+granted-1, now+l.hold
	}
	d.Remaining += e.left
	return d
}

// Failed ends a question for ask requests that was not answered.
func (l *Leases) Failed(key *Key, ask int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.keys[*key]; e != nil && ask == l.size {
		e.asking = false
	}
}

// Len returns how many keys something is known of.
func (l *Leases) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.keys)
}

// find returns what is known of key, made if need be, as the newest.
func (l *Leases) find(key *Key) *lease {
	e := l.keys[*key]
	switch {
	case e == l.newest && e != nil:
		return e
	case e != nil:
		l.leave(e)
	case len(l.keys) >= l.max:
		e = l.oldest
		l.leave(e)
		delete(l.keys, e.key)
		*e = lease{}
		fallthrough
	default:
		if e == nil {
			e = &lease{}
		}
		e.key = *key
		l.keys[*key] = e
	}
	e.older, e.newer = l.newest, nil
	if l.newest != nil {
		l.newest.newer = e
	} else {
		l.oldest = e
	}
	l.newest = e
	return e
}

func (l *Leases) leave(e *lease) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		l.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		l.oldest = e.newer
	}
}
