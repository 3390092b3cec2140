package rerun

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// tape writes a trace by hand.
type tape struct {
	l     *loader
	epoch uint64
	wall  time.Time
}

func newTape(cfg string, endpoints int) *tape {
	p := &tape{l: newLoader(), epoch: 1, wall: time.Unix(1_700_000_000, 0)}
	p.event(outcomes.Event{Kind: outcomes.Configured, At: time.Second, Version: 1, Text: cfg})
	list := make([]outcomes.Endpoint, endpoints)
	for i := range list {
		list[i] = outcomes.Endpoint{Address: address(i), Weight: 1, Usable: true}
	}
	p.event(outcomes.Event{Kind: outcomes.Endpoints, At: time.Second, Cluster: "api", List: list})
	return p
}

func address(i int) string { return fmt.Sprintf("10.0.0.%d:80", i+1) }

func (p *tape) event(e outcomes.Event) {
	p.l.add(&outcomes.Record{Event: &e, Epoch: p.epoch, Wall: p.wall.Add(e.At)})
}

// ask records a request that came at that time with its attempts.
func (p *tape) ask(at time.Duration, x outcomes.Exchange, attempts ...outcomes.Attempt) {
	x.At, x.Cluster, x.Route, x.Attempts = at, "api", "api", len(attempts)
	x.Marks |= outcomes.Idempotent | outcomes.Replayable
	if n := len(attempts); n > 0 {
		last := attempts[n-1]
		x.Reason, x.Status, x.Duration = last.Reason, last.Status, last.Offset+last.Duration
	}
	p.l.add(&outcomes.Record{Exchange: &x, Attempts: attempts, Epoch: p.epoch, Wall: p.wall.Add(at)})
}

func good(endpoint int, offset, took time.Duration) outcomes.Attempt {
	return outcomes.Attempt{Endpoint: address(endpoint), Offset: offset, Duration: took, First: took, Status: 200}
}

func failed(endpoint int, offset, took time.Duration, r outcome.Reason, status uint16) outcomes.Attempt {
	a := outcomes.Attempt{Endpoint: address(endpoint), Offset: offset, Duration: took, Reason: r, Status: status}
	if status != 0 {
		a.First = took
	}
	return a
}

// again marks that another attempt was decided after a.
func again(a outcomes.Attempt, wait time.Duration) outcomes.Attempt {
	a.Marks, a.Why, a.Wait = outcomes.Asked, retry.Again, wait
	return a
}

func (p *tape) trace() *Trace { return p.l.finish(0) }

const plainConfig = `
service: {name: web}
outbound: {upstreams: [{service: api, listen: "127.0.0.1:0"}]}
policies: {api: {transport: plaintext%s}}
`

func policy(more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(plainConfig, more)
}

// busy is a trace of n requests a millisecond apart, with a failure now and then and
// an endpoint that fails for a while.
func busy(n int, cfg string) *Trace {
	p := newTape(cfg, 10)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		at := 2*time.Second + time.Duration(i)*time.Millisecond/10
		e := r.IntN(10)
		took := time.Millisecond + time.Duration(r.ExpFloat64()*float64(2*time.Millisecond))
		if r.IntN(200) == 0 {
			p.ask(at, outcomes.Exchange{}, again(failed(e, 0, took, outcome.UpstreamError, 503), time.Millisecond), good((e+1)%10, took+time.Millisecond, took))
			continue
		}
		p.ask(at, outcomes.Exchange{}, good(e, 0, took))
	}
	return p.trace()
}

// processTime is the CPU time that the process has taken.
func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReplay says how many outcomes a second one core reruns.
func BenchmarkReplay(b *testing.B) {
	t := busy(400_000, policy("breaker: {}, timeout: 1s"))
	b.ReportAllocs()
	cpu := processTime(b)
	for b.Loop() {
		if _, err := t.Recorded(); err != nil {
			b.Fatal(err)
		}
	}
	outcomes := float64(b.N) * float64(t.Outcomes())
	b.ReportMetric(outcomes/b.Elapsed().Seconds(), "outcomes/s")
	b.ReportMetric(outcomes/(processTime(b)-cpu).Seconds(), "outcomes/cpu-s")
}
