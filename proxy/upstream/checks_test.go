package upstream

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func checkConfig(change func(*health.Config)) *health.Config {
	cfg := health.Default()
	cfg.TCP = &health.TCP{}
	if change != nil {
		change(&cfg)
	}
	return &cfg
}

// checkAll gives every endpoint one result, by its index.
func (b *bed) checkAll(now time.Duration, result func(i int) health.Result) {
	b.t.Helper()
	due, _ := b.r.DueChecks(nil, math.MaxInt64, 1000)
	var results []CheckResult
	for _, d := range due {
		for i, e := range d.Endpoint.cluster.list() {
			if e == d.Endpoint {
				results = append(results, CheckResult{Check: d, Result: result(i)})
			}
		}
	}
	if len(results) == 0 {
		b.t.Fatal("nothing is due")
	}
	b.r.Checked(now, results)
}

func failing(which ...int) func(int) health.Result {
	return func(i int) health.Result {
		for _, w := range which {
			if w == i {
				return health.Result{Cause: health.Connect, Detail: "refused"}
			}
		}
		return health.Result{}
	}
}

// picked are the endpoints that traffic goes to.
func picked(c *Cluster) string {
	var b strings.Builder
	s := c.set.Load()
	for i := range s.picker.Len() {
		b.WriteByte(byte('0' + s.picker.Member(i).Index))
	}
	return b.String()
}

// TestVerdictsTogether: traffic goes where neither the catalog nor the checks
// nor ejection object; too few of those, and the panic rule holds as ever.
func TestVerdictsTogether(t *testing.T) {
	b := newBed(t)
	ejection := outlier.Default()
	ejection.ConsecutiveFailures, ejection.KeepEndpoints = 1, 1
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Health, s.Policy.Outlier = checkConfig(nil), &ejection }), telemetry.Outbound)
	defer b.r.Release(c)
	list := numbered(5)
	list[0].Healthy = false
	b.r.SetEndpoints("api", list)
	expect := func(when, want string) {
		t.Helper()
		if got := picked(c); got != want {
			t.Errorf("%s: traffic goes to %s, want %s", when, got, want)
		}
	}
	expect("unchecked", "1234")
	b.checkAll(time.Second, failing(1))
	expect("1 fails its first check", "234")
	e := c.list()[2]
	c.Begin(e, time.Second)
	c.Finish(e, time.Second, time.Millisecond, outcome.UpstreamReset, 0)
	expect("2 is ejected", "34")
	b.checkAll(2*time.Second, failing())
	b.checkAll(3*time.Second, failing())
	expect("all pass, which ends no ejection and says nothing against the catalog", "134")
	b.r.SetEndpoints("api", numbered(5))
	expect("the catalog takes 0 back", "0134")
	for range 3 {
		b.checkAll(4*time.Second, failing(0, 1, 3, 4))
	}
	expect("only the ejected one passes", "01234")
	if !strings.Contains(b.lg.String(), "event=panic ") {
		t.Error("the panic is not told")
	}
}

func TestInitialUnhealthy(t *testing.T) {
	b := newBed(t)
	c := b.r.Acquire(spec(func(s *Spec) {
		s.Policy.Health = checkConfig(func(c *health.Config) { c.Initial = health.InitialUnhealthy })
	}), telemetry.Outbound)
	defer b.r.Release(c)
	b.r.SetEndpoints("api", numbered(2))
	if got := picked(c); got != "01" {
		t.Errorf("a wholly new cluster: traffic goes to %s; the panic rule uses all", got)
	}
	b.checkAll(time.Second, failing())
	b.r.SetEndpoints("api", numbered(3))
	if got := picked(c); got != "01" {
		t.Errorf("one is new: traffic goes to %s", got)
	}
	b.checkAll(2*time.Second, failing())
	if got := picked(c); got != "012" {
		t.Errorf("its first check has passed: traffic goes to %s", got)
	}
}

func TestObservedChecks(t *testing.T) {
	b := newBed(t)
	b.r.SetEndpoints("api", at(b.server()))
	cfg := checkConfig(func(c *health.Config) { c.Mode = guard.Observe })
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Health, s.Policy.Balance.PanicPercent = cfg, 0 }), telemetry.Outbound)
	defer b.r.Release(c)
	e := c.list()[0]
	e.Put(b.get(e, Want{}), b.sw.Now())
	b.checkAll(time.Second, failing(0))
	if got := picked(c); got != "0" {
		t.Errorf("traffic goes to %q", got)
	}
	b.wantConnections(c, 1, 1)
	if !strings.Contains(b.lg.String(), "event=health_unhealthy") || !strings.Contains(b.lg.String(), "mode=observe") {
		t.Errorf("log: %s", b.lg.String())
	}

	// To enforce it begins to count at once, and a new state is not needed.
	enforced := *cfg
	enforced.Mode = guard.Enforce
	b.r.Acquire(spec(func(s *Spec) { s.Policy.Health, s.Policy.Balance.PanicPercent = &enforced, 0 }), telemetry.Outbound)
	b.r.Release(c)
	if got := picked(c); got != "" {
		t.Errorf("enforced: traffic goes to %q", got)
	}
}

