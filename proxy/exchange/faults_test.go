package exchange_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/faults"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// fail makes a fault in the bed's cluster, which no guard stops.
func (b *bed) fail(change func(*plan.Fault)) faults.View {
	b.t.Helper()
	f := &plan.Fault{
		Cluster: "api", Direction: b.plan.Load().Direction, Config: fault.Default(), For: time.Hour,
		Stop: fault.Stop{Window: time.Second, MinRequests: 1},
	}
	change(f)
	f.Config.Validate(func(field, problem string) { b.t.Errorf("%s: %s", field, problem) })
	b.faults.Apply(true, nil)
	v, err := b.faults.Start(f, "127.0.0.1:1", "")
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// wantEnds is wantReasons once all exchanges have ended: a client may have all of
// an answer before the endpoint has said that it is all, and the bed must not
// end the endpoint in between.
func (b *bed) wantEnds(want ...string) []record {
	b.t.Helper()
	eventually(b.t, "the end of all exchanges", func() bool { return len(b.server.Ledger.Last(len(want), false)) == len(want) })
	return b.wantReasons(want...)
}

// seedWith is one by which the first draws, of which half meet the fault, come
// out so.
func seedWith(t *testing.T, draws ...bool) uint64 {
	for seed := uint64(1); seed < 10_000; seed++ {
		f := fault.New(fault.Config{Percent: 50, Reset: true, Seed: seed}, 0)
		same := true
		for i, want := range draws {
			_, got := f.Draw(uint64(i))
			same = same && got == want
		}
		if same {
			return seed
		}
	}
	t.Fatal("no seed")
	return 0
}

// An abort is an answer in the endpoint's place, which never sees the request.
func TestFaultAbort(t *testing.T) {
	runLegs(t, allLegs, nil, echo, func(t *testing.T, p *pair) {
		p.fail(func(f *plan.Fault) { f.Name, f.Config.Abort = "gone", 418 })
		res, body := p.must(t, "POST", "/", strings.NewReader("body"))
		if res.StatusCode != 418 || res.Header.Get("x-outrigger-reason") != "fault_injected" || !strings.Contains(body, "fault gone: abort 418") {
			t.Errorf("%v\n%s", res, body)
		}
		if s := res.Header.Get("proxy-status"); !strings.HasPrefix(s, "outrigger; error=proxy_internal_response;") || !strings.Contains(s, `details="fault gone: abort 418"`) {
			t.Errorf("proxy-status: %s", s)
		}
		// A body that is passed on as it comes is not read.
		res, _ = p.must(t, "POST", "/", opaque{strings.NewReader(strings.Repeat("x", 100_000))})
		if res.StatusCode != 418 {
			t.Errorf("%v", res)
		}
		e := p.kept(outcome.FaultInjected)
		if len(e.Attempts) != 1 || e.Attempts[0].Fault != "gone: answered 418 in the endpoint's place" || e.Attempts[0].Status != 418 {
			t.Errorf("%+v", e.Attempts)
		}
		if n := p.heads.Load(); n != 0 {
			t.Errorf("the origin saw %d requests", n)
		}
		list := p.wantEnds("fault_injected", "fault_injected")
		if r := list[0]; r.Fault != "gone" || r.Flag != "FI" || r.Status != 418 || r.Attempts != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// Faults are failures of attempts: the policy decides about others.
func TestFaultRetries(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*fault.Config)
		draws    []bool
		method   string
		status   int
		attempts int
		reason   string
	}{
		{"503 once", func(c *fault.Config) { c.Abort = 503 }, []bool{true, false}, "GET", 200, 2, "ok"},
		{"503 all along", func(c *fault.Config) { c.Abort = 503 }, []bool{true, true, true}, "GET", 503, 3, "fault_injected"},
		{"503, POST", func(c *fault.Config) { c.Abort = 503 }, []bool{true, false}, "POST", 503, 1, "fault_injected"},
		{"404", func(c *fault.Config) { c.Abort = 404 }, []bool{true, false}, "GET", 404, 1, "fault_injected"},
		{"500, which is not listed", func(c *fault.Config) { c.Abort = 500 }, []bool{true, false}, "GET", 500, 1, "fault_injected"},
		{"reset once", func(c *fault.Config) { c.Reset = true }, []bool{true, false}, "GET", 200, 2, "ok"},
		{"reset all along", func(c *fault.Config) { c.Reset = true }, []bool{true, true, true}, "GET", 503, 3, "fault_injected"},
		{"reset, POST", func(c *fault.Config) { c.Reset = true }, []bool{true, false}, "POST", 503, 1, "fault_injected"},
		{"not the first", func(c *fault.Config) { c.Reset = true }, []bool{false, true}, "GET", 200, 1, "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			runLegs(t, []legs{{true, true}, {false, false}}, func(s *setup) { s.policy.Retry = retrying(3) }, echo, func(t *testing.T, p *pair) {
				p.fail(func(f *plan.Fault) {
					c.change(&f.Config)
					f.Config.Percent, f.Config.Seed = 50, seedWith(t, c.draws...)
				})
				res, _ := p.must(t, c.method, "/", nil)
				if res.StatusCode != c.status {
					t.Errorf("status %d, want %d", res.StatusCode, c.status)
				}
				if list := p.wantEnds(c.reason); list[0].Attempts != c.attempts {
					t.Errorf("%d attempts, want %d", list[0].Attempts, c.attempts)
				}
				if got := p.cluster.Metrics().FaultTotals(); int(got.Again) != c.attempts-1 {
					t.Errorf("%d retries after a fault, of %d attempts", got.Again, c.attempts)
				}
			})
		})
	}
}

