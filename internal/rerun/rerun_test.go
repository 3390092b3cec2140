package rerun

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// under reruns tr under the configuration in text.
func under(t testing.TB, tr *Trace, text string) *Result {
	t.Helper()
	l, err := config.ParseEffective("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := tr.Under(l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRecorded(t testing.TB, tr *Trace) *Result {
	t.Helper()
	r, err := tr.Recorded()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordedIsReproducedExactly(t *testing.T) {
	tr := busy(20_000, policy("breaker: {}, timeout: 1s"))
	v := tr.Compare(mustRecorded(t, tr), nil).Clusters[0]
	a, b := v.Recorded, v.Replayed
	b.RefusedGood, b.RefusedInferred = nil, nil
	if a != b || v.Off != 0 {
		t.Errorf("recorded %+v\nreplayed %+v", a, b)
	}
	if a.Requests != 20_000 || a.Retries == 0 {
		t.Errorf("%+v", a)
	}
	again := tr.Compare(mustRecorded(t, tr), nil).Clusters[0].Replayed
	again.RefusedGood, again.RefusedInferred = nil, nil
	if again != b {
		t.Error("two replays of one log differ")
	}
}

// The same configuration given by hand comes to the same as that of the log.
func TestTheSameConfigurationIsTheSame(t *testing.T) {
	text := policy("breaker: {}, timeout: 1s")
	tr := busy(5000, text)
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, text)).Clusters[0]
	if v.New.Good != v.Replayed.Good || v.New.Attempts != v.Replayed.Attempts || v.New.P99 != v.Replayed.P99 {
		t.Errorf("%+v\n%+v", v.Replayed, v.New)
	}
	if c := v.New.Confidence; c.Observed != 100 || c.Picks != 100 || c.Word() != "high" {
		t.Errorf("%+v", c)
	}
}

// Another attempt at the only endpoint does not end as the one that failed.
func TestARetryIsAnotherAttempt(t *testing.T) {
	p := newTape(policy("retry: off"), 1)
	for i := range 1000 {
		at := 2*time.Second + time.Duration(i)*5*time.Millisecond
		if i%50 == 0 {
			p.ask(at, outcomes.Exchange{}, failed(0, 0, time.Millisecond, outcome.UpstreamError, 503))
		} else {
			p.ask(at, outcomes.Exchange{}, good(0, 0, time.Millisecond))
		}
	}
	tr := p.trace()
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, policy(""))).Clusters[0]
	if v.New.Retries != 20 || v.New.Bad > 4 || v.New.Confidence.Endpoint == 0 {
		t.Errorf("%+v %+v", v.New.Figures, v.New.Confidence)
	}
}

// A slow endpoint is hedged: those who would have waited are answered elsewhere.
func TestHedging(t *testing.T) {
	p := newTape(policy("retry: off"), 4)
	for i := range 4000 {
		took := 5 * time.Millisecond
		if i%100 == 0 {
			took = 200 * time.Millisecond
		}
		p.ask(2*time.Second+time.Duration(i)*5*time.Millisecond, outcomes.Exchange{}, good(i%4, 0, took))
	}
	tr := p.trace()
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, policy("retry: off, hedge: {delay: 20ms}"))).Clusters[0]
	if v.New.Hedges != 40 || v.New.P999 > 60 || v.Replayed.P999 < 190 || v.New.Good != v.New.Requests {
		t.Errorf("%+v", v.New.Figures)
	}
}

// Without retries what a retry had saved fails; nothing else changes.
func TestWithoutRetries(t *testing.T) {
	tr := busy(20_000, policy(""))
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, policy("retry: off"))).Clusters[0]
	if v.New.Retries != 0 || v.New.Bad != v.Replayed.Retries || v.New.Good+v.New.Bad != v.New.Requests || v.New.ExtraLoad != 0 {
		t.Errorf("%+v\n%+v", v.Replayed, v.New.Figures)
	}
	if v.New.Confidence.Observed != 100 {
		t.Errorf("%+v", v.New.Confidence)
	}
}

// faulty is a log in which one of three endpoints fails at once, for 20 s, and nobody
// ejects it; every failure was tried again and answered elsewhere.
func faulty(cfg string) *Trace {
	p := newTape(cfg, 3)
	for i := range 4000 {
		at := 2*time.Second + time.Duration(i)*10*time.Millisecond
		e, took := i%3, 5*time.Millisecond
		if s := at - 12*time.Second; e == 1 && s >= 0 && s < 20*time.Second {
			p.ask(at, outcomes.Exchange{}, again(failed(e, 0, time.Millisecond, outcome.ConnectFailed, 0), time.Millisecond), good(2, 2*time.Millisecond, took))
			continue
		}
		p.ask(at, outcomes.Exchange{}, good(e, 0, took))
	}
	return p.trace()
}

