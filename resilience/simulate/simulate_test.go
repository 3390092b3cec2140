package simulate

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/resilience/scenario"
)

const off = `policies: {"*": {retry: off, outlier: off}}`

// TestFaults: each does what it says, while it lasts.
func TestFaults(t *testing.T) {
	for fault, expect := range map[string][]string{
		"slow x20":   {"p50 >= 199ms from 10s to 20s", "max < 12ms from 20s"},
		"slow x0.5":  {"max <= 5.6ms from 10s to 20s", "mean >= 10ms from 21s"},
		"delay 2s":   {"p50 >= 2s from 10s to 17s", "p50 < 2.1s from 10s to 17s", "max < 12ms from 21s"},
		"down":       {"failed >= 100% from 10s to 20s", "goodput >= 100% from 20s", "max < 12ms"},
		"error 30%":  {"failed >= 28% from 10s to 20s", "failed <= 32% from 10s to 20s", "max < 12ms"},
		"gray 30%":   {"failed >= 28% from 10s to 20s", "failed <= 32% from 10s to 20s", "mean >= 10ms"},
		"lossy 30%":  {"failed >= 28% from 10s to 20s", "failed <= 32% from 10s to 20s", "goodput >= 100% from 20s"},
		"lossy 100%": {"failed >= 100% from 10s to 20s", "goodput >= 100% from 20s"},
	} {
		t.Run(fault, func(t *testing.T) {
			only(t, `
duration: 30s
services: {api: {service_time: constant 10ms}}
arrivals: [{to: api, rate: 400}]
failures: [{at: 10s, for: 10s, service: api, fault: `+fault+`}]
expect: ["`+strings.Join(append(expect, "goodput >= 100% to 9s"), `", "`)+`"]
policies: {"*": {timeout: 5s, retry: off, outlier: off}}
`)
		})
	}
}

// TestStall: what waits is served afterwards.
func TestStall(t *testing.T) {
	s := only(t, `
duration: 30s
services: {api: {service_time: constant 1ms, slots: 10}}
arrivals: [{to: api, rate: 50}]
failures: [{at: 10s, for: 5s, service: api, fault: stall}]
expect: ["goodput >= 100%", "max >= 4.9s", "max <= 5.1s", "max < 5ms from 15.1s"]
`+off)
	if w := s.Work; w.MostWaiting < 200 || w.MostWaiting > 300 || w.Served != s.Counts.Sent {
		t.Errorf("%+v", w)
	}
}

// TestUnreachable: connections time out, and retries find another endpoint.
func TestUnreachable(t *testing.T) {
	s := only(t, `
duration: 30s
services: {api: {endpoints: 3, service_time: constant 1ms}}
arrivals: [{to: api, rate: 50}]
failures: [{at: 0s, service: api, endpoints: [2], fault: unreachable}]
policies: {"*": {connect_timeout: 200ms, outlier: off, retry: {budget_percent: 100}, balance: {algorithm: weighted_round_robin}}}
expect: ["goodput >= 100%", "p99 >= 200ms", "max <= 230ms", "attempts >= 1.3", "attempts <= 1.4"]
`)
	if s.Counts.Retries == 0 {
		t.Errorf("%+v", s.Counts)
	}
}

// TestDownBreaksWhatRuns: requests that are worked on are cut off.
func TestDownBreaksWhatRuns(t *testing.T) {
	s := only(t, `
duration: 20s
services: {api: {service_time: constant 5s, slots: 100}}
arrivals: [{to: api, rate: 10, process: even}]
failures: [{at: 10s, for: 1s, service: api, fault: down}]
`+off)
	if n := s.Reasons["upstream_reset"]; n < 49 || n > 51 {
		t.Errorf("%v", s.Reasons)
	}
	if n := s.Reasons["connect_failed"]; n < 9 || n > 11 {
		t.Errorf("%v", s.Reasons)
	}
}