// A gRPC code is one in every respect, and concerns gRPC calls alone.
func TestFaultGRPC(t *testing.T) {
	listed := func(s *setup) {
		s.policy.Retry = retrying(2)
		s.policy.Retry.GRPCStatuses = []retry.GRPCStatus{retry.GRPCUnavailable, 10}
	}
	for _, c := range []struct {
		abort  string
		draws  []bool
		change func(*setup)
		status string
		reason string
	}{
		{"UNAVAILABLE", []bool{true, false}, listed, "0", "ok"},
		{"UNAVAILABLE", []bool{true, true}, listed, "14", "fault_injected"},
		{"ABORTED", []bool{true, false}, listed, "0", "ok"},
		{"NOT_FOUND", []bool{true, false}, listed, "5", "fault_injected"},
		{"UNAVAILABLE", []bool{true}, nil, "14", "fault_injected"},
		{"503", []bool{true, false}, listed, "0", "ok"},
		{"403", []bool{true}, listed, "7", "fault_injected"},
	} {
		t.Run(c.abort+" "+c.status, func(t *testing.T) {
			runLegs(t, []legs{{true, true}}, c.change, grpcOrigin, func(t *testing.T, p *pair) {
				p.fail(func(f *plan.Fault) {
					f.Config.Percent, f.Config.Seed = 50, seedWith(t, c.draws...)
					if f.Config.Abort, _ = strconv.Atoi(c.abort); f.Config.Abort == 0 {
						f.Config.AbortGRPC = c.abort
					}
				})
				if got, _, _ := p.call(t, "/svc/0", "message"); got != c.status {
					t.Errorf("status %s, want %s", got, c.status)
				}
				p.wantEnds(c.reason)
			})
		})
	}
	runLegs(t, []legs{{true, true}}, nil, echo, func(t *testing.T, p *pair) {
		p.fail(func(f *plan.Fault) { f.Config.AbortGRPC = "INTERNAL" })
		if res, _ := p.must(t, "GET", "/", nil); res.StatusCode != 200 {
			t.Errorf("a request that is no call: %v", res)
		}
	})
}

