package exchange_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// queued sets a limit of so many active requests, and a queue behind it.
func queued(most int64, change func(*queue.Config)) func(*setup) {
	return func(s *setup) {
		q := queue.Default()
		q.MaxWait, q.Target, q.Order = patience, 0, queue.FIFO
		if change != nil {
			change(&q)
		}
		s.policy.Limits.MaxRequests, s.policy.Limits.Queue = most, &q
	}
}

// held is an origin whose answers wait until they are let go, and which counts
// how many requests it has at a time.
type held struct {
	free      chan struct{}
	now, most atomic.Int64
}

func newHeld() *held { return &held{free: make(chan struct{}, 100)} }

func (h *held) serve(w http.ResponseWriter, r *http.Request) {
	n := h.now.Add(1)
	for m := h.most.Load(); n > m && !h.most.CompareAndSwap(m, n); m = h.most.Load() {
	}
	select {
	case <-h.free:
	case <-r.Context().Done():
	}
	h.now.Add(-1)
	_, _ = io.WriteString(w, r.URL.Path)
}

// answers collects what becomes of requests that are under way.
type answers struct {
	wg sync.WaitGroup
	mu sync.Mutex
	ok []string
}

func (a *answers) ask(t *testing.T, p *pair, path string) {
	a.wg.Go(func() {
		res, got := p.must(t, "GET", path, nil)
		a.mu.Lock()
		defer a.mu.Unlock()
		if res.StatusCode == 200 {
			a.ok = append(a.ok, got)
		}
	})
}

func waiting(t *testing.T, b *bed, n int64) {
	t.Helper()
	eventually(t, "waiting", func() bool { return b.cluster.Gate.Waiting() == n })
}

// Requests beyond the limit wait and are answered in turn, in every combination
// of protocols; the endpoint never has more than the limit.
func TestRequestsWaitForTheirTurn(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			h := newHeld()
			p := newPair(t, l, queued(2, nil), h.serve, nil)
			var a answers
			for _, path := range []string{"/1", "/2", "/3", "/4", "/5"} {
				a.ask(t, p, path)
			}
			waiting(t, p.bed, 3)
			eventually(t, "two at the endpoint", func() bool { return h.now.Load() == 2 })
			for range 5 {
				h.free <- struct{}{}
			}
			a.wg.Wait()
			if len(a.ok) != 5 || h.most.Load() != 2 {
				t.Errorf("answered %q, %d at a time", a.ok, h.most.Load())
			}
			p.wantReasons("ok", "ok", "ok", "ok", "ok")
		})
	}
}

