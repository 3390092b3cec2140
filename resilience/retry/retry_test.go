package retry

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

func TestValidate(t *testing.T) {
	set := func(change func(*Config)) Config {
		c := Default()
		change(&c)
		return c
	}
	tests := []struct {
		name string
		cfg  Config
		want []string
	}{
		{"default", Default(), nil},
		{"zero", Config{}, []string{"attempts"}},
		{"observe", set(func(c *Config) { c.Mode = guard.Observe }), nil},
		{"mode", set(func(c *Config) { c.Mode = guard.Observe + 1 }), []string{"mode"}},
		{"attempts", set(func(c *Config) { c.Attempts = 11 }), []string{"attempts"}},
		{"twice", set(func(c *Config) { c.On = []Condition{Reset, Unavailable, Reset} }), []string{"on[2]"}},
		{"no condition", set(func(c *Config) { c.On = []Condition{NoCondition, 99} }), []string{"on[0]", "on[1]"}},
		{"negative", set(func(c *Config) {
			c.PerTryTimeout, c.BackoffBase, c.BackoffMax, c.MaxBodyBytes, c.RetryAfterMax = -1, -1, -2, -1, -1
		}), []string{"per_try_timeout", "backoff_base", "backoff_max", "max_body_bytes", "retry_after_max"}},
		{"max below base", set(func(c *Config) { c.BackoffBase = time.Second }), []string{"backoff_max"}},
		{"not a number", set(func(c *Config) { c.BudgetPercent, c.BudgetMinPerSecond = math.NaN(), math.NaN() }), []string{"budget_percent", "budget_min_per_second"}},
		{"budget", set(func(c *Config) { c.BudgetPercent, c.BudgetMinPerSecond = 1001, -1 }), []string{"budget_percent", "budget_min_per_second"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			tt.cfg.Validate(func(field, problem string) {
				if problem == "" {
					t.Errorf("%s: no problem given", field)
				}
				got = append(got, field)
			})
			if !slices.Equal(got, tt.want) {
				t.Errorf("mistakes in %v, want %v", got, tt.want)
			}
		})
	}
}

func TestConditionText(t *testing.T) {
	for _, word := range []string{"connect_failure", "reset", "unavailable", "stale_connection", "server_error"} {
		var c Condition
		if err := c.UnmarshalText([]byte(word)); err != nil {
			t.Errorf("%s: %v", word, err)
		}
		if b, err := c.MarshalText(); err != nil || string(b) != word {
			t.Errorf("%s comes back as %s, %v", word, b, err)
		}
	}
	for _, word := range []string{"", "none", "unknown", "Reset", "5xx"} {
		c := Reset
		err := c.UnmarshalText([]byte(word))
		if err == nil || !strings.Contains(err.Error(), conditionList) || c != Reset {
			t.Errorf("%q: %v, condition %s; want an error that lists the conditions", word, err, c)
		}
	}
}

func TestNames(t *testing.T) {
	var words []string
	for _, w := range Whys() {
		b, _ := w.MarshalText()
		words = append(words, string(b))
	}
	words = append(words, whyCount.String(), NoCondition.String(), conditionCount.String(),
		Never.String(), IfUnsent.String(), IfIdempotent.String(), Class(9).String())
	want := "again attempts_spent not_retryable not_idempotent body_not_kept budget_spent deadline_too_near " +
		"not_configured retry_after_too_long pushed_back caller_retries observed unknown none unknown never if_unsent if_idempotent unknown"
	if got := strings.Join(words, " "); got != want {
		t.Errorf("names %s\nwant %s", got, want)
	}
}