// Callers of the inbound listener see their own connection, or stream, reset.
func TestFaultResetInbound(t *testing.T) {
	inbound := func(s *setup) { s.dir = telemetry.Inbound }
	runLegs(t, []legs{{true, false}, {false, false}}, inbound, echo, func(t *testing.T, p *pair) {
		p.fail(func(f *plan.Fault) { f.Config.Reset = true })
		res, err := p.ask(t, "POST", "/", strings.NewReader("body"))
		if err == nil {
			t.Fatalf("answered: %v", res)
		}
		if want := map[bool]string{true: "INTERNAL_ERROR", false: "connection reset"}[p.down]; !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if list := p.wantEnds("fault_injected"); list[0].Status != 0 {
			t.Errorf("%+v", list[0])
		}
	})
}

// A delay holds the attempt, and counts against the timeouts as a slow endpoint
// would.
func TestFaultDelay(t *testing.T) {
	const delay = 500 * time.Millisecond // long enough for the attempt to begin
	for _, c := range []struct {
		name   string
		change func(*setup)
		delay  string
		status int
		reason string
	}{
		{"in time", nil, delay.String(), 200, "ok"},
		{"past the deadline", func(s *setup) { s.policy.Timeout = delay }, "1m", 504, "request_timeout"},
		{"past the attempt's time", func(s *setup) { s.policy.Retry = retrying(1); s.policy.Retry.PerTryTimeout = delay }, "1m", 504, "try_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			runLegs(t, allLegs, c.change, echo, func(t *testing.T, p *pair) {
				p.fail(func(f *plan.Fault) { f.Name, f.Config.Delay = "slow", c.delay })
				if res, _ := p.must(t, "POST", "/", strings.NewReader("body")); res.StatusCode != c.status {
					t.Errorf("status %d, want %d", res.StatusCode, c.status)
				}
				list := p.wantEnds(c.reason)
				e := p.server.Ledger.Last(1, false)[0]
				if list[0].Fault != "slow" || e.Duration < delay || len(e.Attempts) != 1 || !strings.HasPrefix(e.Attempts[0].Fault, "slow: held for ") {
					t.Errorf("%+v\n%+v", list[0], e)
				}
				if n := p.heads.Load(); n != map[bool]int64{true: 1}[c.status == 200] {
					t.Errorf("the origin saw %d requests", n)
				}
				if got := failures(p.bed); got != 0 {
					t.Errorf("%d failures are held against the endpoint", got)
				}
				if a := &e.Attempts[0]; c.status == 200 && (a.Connect < 0 || a.Connect > a.Duration-delay) {
					t.Errorf("%v to connect, of %v", a.Connect, a.Duration)
				}
			})
		})
	}
}

// An attempt whose time a fault has taken is tried again.
func TestFaultDelayRetried(t *testing.T) {
	runLegs(t, []legs{{true, true}, {false, false}}, func(s *setup) {
		s.policy.Retry = retrying(2)
		s.policy.Retry.PerTryTimeout = 50 * time.Millisecond
		s.policy.Retry.On = []retry.Condition{retry.Reset}
	}, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, p *pair) {
		p.fail(func(f *plan.Fault) {
			f.Config.Delay, f.Config.Percent, f.Config.Seed = "1m", 50, seedWith(t, true, false)
		})
		res, err := p.ask(t, "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		eventually(t, "the end of the exchange", func() bool { return len(p.server.Ledger.Last(1, false)) == 1 })
		if n := p.cluster.Metrics().FaultTotals().Again; n != 1 {
			t.Errorf("%d other attempts are counted", n)
		}
		e := p.server.Ledger.Last(1, false)[0]
		if len(e.Attempts) != 2 || e.Attempts[0].Reason != outcome.TryTimeout || e.Attempts[0].Fault == "" || e.Attempts[1].Fault != "" {
			t.Errorf("%+v", e.Attempts)
		}
		if got := failures(p.bed); e.Reason == outcome.OK && got != 0 {
			t.Errorf("%d failures are held against the endpoint", got)
		}
	})
}