// One who has no room to wait, or waits too long, is told to come again, and the
// endpoint hears nothing of it.
func TestNoTurn(t *testing.T) {
	for _, l := range allLegs {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			h := newHeld()
			p := newPair(t, l, queued(1, func(q *queue.Config) { q.Size, q.MaxWait = 1, 300*time.Millisecond }), h.serve, nil)
			var a answers
			a.ask(t, p, "/first")
			eventually(t, "an answer that is waited for", func() bool { return h.now.Load() == 1 })
			var wg sync.WaitGroup
			wg.Go(func() {
				res, got := p.must(t, "POST", "/second", strings.NewReader("body"))
				if res.StatusCode != 503 || res.Header.Get("x-outrigger-reason") != "queue_timeout" || res.Header.Get("retry-after") != "1" || !strings.Contains(got, "max_wait") {
					t.Errorf("%d, %v: %s", res.StatusCode, res.Header, got)
				}
			})
			waiting(t, p.bed, 1)
			res, got := p.must(t, "GET", "/third", nil)
			if res.StatusCode != 503 || res.Header.Get("x-outrigger-reason") != "limit_requests" || res.Header.Get("retry-after") != "1" || !strings.Contains(got, "queue was full") {
				t.Errorf("%d, %v: %s", res.StatusCode, res.Header, got)
			}
			wg.Wait()
			h.free <- struct{}{}
			a.wg.Wait()
			if n := p.heads.Load(); n != 1 {
				t.Errorf("the endpoint was asked %d times", n)
			}
			for _, r := range p.wantReasons("ok", "limit_requests", "queue_timeout") {
				if r.Reason != "ok" && r.Attempts != 0 {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// The deadline of the exchange counts while it waits.
func TestDeadlineWhileWaiting(t *testing.T) {
	h := newHeld()
	p := newPair(t, legs{true, true}, queued(1, nil), h.serve, nil)
	var a answers
	a.ask(t, p, "/first")
	eventually(t, "an answer that is waited for", func() bool { return h.now.Load() == 1 })
	res, err := p.ask(t, "GET", "/late", nil, "x-outrigger-deadline", "50")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 504 || res.Header.Get("x-outrigger-reason") != "request_timeout" || res.Header.Get("retry-after") != "" {
		t.Errorf("%d, %v", res.StatusCode, res.Header)
	}
	h.free <- struct{}{}
	a.wg.Wait()
	p.wantReasons("ok", "request_timeout")
}

// Who leaves while waiting costs the endpoint nothing.
func TestCallerLeavesTheQueue(t *testing.T) {
	for _, l := range []legs{{true, false}, {false, false}} {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			h := newHeld()
			p := newPair(t, l, queued(1, nil), h.serve, nil)
			var a answers
			a.ask(t, p, "/first")
			eventually(t, "an answer that is waited for", func() bool { return h.now.Load() == 1 })
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+p.ln.Addr().String()+"/gone", nil)
				if res, err := p.client.Do(req); err == nil {
					_ = res.Body.Close()
					t.Errorf("an answer: %d", res.StatusCode)
				}
			})
			waiting(t, p.bed, 1)
			cancel()
			wg.Wait()
			if l.down { // an HTTP/1.1 connection is looked at when its turn has come
				waiting(t, p.bed, 0)
			}
			h.free <- struct{}{}
			a.wg.Wait()
			eventually(t, "the end of both", func() bool { return p.cluster.Metrics().Active() == 0 })
			if n := p.heads.Load(); n != 1 {
				t.Errorf("the endpoint was asked %d times", n)
			}
			p.wantReasons("ok", "downstream_gone")
		})
	}
}

// A TCP connection waits for its turn as well.
func TestConnectionsWaitForTheirTurn(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { queued(1, nil)(s); s.tcp = true })
	b.to(b.start(func(c *originConn) { _, _ = io.Copy(c.Conn, c.br) }))
	first := b.dial()
	first.send("a")
	first.expect("a")
	second := b.dial()
	second.send("b")
	waiting(t, b, 1)
	_ = first.Close()
	second.expect("b")
	_ = second.Close()
	b.wantReasons("ok", "ok")
}

// A gRPC call that has no turn gets UNAVAILABLE.
func TestCallWithoutTurn(t *testing.T) {
	p := newPair(t, legs{true, true}, queued(1, func(q *queue.Config) { q.Size, q.MaxWait = 1, 50*time.Millisecond }), grpcOrigin, nil)
	p.cluster.Limits.Requests.Acquire(0) // somebody else
	got, alone, res := p.call(t, "/svc/0", "")
	if h := res.Header; got != "14" || !alone || res.StatusCode != 200 || h.Get("x-outrigger-reason") != "queue_timeout" || h.Get("retry-after") != "1" {
		t.Errorf("status %s, %d, %v", got, res.StatusCode, h)
	}
	p.cluster.Gate.Leave(0)
	p.wantReasons("queue_timeout")
}