// TestBackoffBounds checks the bound of the wait against plain arithmetic and
// that the wait covers all of it.
func TestBackoffBounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		c := Config{BackoffBase: time.Duration(rnd.Int64N(1e9)), BackoffMax: time.Duration(rnd.Int64N(1e11))}
		n := 1 + rnd.IntN(100)
		bound := min(float64(c.BackoffBase)*math.Pow(2, float64(n-1)), float64(c.BackoffMax))
		for _, r := range []uint64{0, rnd.Uint64(), math.MaxUint64} {
			got, want := c.backoff(n, r), bound*float64(r)/math.MaxUint64
			if math.Abs(float64(got)-want) > 2 || float64(got) >= bound && bound > 0 {
				t.Fatalf("%+v attempt %d, r %x: %d, want %g below %g", c, n, r, got, want, bound)
			}
		}
	}
	for _, n := range []int{math.MinInt, -1, 0, 64, math.MaxInt} {
		c := Default()
		if got := c.backoff(n, math.MaxUint64); got < 0 || got >= c.BackoffMax {
			t.Errorf("attempt %d waits %s", n, got)
		}
	}
}

func TestDecideAtTheLimits(t *testing.T) {
	c := Default()
	c.RetryAfterMax = math.MaxInt64
	q := Question{Attempt: 1, Retryable: IfIdempotent, Status: 503, Idempotent: true, BodyReplayable: true}
	q.RetryAfter = math.MaxInt64
	if d := c.Decide(q, nil, 0, math.MaxUint64); !d.Again || d.Wait != math.MaxInt64 {
		t.Errorf("%+v, want the longest wait", d)
	}
	for _, left := range []time.Duration{math.MinInt64, -1, 1, math.MaxInt64} {
		q.Deadline = left
		if d := c.Decide(q, nil, 0, math.MaxUint64); d.Why != DeadlineTooNear || d.Wait != 0 {
			t.Errorf("%d left: %+v", left, d)
		}
	}
	var zero Config
	if d := zero.Decide(Question{Retryable: IfUnsent, BodyReplayable: true}, nil, 0, 0); d.Again || d.Why != NotConfigured {
		t.Errorf("the zero Config: %+v", d)
	}
	if NewBudget(c).Decisions(200) != 0 {
		t.Error("an unknown reason has a count")
	}
}

// TestBudgetAgainstModel compares the budget with lists of every deposit and
// withdrawal, counted anew in whole numbers for each question.
func TestBudgetAgainstModel(t *testing.T) {
	given, refused := 0, 0
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		percent, floor := rnd.IntN(120), rnd.IntN(3)
		cfg := Config{BudgetPercent: float64(percent), BudgetMinPerSecond: float64(floor)}
		b := NewBudget(cfg)
		var deposits, withdrawals []time.Duration
		now := time.Duration(rnd.Int64N(int64(time.Hour)))
		recent := func(list []time.Duration) (n int) {
			for _, at := range list {
				if now/time.Second-at/time.Second < 10 {
					n++
				}
			}
			return n
		}
		for step := range 1000 {
			switch op := rnd.IntN(10); {
			case op < 5:
				b.Deposit(now)
				deposits = append(deposits, now)
			case op < 8:
				// 100 times the balance, exactly.
				balance := max(percent*recent(deposits), floor*1000) - 100*recent(withdrawals)
				if got := b.Balance(now); math.Abs(got-float64(balance)/100) > 1e-6 {
					t.Fatalf("seed %d step %d: balance %g, want %g", seed, step, got, float64(balance)/100)
				}
				want := balance >= 100
				if got := b.Withdraw(now); got != want {
					t.Fatalf("seed %d step %d: Withdraw %t, want %t at balance %d/100", seed, step, got, want, balance)
				}
				if want {
					given++
					withdrawals = append(withdrawals, now)
				} else {
					refused++
				}
			case op == 8:
				now += time.Duration(rnd.Int64N(int64(time.Second)))
			case rnd.IntN(20) == 0:
				now += time.Duration(rnd.Int64N(int64(40 * time.Second)))
			}
		}
	}
	if given < 1000 || refused < 1000 {
		t.Errorf("%d given, %d refused; the test shows little", given, refused)
	}
}