// TestReloadKeepsChecks: a reload with the same checks changes nothing, with
// others keeps the state, and turning them off and on begins anew.
func TestReloadKeepsChecks(t *testing.T) {
	b := newBed(t)
	b.r.SetEndpoints("api", numbered(3))
	with := func(cfg *health.Config) func(*Spec) { return func(s *Spec) { s.Policy.Health = cfg } }
	c := b.r.Acquire(spec(with(checkConfig(nil))), telemetry.Outbound)
	b.checkAll(time.Second, failing(1))
	before := c.list()[0].check.snapshot()
	reload := func(cfg *health.Config) {
		b.r.Acquire(spec(with(cfg)), telemetry.Outbound)
		b.r.Release(c)
	}
	reload(checkConfig(nil))
	if got := c.list()[0].check.snapshot(); got != before || picked(c) != "02" {
		t.Errorf("%+v, traffic goes to %s", got, picked(c))
	}
	reload(checkConfig(func(c *health.Config) { c.TCP.Expect = "220" }))
	if got := c.list()[1].check.state(); got != health.Unhealthy || picked(c) != "02" {
		t.Errorf("other checks: %s, traffic goes to %s", got, picked(c))
	}
	if _, endpoints := b.r.States(); endpoints[1].Check == nil || endpoints[1].CheckConfig.TCP.Expect != "220" {
		t.Errorf("%+v", endpoints[1])
	}
	reload(nil)
	if due, next := b.r.DueChecks(nil, math.MaxInt64, 1000); len(due) != 0 || next != math.MaxInt64 || picked(c) != "012" {
		t.Errorf("off: %d due, traffic goes to %s", len(due), picked(c))
	}
	if _, endpoints := b.r.States(); endpoints[1].Check != nil {
		t.Errorf("off: %+v", endpoints[1].Check)
	}
	reload(checkConfig(nil))
	if got := c.list()[1].check.state(); got != health.Unknown || picked(c) != "012" {
		t.Errorf("on again: %s, traffic goes to %s", got, picked(c))
	}
	b.r.Release(c)
}

// TestUnhealthyLosesItsConnections: what is kept to it would only fail.
func TestUnhealthyLosesItsConnections(t *testing.T) {
	b := newBed(t)
	b.r.SetEndpoints("api", at(b.server()))
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Health = checkConfig(nil) }), telemetry.Outbound)
	defer b.r.Release(c)
	e := c.list()[0]
	e.Put(b.get(e, Want{}), b.sw.Now())
	b.checkAll(time.Second, failing())
	b.wantConnections(c, 1, 1)
	b.checkAll(time.Second, func(int) health.Result { return health.Result{Cause: health.NotServing} })
	b.wantConnections(c, 0, 0)
}

// TestSlowReturn: an endpoint that was down starts slowly, as a new one does.
func TestSlowReturn(t *testing.T) {
	b := newBed(t)
	b.r.SetEndpoints("api", numbered(2))
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Health = checkConfig(nil) }), telemetry.Outbound)
	defer b.r.Release(c)
	b.checkAll(time.Second, failing(1))
	for i := range 2 {
		b.checkAll(time.Duration(2+i)*time.Second, failing())
	}
	s := c.set.Load()
	for i, want := range []time.Duration{-1, 3 * time.Second} {
		if got := s.picker.Member(i).Since; got != want {
			t.Errorf("endpoint %d is there since %s, want %s", i, got, want)
		}
	}
	if clusters, _ := b.r.States(); clusters[0].Unhealthy != 0 {
		t.Errorf("%d are unhealthy", clusters[0].Unhealthy)
	}
}

// TestDueChecks: the longest due first, each once, and when to ask again.
func TestDueChecks(t *testing.T) {
	b := newBed(t)
	b.r.SetEndpoints("api", numbered(3))
	c := b.r.Acquire(spec(func(s *Spec) { s.Policy.Health = checkConfig(nil) }), telemetry.Outbound)
	defer b.r.Release(c)
	if n := len(b.r.ChecksChanged()); n != 1 {
		t.Error("new endpoints wake nobody")
	}
	for i, e := range c.list() {
		// Due at 30 s, 20 s and 10 s.
		e.check.judge().Restart(&health.Config{}, time.Duration(30-10*i)*time.Second, 0)
	}
	if due, next := b.r.DueChecks(nil, 5*time.Second, 9); len(due) != 0 || next != 10*time.Second {
		t.Errorf("%d due, next %s", len(due), next)
	}
	due, next := b.r.DueChecks(nil, 25*time.Second, 1)
	if len(due) != 1 || due[0].Endpoint != c.list()[2] || next != 25*time.Second {
		t.Errorf("%d due, next %s", len(due), next)
	}
	due, next = b.r.DueChecks(due, 25*time.Second, 9)
	if len(due) != 2 || due[1].Endpoint != c.list()[1] || next != 30*time.Second {
		t.Errorf("%d due, next %s", len(due), next)
	}
	if again := b.r.Checked(25*time.Second, []CheckResult{{Check: due[0]}, {Check: due[1], Void: true}}); again != 20*time.Second {
		t.Errorf("to be asked again at %s; the one given up is still due", again)
	}
	due, _ = b.r.DueChecks(nil, 25*time.Second, 9)
	if len(due) != 1 || due[0].Endpoint != c.list()[1] {
		t.Errorf("%d due", len(due))
	}
}

// TestResultWords: telemetry counts under the words of the machine.
func TestResultWords(t *testing.T) {
	for c := range health.CauseCount {
		if got := telemetry.CheckResult(c).String(); got != c.String() {
			t.Errorf("%s is counted as %s", c, got)
		}
	}
}
