package hedge

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// happening is something on the virtual clock.
type happening struct {
	at time.Duration
	do func(now time.Duration)
}

type agenda []happening

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at < a[j].at }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(happening)) }
func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// tail sends requests over a virtual clock to endpoints of which any is a hundred
// times slower than usual for one request in a hundred, and returns the latencies
// in order, and how many attempts were made and called off.
func tail(c *Config, requests int) (took []time.Duration, attempts, calledOff int) {
	rnd := rand.New(rand.NewPCG(3, 4))
	service := func() time.Duration {
		d := 5*time.Millisecond + time.Duration(rnd.Int64N(int64(10*time.Millisecond)))
		if rnd.IntN(100) == 0 {
			d *= 100
		}
		return d
	}
	var todo agenda
	after := func(at time.Duration, do func(time.Duration)) { heap.Push(&todo, happening{at, do}) }
	var lat Latencies
	budget := retry.NewBudget(retry.Default())
	for i := range requests {
		after(time.Duration(i)*time.Millisecond, func(start time.Duration) {
			budget.Deposit(start)
			attempts++
			out, done := 1, false
			answered := func(now time.Duration, first bool) {
				out--
				if done {
					return
				}
				done = true
				calledOff += out
				took = append(took, now-start)
				if first || out > 0 {
					lat.All.Observe(now, now-start) // the first one's, or the least that it takes
				}
			}
			after(start+service(), func(now time.Duration) { answered(now, true) })
			if c == nil {
				return
			}
			wait, ok := c.Wait(start, &lat.All)
			if !ok {
				return
			}
			after(start+wait, func(now time.Duration) {
				if done || c.Decide(Question{Attempts: 1, Others: 1}, budget, now) != Started {
					return
				}
				attempts++
				out++
				after(now+service(), func(now time.Duration) { answered(now, false) })
			})
		})
	}
	for todo.Len() > 0 {
		h := heap.Pop(&todo).(happening)
		h.do(h.at)
	}
	slices.Sort(took)
	return took, attempts, calledOff
}

// TestTail is the known result (Dean and Barroso, The Tail at Scale): where one
// answer in a hundred takes a hundred times as long, a second attempt at the
// measured p95 takes the tail away for some 5 % more requests.
func TestTail(t *testing.T) {
	requests := 100_000
	if raceEnabled {
		requests = 10_000 // which the race detector makes long enough
	}
	without, _, _ := tail(nil, requests)
	c := Default()
	with, attempts, calledOff := tail(&c, requests)
	if len(with) != requests || len(without) != requests {
		t.Fatalf("%d and %d of %d were answered", len(with), len(without), requests)
	}
	p999 := func(l []time.Duration) time.Duration { return l[len(l)*999/1000] }
	extra := float64(attempts-requests) / float64(requests)
	t.Logf("p99.9 falls from %v to %v for %.1f %% more attempts, %d called off", p999(without), p999(with), 100*extra, calledOff)
	if p999(with)*10 > p999(without) {
		t.Errorf("p99.9 is %v, without hedging %v", p999(with), p999(without))
	}
	if extra > 0.06 || extra < 0.005 {
		t.Errorf("%.2f %% more attempts", 100*extra)
	}
	if calledOff != attempts-requests {
		t.Errorf("%d attempts were called off of %d that were one too many", calledOff, attempts-requests)
	}
}

// TestTailOfLoad: where everything becomes slow, the budget bounds what hedging
// adds to it, and what is slow for all is soon taken for normal.
func TestTailOfLoad(t *testing.T) {
	c := Default()
	var lat Latencies
	b := retry.NewBudget(retry.Config{BudgetPercent: 10})
	started, sent := 0, 0
	for i := range 60_000 {
		now := time.Duration(i) * time.Millisecond
		d := 10 * time.Millisecond
		if now > 30*time.Second {
			d = time.Second
		}
		b.Deposit(now)
		sent++
		if wait, ok := c.Wait(now, &lat.All); ok && wait < d && c.Decide(Question{Attempts: 1, Others: 1}, b, now) == Started {
			started++
		}
		lat.All.Observe(now, d)
	}
	if started == 0 || float64(started) > 0.1*float64(sent) {
		t.Errorf("%d of %d were hedged", started, sent)
	}
}