func TestBudgetAtTheLimits(t *testing.T) {
	b := NewBudget(Config{BudgetPercent: 100})
	b.deposits[5].Store(5<<32 | countMask)
	b.withdrawn[5].Store(5<<32 | countFull)
	b.Deposit(5 * time.Second)
	if got := b.deposits[5].Load(); got != 5<<32|countMask {
		t.Errorf("deposits %x, want them to stay at their limit", got)
	}
	if b.Balance(5*time.Second) <= 0 || b.Withdraw(5*time.Second) {
		t.Error("a withdrawal beyond what a slot can count")
	}
	if !NewBudget(Default()).Withdraw(math.MaxInt64) {
		t.Error("nothing at the end of time")
	}

	// A late reading counts in the newer slot and sees what others took.
	b = NewBudget(Config{BudgetMinPerSecond: 0.2})
	if !b.Withdraw(25*time.Second) || !b.Withdraw(15*time.Second) || b.Withdraw(14*time.Second) || b.Withdraw(25*time.Second) {
		t.Error("late readings are given more than there is")
	}
	// A negative time is the first second; a number of seconds that wraps goes on.
	b = NewBudget(Config{BudgetMinPerSecond: 0.1})
	if !b.Withdraw(-time.Hour) || b.Withdraw(0) {
		t.Error("a negative time is not the first second")
	}
	b = NewBudget(Config{BudgetMinPerSecond: 0.1})
	wrap := time.Duration(1<<32-1) * time.Second
	if !b.Withdraw(wrap) || b.Withdraw(wrap+time.Second) || !b.Withdraw(wrap+10*time.Second) {
		t.Error("the horizon does not pass the wrap of the seconds")
	}
	for _, cfg := range []Config{{}, {BudgetPercent: -5, BudgetMinPerSecond: math.NaN()}} {
		b = NewBudget(cfg)
		b.Deposit(0)
		if b.Withdraw(0) || b.Balance(0) != 0 {
			t.Errorf("%+v gives retries", cfg)
		}
	}
}

// TestBudgetConcurrent checks that no retry is given out twice.
func TestBudgetConcurrent(t *testing.T) {
	const workers, each = 8, 2000
	b := NewBudget(Config{BudgetPercent: 25})
	cfg := Default()
	var given atomic.Int64
	var wg sync.WaitGroup
	q := Question{Attempt: 1, Retryable: IfUnsent, BodyReplayable: true}
	for range workers {
		wg.Go(func() {
			for i := range each {
				b.Deposit(time.Duration(i) * time.Millisecond)
				if cfg.Decide(q, b, time.Duration(i)*time.Millisecond, 1).Again {
					given.Add(1)
				}
			}
		})
	}
	wg.Wait()
	const all = workers * each / 4
	for b.Withdraw(2 * time.Second) {
		given.Add(1)
	}
	if given.Load() != all {
		t.Errorf("%d given, want %d", given.Load(), all)
	}
	if got := b.Decisions(Again) + b.Decisions(BudgetSpent); got != workers*each {
		t.Errorf("%d decisions counted, want %d", got, workers*each)
	}
}

func TestDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are counted without -race")
	}
	c, wall, now := Default(), time.Unix(0, 0), time.Duration(0)
	b := NewBudget(c)
	q := Question{Attempt: 1, Retryable: IfIdempotent, Status: 503, Idempotent: true, BodyReplayable: true, Deadline: time.Second}
	after := []byte(" 120 ")
	for name, f := range map[string]func(){
		"Decide":          func() { c.Decide(q, b, now, 5) },
		"Deposit":         func() { now += 10 * time.Millisecond; b.Deposit(now) },
		"Withdraw":        func() { now += 10 * time.Millisecond; b.Withdraw(now) },
		"Balance":         func() { b.Balance(now) },
		"ParseRetryAfter": func() { ParseRetryAfter(after, wall) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDeposit(b *testing.B) {
	budget := NewBudget(Default())
	b.ReportAllocs()
	for i := range b.N {
		budget.Deposit(time.Duration(i) * time.Microsecond)
	}
}

func BenchmarkDecide(b *testing.B) {
	c := Default()
	budget := NewBudget(c)
	q := Question{Attempt: 1, Retryable: IfUnsent, BodyReplayable: true}
	b.ReportAllocs()
	for i := range b.N {
		c.Decide(q, budget, time.Duration(i)*time.Millisecond, 5)
	}
}