// An ejection that was not made saves attempts, at the price of ends that are inferred.
func TestEjectionThatWasNotMade(t *testing.T) {
	tr := faulty(policy("outlier: off"))
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, policy("outlier: {consecutive_failures: 5}"))).Clusters[0]
	n := v.New
	if v.Replayed.Ejections != 0 || n.Ejections == 0 || n.Readmissions == 0 {
		t.Fatalf("ejections: %+v", n.Figures)
	}
	if n.Retries*5 > v.Replayed.Retries || n.Bad != 0 || n.Good != n.Requests {
		t.Errorf("%d retries of %d are left; %+v", n.Retries, v.Replayed.Retries, n.Figures)
	}
	if c := n.Confidence; c.Observed < 70 || c.Observed > 99.9 || c.Endpoint == 0 || c.Guessed > 1 || c.Word() != "good" {
		t.Errorf("%+v %s", c, c.Word())
	}
}

// A shorter timeout cuts those that took longer, which is observed; a longer one than
// was in force waits for ends that nobody has seen.
func TestTimeouts(t *testing.T) {
	p := newTape(policy("timeout: 100ms, retry: off"), 2)
	for i := range 1000 {
		at := 2*time.Second + time.Duration(i)*10*time.Millisecond
		switch {
		case i%10 == 0: // given up
			p.ask(at, outcomes.Exchange{}, failed(0, 0, 101*time.Millisecond, outcome.RequestTimeout, 0))
		case i%10 == 1:
			p.ask(at, outcomes.Exchange{}, good(1, 0, 60*time.Millisecond))
		default:
			p.ask(at, outcomes.Exchange{}, good(i%2, 0, 10*time.Millisecond))
		}
	}
	tr := p.trace()
	same := mustRecorded(t, tr)
	v := tr.Compare(same, under(t, tr, policy("timeout: 50ms, retry: off"))).Clusters[0]
	if v.Off != 0 || v.Recorded.Bad != 100 {
		t.Errorf("recorded %+v\nreplayed %+v", v.Recorded, v.Replayed)
	}
	if v.New.Bad != 200 || v.New.Confidence.Observed != 100 {
		t.Errorf("with 50ms: %+v %+v", v.New.Figures, v.New.Confidence)
	}
	v = tr.Compare(same, under(t, tr, policy("timeout: 1s, retry: off"))).Clusters[0]
	if v.New.Bad != 100 || v.New.Confidence.Guessed != 10 {
		t.Errorf("with 1s: %+v %+v", v.New.Figures, v.New.Confidence)
	}
	// Once such an endpoint is known to answer later, that is drawn from.
	p.ask(20*time.Second, outcomes.Exchange{}, good(0, 0, 300*time.Millisecond))
	tr = p.trace()
	if v := under(t, tr, policy("timeout: 1s, retry: off")).Clusters[0].Figures(); v.Bad != 0 {
		t.Errorf("with 1s and a longer answer known: %+v", v)
	}
}

// An answer that came after its time, as the proxy could not end the wait for it, was
// taken, and is under the same times; under shorter ones it is cut.
func TestAnswersThatWereLate(t *testing.T) {
	conf := func(try string) string {
		return policy("retry: {attempts: 2, per_try_timeout: " + try + "}")
	}
	p := newTape(conf("60ms"), 2)
	for i := range 100 {
		at := 2*time.Second + time.Duration(i)*10*time.Millisecond
		switch i % 10 {
		case 0:
			p.ask(at, outcomes.Exchange{}, good(0, 0, 170*time.Millisecond))
		case 1: // given up much too late
			p.ask(at, outcomes.Exchange{}, again(failed(0, 0, 400*time.Millisecond, outcome.TryTimeout, 0), time.Millisecond), good(1, 401*time.Millisecond, time.Millisecond))
		default:
			p.ask(at, outcomes.Exchange{}, good(i%2, 0, time.Millisecond))
		}
	}
	tr := p.trace()
	same := mustRecorded(t, tr)
	v := tr.Compare(same, under(t, tr, conf("60ms"))).Clusters[0]
	if v.Off != 0 || v.Replayed.Retries != 10 || v.New.Retries != 10 || v.New.Confidence.Observed != 100 {
		t.Errorf("recorded %+v\nreplayed %+v\nunder the same %+v", v.Recorded, v.Replayed, v.New)
	}
	if v := tr.Compare(same, under(t, tr, conf("59ms"))).Clusters[0]; v.New.Retries < 20 {
		t.Errorf("under a shorter time %+v", v.New)
	}
}