// failures is how many failures are held against the bed's endpoints.
func failures(b *bed) (n uint64) {
	_, list := b.registry.States()
	for i := range list {
		n += list[i].Failures
	}
	return n
}

// What is held goes on when the fault ends, and ends when its caller goes.
func TestFaultDelayEnds(t *testing.T) {
	runLegs(t, allLegs, nil, echo, func(t *testing.T, p *pair) {
		v := p.fail(func(f *plan.Fault) { f.Config.Delay = "1m" })
		done := make(chan int, 1)
		go func() {
			res, _ := p.must(t, "GET", "/", nil)
			done <- res.StatusCode
		}()
		eventually(t, "the request is held", func() bool { return p.cluster.Metrics().FaultTotals().Injected[telemetry.FaultDelay] == 1 })
		if _, err := p.faults.Stop(v.Fault.Name); err != nil {
			t.Fatal(err)
		}
		if status := <-done; status != 200 {
			t.Errorf("status %d", status)
		}
		p.wantEnds("ok")
	})
	runLegs(t, []legs{{true, true}, {true, false}}, nil, echo, func(t *testing.T, p *pair) {
		p.fail(func(f *plan.Fault) { f.Config.Delay = "1m" })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+p.ln.Addr().String()+"/", nil)
		done := make(chan error, 1)
		go func() {
			_, err := p.client.Do(r)
			done <- err
		}()
		eventually(t, "the delay", func() bool { return p.cluster.Metrics().FaultTotals().Injected[telemetry.FaultDelay] == 1 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		p.wantEnds("downstream_gone")
	})
}

// Faults cost endpoints their good name only where they are to.
func TestFaultCounts(t *testing.T) {
	for _, count := range []bool{false, true} {
		t.Run(strconv.FormatBool(count), func(t *testing.T) {
			t.Parallel()
			o, br := outlier.Default(), breaker.Default()
			o.ConsecutiveFailures, o.KeepEndpoints = 3, 0
			br.ConsecutiveFailures = 5
			b := newBed(t, plain, func(s *setup) {
				s.policy.Outlier, s.policy.Breaker, s.policy.Balance.Algorithm = &o, &br, balance.Random
			})
			one, two := b.another(answering(okResponse)), b.another(answering(okResponse))
			b.to(one, two)
			b.fail(func(f *plan.Fault) { f.Config.Abort, f.Config.Count = 503, count })
			c := b.dial()
			for range 5 {
				c.get("/")
				c.reply(503, "fault_injected")
			}
			want := uint64(0)
			if count {
				want = 5
			}
			if got := failures(b); got != want {
				t.Errorf("%d failures are held against endpoints, want %d", got, want)
			}
			c.get("/")
			if count {
				c.reply(503, "breaker_open")
			} else {
				c.reply(503, "fault_injected")
			}
		})
	}
}

// A fault meets whom its conditions say, and nobody else.
func TestFaultConcerns(t *testing.T) {
	header := plan.FieldMatch{ID: http1.Other, Name: "x-test", Value: plan.Text{Kind: plan.Exact, Value: "1"}}
	for _, c := range []struct {
		name   string
		change func(*plan.Fault)
		hit    bool
	}{
		{"all", func(*plan.Fault) {}, true},
		{"path", func(f *plan.Fault) { f.Match.Path = plan.Text{Kind: plan.Prefix, Value: "/pay"} }, true},
		{"another path", func(f *plan.Fault) { f.Match.Path = plan.Text{Kind: plan.Exact, Value: "/pay"} }, false},
		{"method", func(f *plan.Fault) { f.Match.Methods = []string{"PUT", "GET"} }, true},
		{"another method", func(f *plan.Fault) { f.Match.Methods = []string{"PUT"} }, false},
		{"field", func(f *plan.Fault) { f.Match.Fields = []plan.FieldMatch{header} }, true},
		{"another field", func(f *plan.Fault) {
			other := header
			other.Value.Value = "2"
			f.Match.Fields = []plan.FieldMatch{other}
		}, false},
		{"route", func(f *plan.Fault) { f.Route = "api" }, true},
		{"another route", func(f *plan.Fault) { f.Route = "apis" }, false},
		{"another cluster", func(f *plan.Fault) { f.Cluster = "web" }, false},
		{"another direction", func(f *plan.Fault) { f.Direction = telemetry.Outbound }, false},
		{"caller", func(f *plan.Fault) { f.From = []string{"spiffe://mesh.test/x", clientID} }, true},
		{"callers", func(f *plan.Fault) { f.From = []string{"spiffe://mesh.test/cl*"} }, true},
		{"another caller", func(f *plan.Fault) { f.From = []string{"spiffe://mesh.test/clients", "spiffe://mesh.test/b*"} }, false},
		{"another endpoint", func(f *plan.Fault) { f.Endpoint = "127.0.0.1:1" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, mtlsDown, func(s *setup) { s.dir = telemetry.Inbound })
			o := b.start(answering(okResponse))
			b.fail(func(f *plan.Fault) {
				f.Config.Abort, f.Endpoint = 599, o.addr.String()
				c.change(f)
			})
			cl := b.dial()
			cl.send("GET /pay/1?a=b HTTP/1.1\r\nHost: api\r\nX-Test: 1\r\n\r\n")
			if c.hit {
				cl.reply(599, "fault_injected")
			} else {
				cl.expect(okResponse[:len("HTTP/1.1 200 OK\r\n")])
			}
		})
	}
}

