package mesh

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

const (
	turnWorkers = 6                     // connections on which those in turn are asked for
	turnDelay   = 50 * time.Millisecond // between news and its round: the agent's own memory follows
	turnAnyway  = time.Minute           // the time after which a query is asked without any news
	turnEcho    = time.Second           // from news to the second round for it
	turnLong    = 15 * time.Second      // the end of a round is not waited for longer
)

// lane is a number of alike queries. As long as they are few each waits at
// Consul for its own change. When they are more than may wait, they take turns:
// a few detectors wait. Where they notice whose health has changed, its queries
// are asked; where only that something has, each query is asked, without
// waiting, over a few connections.
type lane struct {
	client    *consul.Client
	most      int // how many may wait at a time
	detectors func() []detector
	workers   chan struct{}

	mu      sync.Mutex
	members int
	holding context.Context // ends when the queries begin to take turns; nil while they do
	end     context.CancelFunc
	round   chan struct{} // closed when a round begins
	asking  int           // members that have not been asked in this round
	over    chan struct{} // closed when all have
	mode    chan struct{} // capacity 1: holding has changed

	named   map[string]map[chan struct{}]bool // members, by the names of their instances' services
	missed  map[string]time.Time              // names in news that no member had
	pending map[string]bool                   // detectors without an answer; nil before they run
	primed  chan struct{}                     // closed when the first questions may be asked
}

func newLane(client *consul.Client, most int, detectors func() []detector) *lane {
	l := &lane{
		client: client, most: most, detectors: detectors,
		workers: make(chan struct{}, turnWorkers), round: make(chan struct{}), mode: make(chan struct{}, 1),
		named: map[string]map[chan struct{}]bool{}, missed: map[string]time.Time{}, primed: make(chan struct{}),
	}
	l.holding, l.end = context.WithCancel(context.Background())
	return l
}

// join counts one more query; the returned function takes it out again.
func (l *lane) join() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members++
	if l.members > l.most && l.holding != nil {
		l.end()
		l.holding = nil
		l.pending, l.primed = nil, make(chan struct{})
		l.changed()
	}
	return func() {
		l.asked() // nobody is to wait for it
		l.mu.Lock()
		defer l.mu.Unlock()
		l.members--
		// Not at the same number, so that one that comes and goes changes nothing.
		if l.holding == nil && l.members <= l.most*3/4 {
			l.holding, l.end = context.WithCancel(context.Background())
			l.begin()
			l.changed()
		}
	}
}

func (l *lane) changed() {
	signal(l.mode)
}

// begin begins a round. l.mu is held.
func (l *lane) begin() {
	close(l.round)
	l.round = make(chan struct{})
	l.asking, l.over = l.members, make(chan struct{})
	if l.asking == 0 {
		close(l.over)
	}
}

// asked counts a member that was asked in a round.
func (l *lane) asked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asking > 0 {
		if l.asking--; l.asking == 0 {
			close(l.over)
		}
	}
}

// now returns the context of queries that wait, nil while they take turns, and
// what is closed when the next round begins.
func (l *lane) now() (context.Context, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holding, l.round
}

// question is a query of a lane.
type question struct {
	query consul.Query
	// probe has a short answer whose index changes when that of query does;
	// its path is empty where there is none.
	probe consul.Query
	take  func(consul.Reply) (int, error)
	same  func(index uint64) // the probe's has not changed
	fail  func(error)
	names func() []string // of the services in the last answer; may be nil
}