// TestQueueOrder: under overload the last come are served at once when they go
// first, and nobody in time when they go last.
func TestQueueOrder(t *testing.T) {
	for order, expect := range map[string]string{"lifo: true": "goodput >= 45% from 10s", "lifo: false": "goodput <= 5% from 10s"} {
		only(t, `
duration: 60s
services: {api: {slots: 1, queue: 100000, service_time: constant 10ms, `+order+`}}
arrivals: [{to: api, rate: 200}]
policies: {"*": {timeout: 500ms, retry: off, outlier: off}}
expect: ["`+expect+`"]
`)
	}
}

// TestCancels: a server that notices finishes nothing for nobody. What it began too
// late to be in time is lost all the same.
func TestCancels(t *testing.T) {
	for cancels, expect := range map[string]string{"true": "throughput >= 30 from 10s", "false": "throughput <= 5 from 10s"} {
		s := only(t, `
duration: 60s
services: {api: {slots: 1, queue: 100000, service_time: constant 10ms, cancels: `+cancels+`}}
arrivals: [{to: api, rate: 200}]
policies: {"*": {timeout: 500ms, retry: off, outlier: off}}
expect: ["`+expect+`"]
`)
		if cancels == "true" && s.Work.Wasted != 0 || cancels == "false" && s.Work.Wasted < 1000 {
			t.Errorf("cancels: %s: %+v", cancels, s.Work)
		}
	}
}

// TestCalls: the time and the failures of those that are called are the
// caller's, and a slot is held meanwhile.
func TestCalls(t *testing.T) {
	r := Simulate(parse(t, `
duration: 60s
services:
  web: {service_time: constant 5ms, network: 0s, calls: [{service: api}, {service: db, percent: 50}, {service: api}]}
  api: {service_time: constant 10ms, network: 0s}
  db: {service_time: constant 100ms, network: 0s}
arrivals: [{to: web, rate: 100}]
failures: [{at: 50s, service: db, fault: error 100%}]
expect:
  - max <= 126ms
  - p50 of api <= 11ms
  - amplification of api >= 1.99 to 50s
  - amplification of api <= 2.01 to 50s
  - amplification of db >= 0.45 to 50s
  - failed >= 45% from 50s
  - failed <= 55% from 50s
  - failed <= 0% to 49s
`+off))
	for _, c := range r.Runs[0].Checks {
		if !c.Held {
			t.Errorf("%s: %s", c.Expected, c.Found)
		}
	}
	if s := r.Runs[0].Services; s[0].Name != "web" || len(s) != 3 {
		t.Errorf("the caller does not come first: %v", s[0].Name)
	}
}

// TestDeadlineOfTheCaller: what is called is given up when the caller's time is
// over, through all layers.
func TestDeadlineOfTheCaller(t *testing.T) {
	s := Simulate(parse(t, `
duration: 20s
services:
  web: {service_time: constant 5ms, calls: [{service: api}]}
  api: {service_time: constant 10s}
arrivals: [{to: web, rate: 10}]
policies: {web: {timeout: 1s, retry: off, outlier: off}, api: {retry: off, outlier: off}}
`)).Runs[0].Service("api")
	if s.Reasons["request_timeout"] != s.Counts.Offered || s.Counts.Offered < 150 {
		t.Errorf("%v of %d", s.Reasons, s.Counts.Offered)
	}
}

func TestUnlikeEndpoints(t *testing.T) {
	s := Simulate(parse(t, `
duration: 60s
services: {api: {endpoints: 3, service_time: constant 10ms, unlike: [{endpoints: [1], weight: 8}, {endpoints: [2], service_time: constant 50ms}]}}
arrivals: [{to: api, rate: 100}]
policies: {"*": {retry: off, outlier: off, balance: {algorithm: weighted_round_robin}}}
expect: ["under 20ms >= 89.5%", "under 20ms <= 90.5%"]
`))
	if !s.Met() {
		t.Errorf("%+v", s.Runs[0].Checks)
	}
}

