package telemetry

import (
	"runtime"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// RetryWithheld is why a failed attempt was not tried again.
type RetryWithheld uint8

// The reasons to withhold a retry, in the order and with the words of the
// retry machine's own decision, less "again".
const (
	RetryAttemptsSpent RetryWithheld = iota
	RetryNotRetryable
	RetryNotIdempotent
	RetryBodyNotKept
	RetryBudgetSpent
	RetryDeadlineTooNear
	RetryNotConfigured
	RetryPushedBack
	RetryCallerRetries

	retryWithheldCount
)

var retryWithheldNames = [retryWithheldCount]string{
	"attempts_spent", "not_retryable", "not_idempotent", "body_not_kept", "budget_spent", "deadline_too_near", "not_configured", "pushed_back", "caller_retries",
}

// String returns the label value.
func (w RetryWithheld) String() string { return nameOf(retryWithheldNames[:], int(w)) }

// Limit is one of a cluster's limits.
type Limit uint8

// The limits.
const (
	LimitConnections Limit = iota
	LimitPending
	LimitRequests

	limitCount
)

var limitNames = [limitCount]string{"connections", "pending", "requests"}

// String returns the label value.
func (l Limit) String() string { return nameOf(limitNames[:], int(l)) }

// CheckResult is how an active check of an endpoint ended, in the order and
// with the words of the machine that judges them.
type CheckResult uint8

const checkResultCount = 11

var checkResultNames = [checkResultCount]string{
	"passed", "connect", "identity", "timeout", "closed", "status", "not_serving", "no_service", "protocol", "unexpected", "local",
}

// String returns the label value.
func (r CheckResult) String() string { return nameOf(checkResultNames[:], int(r)) }

// Order is what was ordered by hand for an endpoint, the first two in the order
// of the machine that keeps them.
type Order uint8

// The orders.
const (
	OrderEject    Order = iota
	OrderPin            // it gets traffic, others do not
	OrderReleased       // taken back
	OrderExpired        // its time was over

	orderCount
)

var orderNames = [orderCount]string{"eject", "pin", "release", "expire"}

// String returns the label value.
func (o Order) String() string { return nameOf(orderNames[:], int(o)) }

// Classes of response status: 0 is none (no response was sent, or TCP), 1 to
// 5 the hundreds.
const classCount = 6

var classNames = [classCount]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

func classOf(status uint16) int {
	if c := int(status / 100); c < classCount {
		return c
	}
	return 0
}

// maxShards bounds the memory of a cluster's handle.
const maxShards = 8

// shardCount is a power of two.
func shardCount() int {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxShards {
		n *= 2
	}
	return n
}

// shard is what every exchange writes, split so that cores do not fight over
// one cache line.
type shard struct {
	ok       [classCount]Counter // exchanges with outcome.OK
	active   UpDown
	duration histogram
	_        pad
}

// Cluster holds the metrics of one cluster in one direction: the destination
// of outbound exchanges, or the local application behind inbound ones.
type Cluster struct {
	handle

	shards atomic.Pointer[[]shard] // nil before the first exchange
	mask   uint32
	gauges atomic.Pointer[ClusterGauges]
	counts atomic.Pointer[clusterCounts] // nil before the first of them
	// methods are nil before the first gRPC call.
	methods atomic.Pointer[methods]

	// BreakerOpened counts the breaker's openings.
	BreakerOpened Counter
	// UpstreamConnections counts the connections made to endpoints.
	UpstreamConnections Counter
	// Spilled counts the attempts that went to another endpoint than their hash
	// says, as that one had its bounded load.
	Spilled Counter
}

// ClusterGauges are read at each scrape; a nil one is left out. They must be
// safe to call at any time and must not call Metrics.
type ClusterGauges struct {
	BreakerState   func() float64 // 0 closed, 1 half-open, 2 open
	Rejection      func() float64 // the share that admission control holds back, from 0 to 1
	RetryBudget    func() float64 // retries that may be made now
	Pending        func() float64 // requests waiting for a connection
	Most           func() float64 // exchanges that may be active; 0 unlimited
	Queue          func() float64 // exchanges waiting for their turn
	Adaptive       func() (AdaptiveState, bool)
	UpstreamActive func() float64 // upstream connections in use
	UpstreamIdle   func() float64 // upstream connections kept for later
	Endpoints      func() float64 // known endpoints
	Available      func() float64 // endpoints that may be picked
}

// Cluster returns the handle of a cluster; Release it when the cluster is
// retired.
func (m *Metrics) Cluster(name string, direction Direction) *Cluster {
	name = label(name)
	labels := []attribute.KeyValue{attribute.String("cluster", name), attribute.String("direction", direction.String())}
	return acquire(m, handleKey{kindCluster, direction, name, ""}, labels, func(h handle) *Cluster {
		return &Cluster{handle: h, mask: uint32(shardCount() - 1)}
	})
}

// Bind sets the gauges; the last call counts.
func (c *Cluster) Bind(g ClusterGauges) { c.gauges.Store(&g) }

// Begin counts an exchange as active. The shard is any number, best one that
// stays the same for a downstream connection; Finish must get the same.
func (c *Cluster) Begin(shard uint32) { c.shard(shard).active.Inc() }

// Finish counts an exchange that Begin counted: why it ended, the status sent
// downstream (0 if none), and how long it took.
func (c *Cluster) Finish(shard uint32, r outcome.Reason, status uint16, took time.Duration) {
	s := c.shard(shard)
	s.active.Dec()
	s.duration.observe(took)
	if r == outcome.OK {
		s.ok[classOf(status)].Inc()
		return
	}
	if int(r) >= outcome.Count {
		r = outcome.Internal
	}
	c.count().others[r][classOf(status)].Inc()
}

// Retried counts another attempt and why the one before it failed.
func (c *Cluster) Retried(after outcome.Reason) {
	if int(after) < outcome.Count {
		c.count().retries[after].Inc()
	}
}

// RetryWithheld counts a failed attempt that was not tried again.
func (c *Cluster) RetryWithheld(w RetryWithheld) {
	if w < retryWithheldCount {
		c.count().withheld[w].Inc()
	}
}

// Limited counts a rejection by a limit.
func (c *Cluster) Limited(l Limit) {
	if l < limitCount {
		c.count().limited[l].Inc()
	}
}

// WouldHave counts what a guard that only observed would have done.
func (c *Cluster) WouldHave(g Guard) {
	if g < guardKindCount {
		c.count().wouldHave[g].Inc()
	}
}

// WouldHaveDone returns how often WouldHave was called for g.
func (c *Cluster) WouldHaveDone(g Guard) uint64 { return c.counted().wouldHave[g].Value() }

// ConnectFailed counts a connection to an endpoint that could not be made,
// TLS included.
func (c *Cluster) ConnectFailed(r outcome.Reason) {
	if int(r) < outcome.Count {
		c.count().connectFailures[r].Inc()
	}
}

// Affinity counts what became of a client's affinity.
func (c *Cluster) Affinity(r AffinityResult) {
	if r < affinityCount {
		c.count().affinity[r].Inc()
	}
}

// Checked counts an active check of an endpoint that ended.
func (c *Cluster) Checked(r CheckResult) {
	if r < checkResultCount {
		c.count().checks[r].Inc()
	}
}

// Ordered counts what was ordered by hand for an endpoint, and its end.
func (c *Cluster) Ordered(o Order) {
	if o < orderCount {
		c.count().orders[o].Inc()
	}
}

// TunnelOpened counts a switch to another protocol, such as WebSocket.
func (c *Cluster) TunnelOpened() { c.count().tunnels.Inc() }

// TunnelEnded counts the end of what TunnelOpened counted, and why it came.
func (c *Cluster) TunnelEnded(r outcome.Reason) {
	c.count().tunnels.Dec()
	if int(r) < outcome.Count {
		c.count().tunnelsEnded[r].Inc()
	}
}

// Active returns how many exchanges are under way.
func (c *Cluster) Active() int64 {
	var n int64
	for i, all := 0, c.parts(); i < len(all); i++ {
		n += all[i].active.Value()
	}
	return n
}

// ClusterTotals are a cluster's sums since its handle was made.
type ClusterTotals struct {
	Exchanges uint64       // all that ended
	Failures  uint64       // ended with another outcome than OK
	Retries   uint64       // attempts after the first
	Durations Distribution // of all that ended
}

// Totals returns the sums so far.
func (c *Cluster) Totals() ClusterTotals {
	var t ClusterTotals
	for i, all := 0, c.parts(); i < len(all); i++ {
		all[i].duration.addTo(&t.Durations)
		for k := range all[i].ok {
			t.Exchanges += all[i].ok[k].Value()
		}
	}
	n := c.counted()
	for r := range n.others {
		for k := range n.others[r] {
			t.Failures += n.others[r][k].Value()
		}
		t.Retries += n.retries[r].Value()
	}
	t.Exchanges += t.Failures
	return t
}

func (c *Cluster) collect(s *scrape) {
	var ok [classCount]uint64
	var d Distribution
	for i, all := 0, c.parts(); i < len(all); i++ {
		for k := range ok {
			ok[k] += all[i].ok[k].Value()
		}
		all[i].duration.addTo(&d)
	}
	counts := c.counted()
	for r := range counts.others {
		for k := range classCount {
			n := counts.others[r][k].Value()
			if r == int(outcome.OK) {
				n = ok[k]
			}
			s.cell(mExchanges, uint16(r*classCount+k), n, outcome.Reason(r).String(), classNames[k])
		}
		s.cell(mRetries, uint16(r), counts.retries[r].Value(), outcome.Reason(r).String(), "")
		s.cell(mTunnels, uint16(r), counts.tunnelsEnded[r].Value(), outcome.Reason(r).String(), "")
		s.cell(mUpstreamConnectFailures, uint16(r), counts.connectFailures[r].Value(), outcome.Reason(r).String(), "")
	}
	s.histogram(mExchangeDuration, &d)
	c.methods.Load().collect(s)
	s.gauge(mExchangesActive, float64(c.Active()))
	s.gauge(mTunnelsActive, float64(counts.tunnels.Value()))
	for i := range counts.withheld {
		s.cell(mRetriesWithheld, uint16(i), counts.withheld[i].Value(), RetryWithheld(i).String(), "")
	}
	for i := range counts.limited {
		s.cell(mLimitRejections, uint16(i), counts.limited[i].Value(), Limit(i).String(), "")
	}
	for i := range counts.wouldHave {
		s.cell(mWouldHave, uint16(i), counts.wouldHave[i].Value(), Guard(i).String(), "")
	}
	for i := range counts.checks {
		s.cell(mHealthChecks, uint16(i), counts.checks[i].Value(), CheckResult(i).String(), "")
	}
	for i := range counts.affinity {
		s.cell(mAffinity, uint16(i), counts.affinity[i].Value(), AffinityResult(i).String(), "")
	}
	for i := range counts.loads {
		s.cell(mLoadReports, uint16(i), counts.loads[i].Value(), LoadResult(i).String(), "")
	}
	s.counter(mSpills, c.Spilled.Value())
	for i := range counts.orders {
		s.cell(mOrders, uint16(i), counts.orders[i].Value(), Order(i).String(), "")
	}
	c.collectQueue(s)
	counts.faulted.collect(s)
	c.collectPlaces(s)
	counts.hedges.collect(s)
	s.counter(mBreakerOpenings, c.BreakerOpened.Value())
	s.counter(mUpstreamConnections, c.UpstreamConnections.Value())
	if g := c.gauges.Load(); g != nil {
		s.read(mBreakerState, g.BreakerState)
		s.read(mAdmission, g.Rejection)
		s.read(mRetryBudget, g.RetryBudget)
		s.read(mExchangesPending, g.Pending)
		s.read(mConcurrencyLimit, g.Most)
		s.read(mQueueLength, g.Queue)
		s.adaptive(g.Adaptive)
		s.read(mUpstreamActive, g.UpstreamActive)
		s.read(mUpstreamIdle, g.UpstreamIdle)
		s.read(mClusterEndpoints, g.Endpoints)
		s.read(mClusterAvailable, g.Available)
	}
}