// A request of a higher priority goes before those that came earlier, and the
// ledger knows who had to wait.
func TestPriorityGoesFirst(t *testing.T) {
	h := newHeld()
	p := newPair(t, legs{true, false}, func(s *setup) {
		queued(1, nil)(s)
		s.route.Priorities = []plan.PriorityRule{{Priority: queue.Critical, OnlyHTTP: true, Match: plan.Match{Fields: []plan.FieldMatch{{Name: "x-urgent", Value: plan.Text{Kind: plan.Exact, Value: "1"}}}}}}
		s.route.Priority = queue.Low
	}, h.serve, nil)
	var a answers
	a.ask(t, p, "/first")
	eventually(t, "an answer that is waited for", func() bool { return h.now.Load() == 1 })
	a.ask(t, p, "/patient")
	waiting(t, p.bed, 1)
	a.wg.Go(func() {
		if res, got := p.must(t, "GET", "/urgent", nil, "x-urgent", "1"); res.StatusCode == 200 {
			a.mu.Lock()
			a.ok = append(a.ok, got)
			a.mu.Unlock()
		}
	})
	waiting(t, p.bed, 2)
	for n := range 3 {
		h.free <- struct{}{}
		eventually(t, "the next answer", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return len(a.ok) > n
		})
	}
	a.wg.Wait()
	if got := strings.Join(a.ok, " "); got != "/first /urgent /patient" {
		t.Errorf("answered in the order %s", got)
	}
	p.stop()
	told := map[string]string{}
	for _, e := range p.server.Ledger.Last(10, false) {
		if told[string(e.Path)] = e.Priority; (e.Priority == "") != (e.Queued == 0) {
			t.Errorf("%s: %q, %s", e.Path, e.Priority, e.Queued)
		}
	}
	for _, r := range p.records() {
		if (r.Queued > 0) != (r.Path != "/first") {
			t.Errorf("the access log has for %s %d µs in the queue", r.Path, r.Queued)
		}
	}
	if told["/first"] != "" || told["/urgent"] != "critical" || told["/patient"] != "low" {
		t.Errorf("the ledger has %v", told)
	}
}

// A route's own limit holds its requests back, and no others.
func TestRouteLimit(t *testing.T) {
	h := newHeld()
	p := newPair(t, legs{true, true}, nil, h.serve, nil)
	l := *p.plan.Load()
	slow := &plan.Route{Name: "slow", Cluster: p.cluster, Match: plan.Match{Path: plan.Text{Kind: plan.Prefix, Value: "/slow"}}}
	q := queue.Default()
	q.MaxWait, q.Target, q.Order, q.Size = patience, 0, queue.FIFO, 1
	slow.Gate = p.cluster.KeepGates([]upstream.GateSpec{{Name: "slow", Limits: limit.Config{MaxRequests: 1, Queue: &q}}})[0]
	l.Routes = plan.NewTable([]*plan.Route{slow}, &plan.Route{Name: "api", Cluster: p.cluster})
	p.plan.Store(&l)
	var a answers
	a.ask(t, p, "/slow/1")
	eventually(t, "an answer that is waited for", func() bool { return h.now.Load() == 1 })
	a.ask(t, p, "/slow/2")
	eventually(t, "waiting", func() bool { return slow.Gate.Waiting() == 1 })
	if res, _ := p.must(t, "GET", "/slow/3", nil); res.StatusCode != 503 {
		t.Errorf("status %d", res.StatusCode)
	}
	a.ask(t, p, "/other")
	eventually(t, "another route's request", func() bool { return h.now.Load() == 2 })
	for range 3 {
		h.free <- struct{}{}
	}
	a.wg.Wait()
	if len(a.ok) != 3 || slow.Gate.Waiting() != 0 {
		t.Errorf("answered %q", a.ok)
	}
	eventually(t, "all to leave", func() bool { return p.cluster.Limits.Requests.Value() == 0 })
	if !slow.Gate.TryEnter(0) {
		t.Error("a place of the route was not given back")
	}
	p.wantReasons("limit_requests", "ok", "ok", "ok")
}

// What is beyond the places of all endpoints waits; each has its own and no more.
func TestPlacesOfEndpoints(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		queued(0, nil)(s)
		s.policy.Limits.MaxRequestsPerEndpoint = 1
	})
	free := make(chan struct{})
	var now, most [2]atomic.Int64
	var list []*origin
	for i := range 2 {
		list = append(list, b.another(func(c *originConn) {
			for {
				if _, _, ok := c.message(); !ok {
					return
				}
				if n := now[i].Add(1); n > most[i].Load() {
					most[i].Store(n)
				}
				<-free
				now[i].Add(-1)
				c.send(okResponse)
			}
		}))
	}
	b.to(list...)
	var clients []*client
	for range 5 {
		c := b.dial()
		c.get("/")
		clients = append(clients, c)
	}
	waiting(t, b, 3)
	close(free)
	for _, c := range clients {
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200") {
			t.Errorf("%s", head)
		}
		_ = c.Close()
	}
	if a, z := most[0].Load(), most[1].Load(); a > 1 || z > 1 {
		t.Errorf("%d and %d at a time", a, z)
	}
	b.wantReasons("ok", "ok", "ok", "ok", "ok")
}