// TestProfile: arrivals come when the rate summed up says so.
func TestProfile(t *testing.T) {
	a := &scenario.Arrival{Rate: 10, Steps: []scenario.Step{{At: 10 * time.Second, Rate: 30, Over: 10 * time.Second}, {At: 30 * time.Second, Rate: 0}, {At: 40 * time.Second, Rate: 20}}}
	p := newProfile(a)
	counts := map[time.Duration]int{}
	for now := p.after(0, 1); now < 50*time.Second; now = p.after(now, 1) {
		counts[now/(10*time.Second)]++
	}
	// 10 a second; from 10 to 30; 30; none; 20.
	if want := map[time.Duration]int{0: 100, 1: 200, 2: 300, 4: 200}; !near(counts, want) {
		t.Errorf("%v, want %v", counts, want)
	}
	if at := newProfile(&scenario.Arrival{Rate: 0, Steps: []scenario.Step{{At: time.Second, Rate: 1}, {At: 2 * time.Second, Rate: 0, Over: time.Second}}}).after(0, 100); at != forever {
		t.Errorf("an arrival at %v where none comes", at)
	}
}

func near(got, want map[time.Duration]int) bool {
	for k := range got {
		if math.Abs(float64(got[k]-want[k])) > 1 {
			return false
		}
	}
	return len(got) == len(want)
}

// everything has all that can happen at once.
const everything = `
duration: 40s
services:
  web: {endpoints: 3, slots: 20, queue: 30, service_time: lognormal p50 3ms p99 40ms, cancels: true, calls: [{service: api}, {service: db, percent: 30}]}
  api: {endpoints: 5, slots: 4, queue: 10, lifo: true, service_time: exponential 20ms, calls: [{service: db}]}
  db: {endpoints: 2, slots: 30, queue: 5, service_time: bimodal 2ms 2% 300ms, cancels: true}
arrivals:
  - {to: web, rate: 100, steps: [{at: 10s, rate: 400, over: 5s}, {at: 25s, rate: 50}], proxies: 3, non_idempotent_percent: 20, keys: 10}
  - {to: api, users: 20, think: uniform 10ms 100ms}
failures:
  - {at: 5s, for: 3s, service: api, endpoints: [1, 2], fault: slow x10}
  - {at: 7s, for: 3s, service: api, endpoints: [2, 3], fault: down}
  - {at: 9s, for: 4s, service: db, endpoints: [1], fault: stall}
  - {at: 12s, for: 4s, service: db, fault: lossy 5%}
  - {at: 14s, for: 4s, service: api, fault: error 20%}
  - {at: 16s, for: 4s, service: api, fault: error 20%}
  - {at: 20s, for: 4s, service: web, endpoints: [3], fault: gray 50%}
  - {at: 24s, for: 4s, service: web, endpoints: [1], fault: unreachable}
  - {at: 26s, for: 4s, service: db, fault: delay 20ms}
policies:
  "*": {timeout: 400ms, retry: {attempts: 3, per_try_timeout: 150ms, budget_percent: 50}, breaker: {}, limits: {max_requests: 60}}
  db: {timeout: 200ms, balance: {algorithm: least_request}}
`

// TestConservation: what arrives ends once, in every service, and the servers
// hold nothing at the end.
func TestConservation(t *testing.T) {
	for seed := range uint64(4) {
		s := parse(t, everything)
		s.Seed = seed
		r := newRun(s, &s.Runs()[0])
		r.engine.Run(s.Duration + 2*time.Minute)
		for _, sv := range r.order {
			n := sv.stats.Total()
			if n.Offered != n.Ended() || sv.stats.Active() != 0 {
				t.Errorf("seed %d: %s: %d offered, %d ended, %d active", seed, sv.name, n.Offered, n.Ended(), sv.stats.Active())
			}
			if sv.Arrived != n.Sent {
				t.Errorf("seed %d: %s: %d arrived of %d attempts", seed, sv.name, sv.Arrived, n.Sent)
			}
			for _, srv := range sv.servers {
				if srv.busy != 0 || srv.waiting.len != 0 || len(srv.spare) != len(srv.jobs) || len(srv.faults) != 0 {
					t.Errorf("seed %d: %s-%d: %d busy, %d waiting, %d jobs of which %d are spare, faults %v",
						seed, sv.name, srv.number+1, srv.busy, srv.waiting.len, len(srv.jobs), len(srv.spare), srv.faults)
				}
			}
		}
		db := r.services["db"].stats.Total()
		if db.Offered == 0 || db.Retries == 0 || db.Failed == 0 {
			t.Errorf("seed %d: nothing happened: %+v", seed, db)
		}
	}
}