// A limit refuses what goes beyond it, and it is told that it was good.
func TestLimitRefusesTheGood(t *testing.T) {
	p := newTape(policy(""), 2)
	for i := range 300 {
		p.ask(2*time.Second+time.Duration(i)*10*time.Millisecond, outcomes.Exchange{}, good(i%2, 0, 25*time.Millisecond)) // two or three at a time
	}
	tr := p.trace()
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, policy("limits: {max_requests: 2}"))).Clusters[0]
	if v.New.Refused < 90 || v.New.Refused > 110 || *v.New.RefusedGood != v.New.Refused || *v.New.RefusedInferred != 0 {
		t.Errorf("%+v, refused good %d", v.New.Figures, *v.New.RefusedGood)
	}
}

// A breaker that had refused requests is taken away: what comes of them is inferred.
func TestWhatWasRefusedIsInferred(t *testing.T) {
	p := newTape(policy("breaker: {consecutive_failures: 5, open_for: 1s}, retry: off, outlier: off"), 2)
	at := 2 * time.Second
	for i := range 5 {
		p.ask(at+time.Duration(i)*time.Millisecond, outcomes.Exchange{}, failed(0, 0, 500*time.Microsecond, outcome.UpstreamError, 503))
	}
	for i := range 50 {
		p.ask(at+time.Duration(10+i)*10*time.Millisecond, outcomes.Exchange{Reason: outcome.BreakerOpen, Status: 503, Duration: 20 * time.Microsecond, Refused: 10 * time.Microsecond})
	}
	for i := range 100 {
		p.ask(at+1100*time.Millisecond+time.Duration(i)*10*time.Millisecond, outcomes.Exchange{}, good(i%2, 0, time.Millisecond))
	}
	tr := p.trace()
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, policy("breaker: off, retry: off, outlier: off"))).Clusters[0]
	if v.Replayed.Refused != 50 || v.Off != 0 {
		t.Errorf("recorded %+v\nreplayed %+v", v.Recorded, v.Replayed)
	}
	if v.New.Refused != 0 || v.New.Good <= v.Replayed.Good || v.New.Confidence.Endpoint+v.New.Confidence.Peers == 0 {
		t.Errorf("%+v %+v", v.New.Figures, v.New.Confidence)
	}
}

// Ejections are reproduced with the random words that they had: their ends are the same.
func TestEjectionsWithTheirWords(t *testing.T) {
	p := newTape(policy("outlier: {consecutive_failures: 3, base_ejection: 1s, max_ejection: 10s, window: 1s}, retry: off"), 4)
	at := 2 * time.Second
	for i := range 3 {
		p.ask(at+time.Duration(i)*10*time.Millisecond, outcomes.Exchange{}, failed(0, 0, time.Millisecond, outcome.UpstreamError, 500))
	}
	end := at + 21*time.Millisecond
	p.event(outcomes.Event{Kind: outcomes.Judged, At: end, Cluster: "api", Endpoint: address(0), Verdict: outlier.KindEjected, Cause: outlier.ConsecutiveFailures, Until: end + time.Second, Random: 0})
	// The turn at which its time is over comes late, when the proxy gets a processor.
	p.event(outcomes.Event{Kind: outcomes.Judged, At: 4217 * time.Millisecond, Cluster: "api", Endpoint: address(0), Verdict: outlier.KindProbation, Cause: outlier.ConsecutiveFailures})
	for i := range 300 {
		e := 1
		if i == 220 {
			e = 0 // the probe
		}
		p.ask(at+30*time.Millisecond+time.Duration(i)*10*time.Millisecond, outcomes.Exchange{}, good(e, 0, time.Millisecond))
	}
	tr := p.trace()
	r := mustRecorded(t, tr)
	v := tr.Compare(r, nil).Clusters[0]
	if v.Off != 0 || v.Replayed.Ejections != 1 || v.Replayed.Readmissions != 1 || v.Recorded.Ejections != 1 {
		t.Errorf("recorded %+v\nreplayed %+v", v.Recorded, v.Replayed)
	}
	if r.Clusters[0].Ends[Observed] != v.Recorded.Attempts {
		t.Errorf("ends: %v", r.Clusters[0].Ends)
	}
}

