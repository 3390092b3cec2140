package exchange_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

const (
	conflict = "HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nbusy"
	limited  = "HTTP/1.1 429 Slow\r\nX-Envoy-RateLimited: true\r\nContent-Length: 4\r\n\r\nslow"
)

const unavailable = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"

// TestRetries: the origin's connections fail in turn by a script; each test
// says what the client gets and how many requests the origin saw.
func TestRetries(t *testing.T) {
	reset := func(c *originConn) { c.message(); c.reset() }
	busy := func(c *originConn) { c.message(); c.send(unavailable) }
	good := answering(okResponse)
	long := "100000\r\n\r\n" + strings.Repeat("x", 100_000)
	for _, test := range []struct {
		name, request string
		script        func(*originConn) // of the first connection; the others are good
		change        func(*retry.Config)
		want, reason  string
		heads         int64
		attempts      int
	}{
		{name: "reset, GET", request: "GET", script: reset, want: okResponse, reason: "ok", heads: 2, attempts: 2},
		{name: "reset, PUT with body", request: "PUT", script: reset, want: okResponse, reason: "ok", heads: 2, attempts: 2},
		{name: "reset, POST", request: "POST", script: reset, want: "HTTP/1.1 503", reason: "upstream_reset", heads: 1, attempts: 1},
		{
			name: "reset, POST by configuration", request: "POST", script: reset, want: okResponse, reason: "ok", heads: 2, attempts: 2,
			change: func(c *retry.Config) { c.NonIdempotent = true },
		},
		{name: "503, GET", request: "GET", script: busy, want: okResponse, reason: "ok", heads: 2, attempts: 2},
		{name: "503, POST", request: "POST", script: busy, want: unavailable, reason: "upstream_error", heads: 1, attempts: 1},
		{
			name: "500 is not listed", request: "GET", want: "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", reason: "upstream_error", heads: 1, attempts: 1,
			script: func(c *originConn) { c.message(); c.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") },
		},
		{
			name: "409 by status, POST", request: "POST", want: okResponse, reason: "ok", heads: 2, attempts: 2,
			script: func(c *originConn) { c.message(); c.send(conflict); good(c) },
			change: func(c *retry.Config) { c.Statuses = []int{409} },
		},
		{
			name: "409 by status, spent", request: "GET", want: conflict, reason: "ok", heads: 1, attempts: 1,
			script: func(c *originConn) { c.message(); c.send(conflict) },
			change: func(c *retry.Config) { c.Statuses, c.BudgetPercent, c.BudgetMinPerSecond = []int{409}, 0, 0 },
		},
		{
			name: "409 is not listed", request: "GET", want: conflict, reason: "ok", heads: 1, attempts: 1,
			script: func(c *originConn) { c.message(); c.send(conflict) },
			change: func(c *retry.Config) { c.Statuses = []int{404} },
		},
		{
			name: "503 by status, POST", request: "POST", script: busy, want: okResponse, reason: "ok", heads: 2, attempts: 2,
			change: func(c *retry.Config) { c.Statuses = []int{503} },
		},
		{
			name: "rate limited, POST", request: "POST", want: okResponse, reason: "ok", heads: 2, attempts: 2,
			script: func(c *originConn) { c.message(); c.send(limited); good(c) },
			change: func(c *retry.Config) { c.On = []retry.Condition{retry.RateLimited} },
		},
		{
			name: "rate limited, not listed", request: "GET", want: limited, reason: "ok", heads: 1, attempts: 1,
			script: func(c *originConn) { c.message(); c.send(limited) },
		},
		{
			name: "attempts spent", request: "GET", script: busy, want: unavailable, reason: "upstream_error", heads: 1, attempts: 1,
			change: func(c *retry.Config) { c.Attempts = 1 },
		},
		{
			name: "observe", request: "GET", script: busy, want: unavailable, reason: "upstream_error", heads: 1, attempts: 1,
			change: func(c *retry.Config) { _ = c.Mode.UnmarshalText([]byte("observe")) },
		},
		{
			name: "body not kept", request: "PUT", script: busy, want: unavailable, reason: "upstream_error", heads: 1, attempts: 1,
			change: func(c *retry.Config) { c.MaxBodyBytes = 2 },
		},
		{name: "long body, 503", request: "LONG", script: busy, want: "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n", reason: "upstream_error", heads: 1, attempts: 1},
		{
			name: "per-try timeout", request: "GET", want: okResponse, reason: "ok", heads: 2, attempts: 2,
			script: func(c *originConn) { c.message(); c.stall() },
			change: func(c *retry.Config) { c.PerTryTimeout = 2 * time.Second }, // in which the second attempt must be answered
		},
		{
			name: "Retry-After too long", request: "GET", want: "HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\n", reason: "upstream_error", heads: 1, attempts: 1,
			script: func(c *originConn) {
				c.message()
				c.send("HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")
			},
		},
		{
			name: "Retry-After 0", request: "GET", want: okResponse, reason: "ok", heads: 2, attempts: 2,
			script: func(c *originConn) {
				c.message()
				c.send("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
				good(c) // the connection is used again
			},
		},
		{
			name: "no answer is tried again once it has begun", request: "GET", want: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", reason: "upstream_reset", heads: 1, attempts: 1,
			script: func(c *originConn) {
				c.message()
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
			},
		},
		{
			name: "malformed answer", request: "GET", want: "HTTP/1.1 502", reason: "upstream_protocol", heads: 1, attempts: 1,
			script: func(c *originConn) { c.message(); c.send("HTTP/1.1 2x0\r\n\r\n") },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := func(s *setup) {
				s.policy.Retry = retrying(2)
				if test.change != nil {
					test.change(s.policy.Retry)
				}
			}
			run(t, []mode{plain, mtlsUp}, change, func(t *testing.T, b *bed) {
				o := b.start(func(c *originConn) {
					if c.number == 1 {
						test.script(c)
						return
					}
					good(c)
				})
				c := b.dial()
				switch test.request {
				case "GET":
					c.get("/")
				case "LONG":
					go func() { _, _ = c.Write([]byte("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: " + long)) }()
				default:
					c.send(test.request + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
				}
				c.expect(test.want)
				eventually(t, "the requests", func() bool { return o.heads.Load() >= test.heads })
				c.Close()
				rec := b.wantReasons(test.reason)
				if n := o.heads.Load(); n != test.heads {
					t.Errorf("the origin saw %d requests, want %d", n, test.heads)
				}
				if len(rec) == 1 && rec[0].Attempts != test.attempts {
					t.Errorf("%d attempts, want %d", rec[0].Attempts, test.attempts)
				}
			})
		})
	}
}

// TestStaleConnection: a kept connection that the origin has closed is nobody's
// fault, but only what is idempotent is sent again.
func TestStaleConnection(t *testing.T) {
	for _, method := range []string{"GET", "PUT", "POST"} {
		run(t, []mode{plain, mtlsUp}, nil, func(t *testing.T, b *bed) {
			seen := make(chan bool, 8)
			o := b.start(func(c *originConn) {
				c.message()
				c.send(okResponse)
				if c.number > 1 {
					c.stall()
					return
				}
				// The next request is read and not answered.
				c.head()
				seen <- true
				c.reset()
			})
			c := b.dial()
			request := method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
			c.send(request)
			c.expect(okResponse)
			c.send(request)
			<-seen
			if method == "POST" {
				c.reply(503, "stale_connection")
				b.wantReasons("ok", "stale_connection")
				if n := o.heads.Load(); n != 2 {
					t.Errorf("the origin saw %d requests", n)
				}
				return
			}
			c.expect(okResponse)
			b.wantReasons("ok", "ok")
			if n := o.heads.Load(); n != 3 {
				t.Errorf("the origin saw %d requests", n)
			}
		})
	}
}

// TestClosedWhileIdle: what is known to be closed is not used for a POST.
func TestClosedWhileIdle(t *testing.T) {
	run(t, []mode{plain, mtlsUp}, nil, func(t *testing.T, b *bed) {
		closed := make(chan bool, 8)
		b.start(func(c *originConn) {
			c.message()
			c.send(okResponse)
			c.shut()
			closed <- true
		})
		c := b.dial()
		for range 5 {
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
			c.expect(okResponse)
			<-closed
		}
		b.wantReasons("ok", "ok", "ok", "ok", "ok")
	})
}

// TestOtherEndpointPreferred: a retry goes elsewhere, a connect failure too and
// for any method.
func TestOtherEndpointPreferred(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.policy.Retry = retrying(2) })
	bad := b.another(func(c *originConn) { c.message(); c.reset() })
	good := b.another(answering(okResponse))
	dead := &origin{addr: testkit.Nobody(0)}
	c := b.dial()
	b.to(bad, good)
	for range 5 {
		c.get("/")
		c.expect(okResponse)
	}
	b.to(dead, good)
	for range 5 {
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
		c.expect(okResponse)
	}
}