func TestSameSeedSameResult(t *testing.T) {
	s := parse(t, everything)
	a, b := Simulate(s), Simulate(s)
	if !reflect.DeepEqual(a, b) {
		t.Error("two runs of one seed differ")
	}
	s.Seed++
	if reflect.DeepEqual(a.Runs[0].Services, Simulate(s).Runs[0].Services) {
		t.Error("two seeds give the same")
	}
}

// TestVariantsSeeTheSameArrivals: a policy does not change what comes.
func TestVariantsSeeTheSameArrivals(t *testing.T) {
	r := Simulate(parse(t, `
services: {api: {endpoints: 3, slots: 2, service_time: exponential 10ms}}
arrivals: [{to: api, rate: 100}]
variants:
  - {name: a, policies: {"*": {retry: off}}}
  - {name: b, policies: {"*": {balance: {algorithm: random}, retry: {attempts: 4}}}}
`))
	for i := range r.Runs[0].Services[0].Points {
		if a, b := r.Runs[0].Services[0].Points[i].Offered, r.Runs[1].Services[0].Points[i].Offered; a != b {
			t.Fatalf("second %d has %d and %d requests", i, a, b)
		}
	}
}

func TestNothingToJudge(t *testing.T) {
	r := Simulate(parse(t, `
duration: 10s
services: {api: {}}
arrivals: [{to: api, rate: 0, steps: [{at: 5s, rate: 10}]}]
expect: [goodput >= 0% to 4s, p99 < 1h to 4s, attempts >= 0 to 4s]
`))
	for _, c := range r.Runs[0].Checks {
		if c.Held {
			t.Errorf("%s holds of nothing: %s", c.Expected, c.Found)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

// TestChart: it is well-formed, whatever there is to draw.
func TestChart(t *testing.T) {
	for _, text := range []string{everything, `
duration: 1s
services: {api: {}}
arrivals: [{to: api, rate: 0, steps: [{at: 500ms, rate: 1}]}]`, `
duration: 2000s
title: "<script> & co"
services: {api: {service_time: exponential 1us, network: 0s}}
arrivals: [{to: api, rate: 1}]
failures: [{at: 1s, service: api, fault: error 100%}]
variants: [{name: "<a>", policies: {}}, {name: b}]`} {
		svg := Simulate(parse(t, text)).Chart()
		d := xml.NewDecoder(bytes.NewReader(svg))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v\n%s", err, svg)
			}
		}
		if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) || len(svg) > 100<<10 {
			t.Errorf("%d bytes of chart:\n%.2000s", len(svg), svg)
		}
	}
}

// TestQueueModel: the queue of a server against a slice.
func TestQueueModel(t *testing.T) {
	r := replay.NewRandom(1)
	var q fifo
	var model []uint64
	next := uint64(0)
	for range 20_000 {
		switch r.Next() % 5 {
		case 0, 1:
			next++
			q.push(next)
			model = append(model, next)
		case 2:
			if len(model) > 0 {
				i := r.Next() % uint64(len(model))
				q.remove(model[i])
				model = append(model[:i:i], model[i+1:]...)
			}
		default:
			last := r.Next()%2 == 0
			want := uint64(0)
			if n := len(model); n > 0 && last {
				want, model = model[n-1], model[:n-1]
			} else if n > 0 {
				want, model = model[0], model[1:]
			}
			if got := q.pop(last); got != want {
				t.Fatalf("popped %d, want %d", got, want)
			}
		}
		if q.len != len(model) {
			t.Fatalf("%d wait, want %d", q.len, len(model))
		}
	}
}