// Two processes in one log: the second knows nothing of the first one's ejections.
func TestAnotherProcess(t *testing.T) {
	cfg := policy("outlier: {consecutive_failures: 3, base_ejection: 10m, max_ejection: 10m}, retry: off")
	p := newTape(cfg, 4)
	for i := range 3 {
		p.ask(2*time.Second+time.Duration(i)*10*time.Millisecond, outcomes.Exchange{}, failed(0, 0, time.Millisecond, outcome.UpstreamError, 500))
	}
	p.epoch, p.wall = 2, p.wall.Add(time.Minute)
	p.event(outcomes.Event{Kind: outcomes.Configured, At: time.Second, Version: 1, Text: cfg})
	p.event(outcomes.Event{Kind: outcomes.Endpoints, At: time.Second, Cluster: "api", List: []outcomes.Endpoint{{Address: address(0), Weight: 1, Usable: true}, {Address: address(1), Weight: 1, Usable: true}}})
	for i := range 10 {
		p.ask(2*time.Second+time.Duration(i)*10*time.Millisecond, outcomes.Exchange{}, good(i%2, 0, time.Millisecond))
	}
	tr := p.trace()
	r := mustRecorded(t, tr)
	if n := r.Clusters[0]; n.Ends[Observed] != 13 || n.Stats.Total().Ejections != 1 || n.Stats.Total().Good != 10 {
		t.Errorf("ends %v, %+v", n.Ends, n.Stats.Total())
	}
}

// A caller that went is gone in every replay; what no policy decides is left out.
func TestCallersAndOthers(t *testing.T) {
	p := newTape(policy("timeout: 5s"), 1)
	p.ask(2*time.Second, outcomes.Exchange{}, failed(0, 0, 50*time.Millisecond, outcome.DownstreamGone, 0))
	p.ask(3*time.Second, outcomes.Exchange{}, good(0, 0, time.Millisecond))
	p.ask(4*time.Second, outcomes.Exchange{Reason: outcome.Denied, Status: 403})
	p.ask(4*time.Second, outcomes.Exchange{Reason: outcome.RateLimited, Status: 429})
	tr := p.trace()
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, policy("timeout: 9s")))
	if c := v.Clusters[0]; v.Outside != 2 || c.Recorded.Requests != 2 || c.Off != 0 || c.New.Bad != 1 || c.New.Good != 1 {
		t.Errorf("%d outside; %+v", v.Outside, c)
	}
}

// What a route changes in the policy holds for its requests.
func TestRoutes(t *testing.T) {
	text := strings.Replace(policy("timeout: 1s, retry: off"), `listen: "127.0.0.1:0"`,
		`listen: "127.0.0.1:0", routes: [{name: fast, match: {path: /fast}, timeout: %s}]`, 1)
	p := newTape(strings.Replace(text, "%s", "100ms", 1), 1)
	for i := range 10 {
		at := 2*time.Second + time.Duration(i)*100*time.Millisecond
		x := outcomes.Exchange{At: at, Cluster: "api", Route: "fast", Method: "GET", Status: 200, Duration: 50 * time.Millisecond, Attempts: 1}
		if i%2 == 0 {
			x.Route = "api"
		}
		p.l.add(&outcomes.Record{Exchange: &x, Attempts: []outcomes.Attempt{good(0, 0, 50*time.Millisecond)}, Epoch: 1})
	}
	tr := p.trace()
	v := tr.Compare(mustRecorded(t, tr), under(t, tr, strings.Replace(text, "%s", "20ms", 1))).Clusters[0]
	if v.New.Bad != 5 || v.New.Good != 5 || v.Replayed.Bad != 0 {
		t.Errorf("%+v", v.New.Figures)
	}
}

func TestALogWithoutAConfiguration(t *testing.T) {
	l := newLoader()
	tr := l.finish(0)
	if _, err := tr.Recorded(); !errors.Is(err, errNoConfig) {
		t.Error(err)
	}
	p := newTape("service: {name: web}\nno_such_key: 1\n", 1)
	if _, err := p.trace().Recorded(); err == nil || !strings.Contains(err.Error(), "no_such_key") {
		t.Error(err)
	}
}

func TestLastLeavesOutTheRest(t *testing.T) {
	p := newTape(policy(""), 1)
	for i := range 10 {
		p.ask(time.Duration(i+2)*time.Second, outcomes.Exchange{}, good(0, 0, time.Millisecond))
	}
	tr := p.l.finish(3500 * time.Millisecond)
	if f := tr.Facts()[0]; f.Requests != 4 || f.Good != 4 || tr.Outcomes() != 4 {
		t.Errorf("%d requests, %d outcomes", f.Requests, tr.Outcomes())
	}
}

func TestChartIsXML(t *testing.T) {
	tr := busy(3000, policy(""))
	same := mustRecorded(t, tr)
	b := tr.Chart(same, under(t, tr, policy("retry: off")), "api")
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"api, the recorded configuration", "api, the new configuration", "p99"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%q is not in the chart", want)
		}
	}
	if c := tr.Chart(same, nil, "none"); bytes.Contains(c, []byte("configuration")) {
		t.Error("a cluster that was not asked for is drawn")
	}
}