func TestRetryBudget(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.policy.Retry = retrying(2)
		s.policy.Retry.BudgetPercent, s.policy.Retry.BudgetMinPerSecond = 0, 0.3 // three in the horizon
	})
	o := b.start(answering(unavailable))
	c := b.dial()
	for range 10 {
		c.get("/")
		c.expect(unavailable)
	}
	if n := o.heads.Load(); n < 11 || n > 14 {
		t.Errorf("the origin saw %d requests, want about 13", n)
	}
}

// TestRetryFitsDeadline: nothing is started that cannot end in time.
func TestRetryFitsDeadline(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.policy.Retry = retrying(5)
		s.policy.Retry.RetryAfterMax = time.Hour
		s.policy.Timeout = 2 * time.Second
	})
	o := b.start(answering("HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n"))
	c := b.dial()
	c.get("/")
	c.expect("HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n")
	b.wantReasons("upstream_error")
	if n := o.heads.Load(); n != 1 {
		t.Errorf("the origin saw %d requests", n)
	}
}

func TestBreaker(t *testing.T) {
	cfg := breaker.Default()
	cfg.ConsecutiveFailures, cfg.OpenFor, cfg.HalfOpenRequests = 2, 2*time.Second, 1
	b := newBed(t, plain, func(s *setup) { s.policy.Breaker = &cfg })
	var healthy atomic.Bool
	o := b.start(func(c *originConn) {
		for c.head() != "" {
			if healthy.Load() {
				c.send(okResponse)
			} else {
				c.send(unavailable)
			}
		}
	})
	c := b.dial()
	for range 2 {
		c.get("/")
		c.expect(unavailable)
	}
	c.get("/")
	c.reply(503, "breaker_open")
	if n := o.heads.Load(); n != 2 {
		t.Errorf("the origin saw %d requests", n)
	}
	b.apply(func(p *upstream.Policy) { p.Timeout = time.Minute }) // leaves the breaker alone
	c.get("/")
	c.reply(503, "breaker_open")
	healthy.Store(true)
	eventually(t, "half-open", func() bool { return b.cluster.Breaker().State(b.sweeper.Now()) == breaker.HalfOpen })
	for range 3 {
		c.get("/")
		c.expect(okResponse)
	}
	if s := b.cluster.Breaker().State(b.sweeper.Now()); s != breaker.Closed {
		t.Errorf("breaker is %s", s)
	}
	b.wantReasons("upstream_error", "upstream_error", "breaker_open", "breaker_open", "ok", "ok", "ok")
}

