package retry

import (
	"math"
	"sync/atomic"
	"time"
)

// horizon is how many seconds a Budget looks back. It moves in whole seconds,
// so between 9 and 10 seconds count.
const horizon = 10

// A slot of a ring is one word: the number of its second (32 bits) and the
// count (32 bits). A slot of a second outside the horizon is empty, so nobody
// has to clear it.
type ring [horizon]atomic.Uint64

const (
	countMask = math.MaxUint32
	// countFull is where counting stops; the headroom above it is for
	// goroutines that add at the same moment.
	countFull = countMask - 1<<20
	// lateSeconds is how far behind the newest second a caller's clock
	// reading may be and still be counted in the newer slot.
	lateSeconds = 1 << 20
)

// Budget is how many retries one destination may still have: in any horizon
// of 10 s, BudgetPercent of the first attempts, and never less than
// BudgetMinPerSecond times 10. All requests to the destination share it, so
// that retries cannot multiply its load when it is failing. Lock free. Times
// are since one arbitrary moment.
type Budget struct {
	limits    atomic.Pointer[limits]
	deposits  ring
	withdrawn ring
	decisions [whyCount]atomic.Uint64
}

type limits struct {
	ratio float64 // retries for each first attempt
	floor float64 // retries in one horizon however few the first attempts are
}

// NewBudget returns a full budget.
func NewBudget(cfg Config) *Budget {
	b := &Budget{}
	b.SetConfig(cfg)
	return b
}

// SetConfig changes the share and the floor; what was deposited and withdrawn stays.
func (b *Budget) SetConfig(cfg Config) {
	b.limits.Store(&limits{ratio: positive(cfg.BudgetPercent) / 100, floor: positive(cfg.BudgetMinPerSecond) * horizon})
}

// positive is 0 for negative numbers and NaN.
func positive(x float64) float64 {
	if x > 0 {
		return x
	}
	return 0
}

// Deposit counts a first attempt.
func (b *Budget) Deposit(now time.Duration) {
	second := secondAt(now)
	slot := &b.deposits[second%horizon]
	for {
		v := slot.Load()
		next, fresh := counted(v, second)
		if fresh {
			if slot.CompareAndSwap(v, next) {
				return
			}
			continue
		}
		if v&countMask < countFull {
			slot.Add(1)
		}
		return
	}
}

// Withdraw takes one retry and reports whether there was one.
func (b *Budget) Withdraw(now time.Duration) bool {
	second := secondAt(now)
	slot := &b.withdrawn[second%horizon]
	for {
		v := slot.Load()
		// Read after the slot: another withdrawal of this second in between
		// makes the swap fail, so that the last retry is given out once.
		if b.balance(second) < 1-rounding {
			return false
		}
		if v&countMask >= countFull {
			return false
		}
		next, _ := counted(v, second)
		if slot.CompareAndSwap(v, next) {
			return true
		}
	}
}

// rounding is above what the sums of floating-point shares lose.
const rounding = 1e-6

// Balance returns how many retries are left now. It is negative when deposits
// left the horizon before the withdrawals they had allowed.
func (b *Budget) Balance(now time.Duration) float64 { return b.balance(secondAt(now)) }

func (b *Budget) balance(second uint32) float64 {
	l := b.limits.Load()
	withdrawn := float64(b.withdrawn.sum(second))
	return max(l.ratio*float64(b.deposits.sum(second)), l.floor) - withdrawn
}

// Decisions returns how many times Decide answered with why.
func (b *Budget) Decisions(why Why) uint64 {
	if why >= whyCount {
		return 0
	}
	return b.decisions[why].Load()
}

func secondAt(now time.Duration) uint32 { return uint32(max(now, 0) / time.Second) }

// counted returns slot value v with one more counted for second, and whether
// that begins the slot anew.
func counted(v uint64, second uint32) (next uint64, fresh bool) {
	ahead := uint32(v>>32) - second
	if ahead == 0 || ahead < lateSeconds && v&countMask != 0 {
		return v + 1, false
	}
	return uint64(second)<<32 | 1, true
}

// sum counts the slots within the horizon, and those of seconds that others
// have seen already while the caller's clock reading is late.
func (r *ring) sum(second uint32) (n uint64) {
	for i := range r {
		v := r[i].Load()
		if at := uint32(v >> 32); second-at < horizon || at-second < lateSeconds {
			n += v & countMask
		}
	}
	return n
}