// At a rate everything arrives, and no sooner than it can.
func TestFaultBandwidth(t *testing.T) {
	const size, rate = 4000, 40_000
	const least = time.Second * (size - rate/20) / rate // the last part need not be waited for
	for _, c := range []struct {
		name   string
		change func(*fault.Config)
	}{
		{"response", func(c *fault.Config) { c.ResponseRate = strconv.Itoa(rate) + "B/s" }},
		{"request", func(c *fault.Config) { c.RequestRate = strconv.Itoa(rate) + "B/s" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			runLegs(t, allLegs, nil, echo, func(t *testing.T, p *pair) {
				p.fail(func(f *plan.Fault) { c.change(&f.Config) })
				want := string(octets(size))
				for _, body := range []io.Reader{strings.NewReader(want), opaque{strings.NewReader(want)}} {
					if _, got := p.must(t, "POST", "/", body); got != want {
						t.Errorf("%d bytes came back, want %d", len(got), len(want))
					}
				}
				p.wantEnds("ok", "ok")
				for _, e := range p.server.Ledger.Last(2, false) {
					if e.Duration < least {
						t.Errorf("took %v, want %v at least", e.Duration, least)
					}
				}
			})
		})
	}
}

// A slow answer is cut at the exchange's deadline, and is not waited for once the
// fault is over.
func TestFaultBandwidthEnds(t *testing.T) {
	long := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(octets(100_000)) }
	runLegs(t, allLegs, func(s *setup) { s.policy.Timeout = 200 * time.Millisecond }, long, func(t *testing.T, p *pair) {
		p.fail(func(f *plan.Fault) { f.Config.ResponseRate = "1kB/s" })
		res, err := p.ask(t, "GET", "/", nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		if err == nil && res.StatusCode == 200 { // else it had not begun in time
			t.Error("the answer came whole")
		}
		p.wantEnds("request_timeout")
	})
	runLegs(t, allLegs, nil, long, func(t *testing.T, p *pair) {
		v := p.fail(func(f *plan.Fault) { f.Config.ResponseRate = "16B/s" })
		res, err := p.ask(t, "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := p.faults.Stop(v.Fault.Name); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(res.Body); len(got) != 100_000 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		p.wantEnds("ok")
	})
}