// TestRequestLimit refuses what is above and gives back what ends.
func TestRequestLimit(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.policy.Limits.MaxRequests = 1 })
	answer := make(chan bool)
	b.start(func(c *originConn) {
		for c.head() != "" {
			select {
			case <-answer:
			case <-c.o.done:
				return
			}
			c.send(okResponse)
		}
	})
	c1, c2 := b.dial(), b.dial()
	c1.get("/")
	eventually(t, "the first request", func() bool { return b.cluster.Limits.Requests.Value() == 1 })
	c2.get("/")
	c2.reply(503, "limit_requests")
	close(answer)
	c1.expect(okResponse)
	// The client has its response a little before the exchange has ended.
	eventually(t, "the first exchange's end", func() bool { return b.cluster.Limits.Requests.Value() == 0 })
	c2.get("/")
	c2.expect(okResponse)
	b.wantReasons("limit_requests", "ok", "ok")
}

// TestConnectionLimit: at the limit requests wait for a connection, and an idle
// one of another endpoint makes room.
func TestConnectionLimit(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.policy.Limits.MaxConnections, s.policy.Limits.MaxPending = 1, 1
		s.policy.ConnectTimeout = patience
	})
	answer := make(chan bool)
	release := func() {
		t.Helper()
		select {
		case answer <- true:
		case <-time.After(patience):
			t.Fatal("no request waits for its answer")
		}
	}
	script := func(c *originConn) {
		for c.head() != "" {
			select {
			case <-answer:
			case <-c.o.done:
				return
			}
			c.send(okResponse)
		}
	}
	first, second := b.another(script), b.another(script)
	b.to(first)
	c1, c2, c3 := b.dial(), b.dial(), b.dial()
	c1.get("/")
	eventually(t, "the first request", func() bool { return first.heads.Load() == 1 })
	c2.get("/")
	eventually(t, "one waits", func() bool { return b.cluster.Limits.Pending.Value() == 1 })
	c3.get("/")
	c3.reply(503, "limit_pending")
	release()
	c1.expect(okResponse)
	release()
	c2.expect(okResponse) // by the connection that became free
	if n := first.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	b.to(first, second)
	for second.accepted.Load() == 0 {
		c1.get("/")
		release()
		c1.expect(okResponse)
	}
	before := first.heads.Load() + second.heads.Load()
	c1.get("/")
	eventually(t, "a request", func() bool { return first.heads.Load()+second.heads.Load() > before })
	b.apply(func(p *upstream.Policy) { p.ConnectTimeout = 50 * time.Millisecond })
	c2.get("/")
	c2.reply(503, "limit_connections")
	release()
	c1.expect(okResponse)
	if v := b.cluster.Limits.Connections.Value(); v != 1 {
		t.Errorf("%d connections are counted", v)
	}
}