// follow asks a question again and again until ctx ends.
func (l *lane) follow(ctx context.Context, q question) {
	defer l.join()()
	walk, probed, failed, first, woken := l.client.Walk(), uint64(0), false, true, false
	wake, turned := make(chan struct{}, 1), make(chan struct{})
	defer l.forget(wake)
	fail := func(err error) { failed = true; q.fail(err) }
	for ctx.Err() == nil {
		holding, round := l.now()
		if holding != nil {
			both, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(holding, cancel)
			probed = 0
			pause, early := walk.Step(both, q.query, q.take, fail)
			if pause > 0 {
				discovery.Sleep(both, pause, early)
			}
			stop()
			cancel()
			continue
		}
		if first {
			late := time.NewTimer(newsPrime)
			select {
			case <-ctx.Done():
			case <-l.unprimed():
			case <-late.C:
				l.overdue()
			}
			late.Stop()
		}
		select {
		case l.workers <- struct{}{}:
		case <-ctx.Done():
			return
		}
		failed = false
		pause, whole := time.Duration(0), first || woken
		// On a stack of its own, which asking and what it leads to make large:
		// there are thousands of members, and six of these.
		go func() {
			pause = l.turn(ctx, walk, q, &probed, whole, fail)
			turned <- struct{}{}
		}()
		<-turned
		first = false
		<-l.workers
		l.asked()
		if failed {
			probed = 0
			discovery.Sleep(ctx, pause, round)
			continue
		}
		if q.names != nil {
			l.learn(wake, q.names())
		}
		next := discovery.Jitter(turnAnyway, 0.2, rand.Uint64())
		if woken {
			next = turnEcho // another server may not have known yet
		}
		woken = false
		anyway := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-round:
		case <-wake:
			woken = true
		case <-anyway.C:
		}
		anyway.Stop()
	}
}

// turn asks once without waiting.
func (l *lane) turn(ctx context.Context, walk *consul.Walk, q question, probed *uint64, whole bool, fail func(error)) time.Duration {
	if q.probe.Path != "" && !whole {
		r, err := l.client.Ask(ctx, q.probe)
		switch {
		case err != nil:
			*probed = 0 // the query itself says why
		case r.Index != 0 && r.Index == *probed:
			q.same(r.Index)
			return 0
		}
	}
	walk.Again()
	pause, _ := walk.Step(ctx, q.query, func(r consul.Reply) (int, error) {
		n, err := q.take(r)
		if err == nil {
			*probed = r.Index // the probe's too, as long as nothing changes
		}
		return n, err
	}, fail)
	return pause
}

// run keeps the detectors going while the queries take turns, until ctx ends.
func (l *lane) run(ctx context.Context) {
	var each discovery.Each
	news := make(chan struct{}, 1)
	var wg sync.WaitGroup
	queries := map[string]detector{}
	var mu sync.Mutex
	wg.Go(func() {
		each.Run(ctx, nil, func(ctx context.Context, key string) {
			mu.Lock()
			d := queries[key]
			mu.Unlock()
			l.detect(ctx, d, news)
		})
	})
	wg.Go(func() { l.rounds(ctx, news) })
	for ctx.Err() == nil {
		var keys []string
		if holding, _ := l.now(); holding == nil {
			mu.Lock()
			for _, d := range l.detectors() {
				queries[d.key()] = d
				keys = append(keys, d.key())
			}
			mu.Unlock()
			l.expect(keys)
		}
		each.Set(keys)
		select {
		case <-ctx.Done():
		case <-l.mode:
		}
	}
	wg.Wait()
}

// detect tells news when a query has another answer that may be about all.
func (l *lane) detect(ctx context.Context, d detector, news chan<- struct{}) {
	walk, last, bad, key := l.client.Walk(), uint64(0), failing{}, d.key()
	for ctx.Err() == nil {
		pause, early := walk.Step(ctx, d.query, func(r consul.Reply) (size int, err error) {
			all, names := r.Index != last, map[string]bool(nil)
			if d.checks {
				if names, all, size, err = bad.take(r); err != nil {
					return 0, err
				}
			}
			// What is asked after the first answer cannot have missed anything.
			begins := last == 0 && l.heard(key)
			last = r.Index
			if !begins && (all || !l.wake(names)) {
				signal(news)
			}
			return size, nil
		}, func(error) {
			last, bad = 0, failing{}
			l.overdue()
		})
		if pause > 0 {
			discovery.Sleep(ctx, pause, early)
		}
	}
}

// rounds begins a round when there is news, and waits for its end and a while.
// After the last one comes another, for what the agent itself had not heard yet.
func (l *lane) rounds(ctx context.Context, news <-chan struct{}) {
	echo, pace := time.NewTimer(0), pace{}
	echo.Stop()
	defer echo.Stop()
	epoch := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
			if !discovery.Sleep(ctx, turnDelay, nil) {
				return
			}
			echo.Reset(turnEcho)
		case <-echo.C:
		}
		began := time.Now()
		l.mu.Lock()
		l.begin()
		over := l.over
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-over:
		case <-time.After(turnLong):
		}
		now := time.Now()
		discovery.Sleep(ctx, pace.rest(now.Sub(epoch), now.Sub(began)), nil)
	}
}