// TestEjection: traffic ejects the endpoint that fails, one probe takes it back.
func TestEjection(t *testing.T) {
	cfg := outlier.Default()
	cfg.ConsecutiveFailures, cfg.BaseEjection, cfg.Jitter, cfg.MaxEjectedPercent, cfg.KeepEndpoints = 3, time.Second, 0, 50, 1
	b := newBed(t, plain, func(s *setup) {
		s.policy.Outlier = &cfg
		s.policy.Balance.Algorithm = balance.Random // the default avoids failing endpoints by itself
	})
	var healthy atomic.Bool
	bad := b.another(func(c *originConn) {
		for c.head() != "" {
			if healthy.Load() {
				c.send(okResponse)
			} else {
				c.send("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")
			}
		}
	})
	good := b.another(answering(okResponse))
	b.to(bad, good)
	state := func() string {
		_, eps := b.registry.States()
		for _, e := range eps {
			if e.Spec.Address == bad.addr {
				return e.Evidence.State.String()
			}
		}
		return ""
	}
	c := b.dial()
	get := func() (ok bool) {
		c.get("/")
		head := c.head()
		c.expect(map[bool]string{true: "ok", false: "no"}[strings.Contains(head, "200")])
		return strings.Contains(head, "200")
	}
	failed := 0
	eventually(t, "the ejection", func() bool {
		if !get() {
			failed++
		}
		return state() == "ejected"
	})
	if failed != 3 {
		t.Errorf("%d requests failed before the ejection, want 3", failed)
	}
	eventually(t, "probation", func() bool { return state() == "probation" })
	// The probe fails: out again, at the price of one request.
	failed = 0
	eventually(t, "the second ejection", func() bool {
		if !get() {
			failed++
		}
		return state() == "ejected"
	})
	if failed != 1 {
		t.Errorf("%d requests failed on probation, want 1", failed)
	}
	healthy.Store(true)
	eventually(t, "the readmission", func() bool { get(); return state() == "healthy" })
	b.apply(func(p *upstream.Policy) { p.Outlier = nil })
	get()
}

// TestOutlierTurnedOffOnProbation: an endpoint must not wait for a probe that
// nobody judges any more.
func TestOutlierTurnedOffOnProbation(t *testing.T) {
	cfg := outlier.Default()
	cfg.ConsecutiveFailures, cfg.BaseEjection, cfg.Jitter, cfg.MaxEjectedPercent, cfg.KeepEndpoints = 1, time.Millisecond, 0, 100, 0
	b := newBed(t, plain, func(s *setup) {
		s.policy.Outlier = &cfg
		s.policy.Balance.PanicPercent = 0
	})
	b.start(func(c *originConn) {
		for c.head() != "" {
			c.send(unavailable)
		}
	})
	c := b.dial()
	c.get("/")
	c.expect(unavailable)
	eventually(t, "probation", func() bool {
		_, eps := b.registry.States()
		return eps[0].Evidence.State == outlier.Probation
	})
	b.apply(func(p *upstream.Policy) { p.Outlier = nil })
	for range 3 {
		c.get("/")
		c.expect(unavailable)
	}
}

// TestPanic: with most endpoints bad by the catalog all are used.
func TestPanic(t *testing.T) {
	b := newBed(t, plain, nil)
	o := b.start(answering(okResponse))
	sick := func(percent float64) {
		b.apply(func(p *upstream.Policy) { p.Balance.PanicPercent = percent })
		b.cluster.SetLocal([]upstream.EndpointSpec{{Address: o.addr, Health: "critical"}})
	}
	c := b.dial()
	sick(30)
	c.get("/")
	c.expect(okResponse)
	sick(0)
	c.get("/")
	c.reply(503, "no_endpoints")
	b.wantReasons("ok", "no_endpoints")
}

// TestTransportChange: connections made under one identity are not used under
// the next.
func TestTransportChange(t *testing.T) {
	b := newBed(t, plain, nil)
	o := b.start(answering(okResponse))
	c := b.dial()
	for i := range 3 {
		for range 2 {
			c.get("/")
			c.expect(okResponse)
		}
		if n := o.accepted.Load(); n != int64(i)+1 {
			t.Errorf("%d connections after %d changes", n, i)
		}
		b.spec.Transport = fmt.Sprint("plaintext ", i)
		b.apply(func(*upstream.Policy) {})
	}
}
