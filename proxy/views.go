package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/explain"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/breaker"
	"github.com/outrigger-mesh/outrigger/resilience/health"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// adminOptions is what the admin API is made from, but who may ask.
func (p *Proxy) adminOptions() admin.Options {
	return admin.Options{
		Metrics: p.metrics.Handler(), LogLevel: p.level, Logger: p.log,
		Views: admin.Views{
			Ready: p.Ready, Config: p.viewConfig, Endpoints: p.viewEndpoints, Clusters: p.viewClusters, RateLimits: p.viewRateLimits,
			Connections: p.viewConnections, Plaintext: p.viewPlaintext, Identity: p.viewIdentity, Discovery: p.viewDiscovery, Mesh: p.meshView(),
			Reload: p.viewReload, Process: p.viewProcess, Order: p.order, Why: p.viewWhy, Ledger: p.viewLedger, Explain: p.viewExplain, Faults: p.faultViews(),
		},
	}
}

// bindProcess lets the metrics read what concerns the whole process.
func (p *Proxy) bindProcess() {
	g := telemetry.ProcessGauges{
		IdentityExpiry: func() float64 {
			if p.identity == nil || p.identity.Material() == nil {
				return 0
			}
			return float64(p.identity.Material().NotAfter.Unix())
		},
		AccessLogRecords: p.access.Written,
		AccessLogDropped: p.access.Dropped,
		SpansDropped:     p.tracer.Dropped,
		Floods:           p.floods.named(),
		LedgerRecords:    p.ledger.Records,
		LedgerBytes:      func() float64 { return float64(p.ledger.Bytes()) },
	}
	p.bindOutcomes(&g)
	p.bindMemory(&g)
	p.bindNames(&g)
	p.bindMesh(&g)
	p.metrics.Process().Bind(g)
}

// Ready reports whether the proxy may get traffic: it has a valid identity if
// it needs one, a plan with bound listeners, and an answer of discovery for
// every cluster.
func (p *Proxy) Ready() (bool, []admin.Check) {
	var checks []admin.Check
	add := func(name string, ok bool, detail string) {
		checks = append(checks, admin.Check{Name: name, OK: ok, Detail: detail})
	}
	if p.draining.Load() {
		add("running", false, "the proxy is shutting down")
	}
	if p.identity != nil {
		switch m := p.identity.Material(); {
		case m == nil:
			detail := "no SVID yet"
			if err := p.identity.Status().LastError; err != nil {
				detail += ": " + err.Error()
			}
			add("identity", false, detail)
		case time.Now().After(m.NotAfter):
			add("identity", false, "the SVID expired at "+m.NotAfter.Format(time.RFC3339))
		default:
			add("identity", true, m.ID.String())
		}
	}
	if p.sidecar != nil {
		checks = append(checks, p.sidecar.check())
	}
	pl := p.current.Load()
	if pl == nil {
		add("listeners", false, "not bound yet")
	} else {
		add("listeners", true, fmt.Sprintf("%d bound, plan %d", len(pl.Listeners), pl.Version))
		for _, c := range pl.Clusters {
			if c.Direction() != telemetry.Outbound {
				continue
			}
			if c.Listed() {
				add("discovery of "+c.Name(), true, "")
			} else {
				add("discovery of "+c.Name(), false, "no answer yet"+p.trouble(c.Name()))
			}
		}
	}
	if p.register != nil {
		st := p.register.Status()
		detail := st.ID + " is registered"
		switch {
		case st.LastError != "":
			detail = st.ID + ": " + st.LastError
		case !st.Registered:
			detail = st.ID + " is not registered yet; it will be once everything else is well"
		}
		// It is there to be read: registration waits for readiness.
		add("registration", true, detail)
	}
	ok := !slices.ContainsFunc(checks, func(c admin.Check) bool { return !c.OK })
	return ok, checks
}

// trouble is what discovery suffers from with a service; empty when it does not. It
// is as old as the metrics: a question about readiness may be about a thousand.
func (p *Proxy) trouble(service string) string {
	if w, _ := p.watches.Load().of(service); w != nil && w.LastError != "" {
		return ": " + w.LastError
	}
	return ""
}

// viewConfig is the effective configuration, and the plan behind it as comment.
func (p *Proxy) viewConfig() ([]byte, error) {
	p.mu.Lock()
	loaded := p.loaded
	p.mu.Unlock()
	if loaded == nil {
		loaded = p.initial
	}
	var b bytes.Buffer
	if err := loaded.WriteEffective(&b); err != nil {
		return nil, err
	}
	if pl := p.current.Load(); pl != nil {
		b.WriteString("\n# The plan made from it:\n")
		for line := range strings.Lines(pl.String()) {
			b.WriteString("# " + line)
		}
	}
	return b.Bytes(), nil
}

func (p *Proxy) viewEndpoints() []admin.EndpointView {
	_, endpoints := p.registry.States()
	now := p.sweeper.Now()
	views := make([]admin.EndpointView, 0, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		ev := &e.Evidence
		v := admin.EndpointView{
			Cluster: e.Cluster, Address: e.Address, ID: e.Spec.ID, Health: e.Spec.Health, Weight: e.Spec.Weight,
			State: ev.State.String(), Since: p.wall(now, ev.Since), Until: p.wall(now, ev.Until),
			Active: e.Active, MostActive: e.MostActive, EWMAMs: float64(e.EWMA.Microseconds()) / 1000,
			Requests: e.Success + e.Failures, Failures: e.Failures,
			Ejections: ev.Ejections, WouldHaveEjected: ev.WouldEject, Evidence: []admin.OutcomeView{},
		}
		placeView(e, &v)
		if e.Caution != nil {
			v.Caution.Since = p.wall(now, e.Caution.Since)
		}
		if ev.Cause != outlier.NoCause {
			v.Cause = ev.Cause.String()
		}
		if e.Breaker != nil {
			v.Breaker = p.breakerView(&upstream.BreakerState{Snapshot: *e.Breaker, Scope: breaker.ScopeEndpoint, Of: e.Address}, now)
		}
		p.handView(e, &v, now)
		if e.Check != nil {
			v.Check = p.checkView(e, now)
		}
		for _, o := range slices.Backward(ev.Recent) {
			v.Evidence = append(v.Evidence, admin.OutcomeView{AgeMs: o.Age.Milliseconds(), Result: o.Result.String(), Status: o.Status})
		}
		views = append(views, v)
	}
	return views
}

func (p *Proxy) checkView(e *upstream.EndpointState, now time.Duration) *admin.CheckView {
	c := e.Check
	v := &admin.CheckView{
		Kind: e.CheckConfig.Kind(), Mode: e.CheckConfig.Mode.String(), State: c.State.String(), Fit: e.Fit, Since: p.wall(now, c.Since),
		At: p.wall(now, c.At), Next: p.wall(now, c.Due), Against: c.Against, Checks: c.Checks,
	}
	if c.Checks > 0 {
		v.Result, v.Detail = c.Last.Cause.String(), c.Last.Detail
	}
	if c.State == health.Unhealthy {
		v.Cause, v.CauseDetail = c.Cause.Cause.String(), c.Cause.Detail
	}
	return v
}

// wall turns a time on the sweeper's clock into a wall time; 0 into none.
func (p *Proxy) wall(now, t time.Duration) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Now().Add(t - now)
}

func (p *Proxy) viewClusters() []admin.ClusterView {
	clusters, _ := p.registry.States()
	now := p.sweeper.Now()
	views := make([]admin.ClusterView, 0, len(clusters))
	for i := range clusters {
		c := &clusters[i]
		most := c.Spec.Policy.Limits
		v := admin.ClusterView{
			Name: c.Name, Direction: c.Direction.String(), Protocol: c.Spec.Protocol, Balance: c.Balance.Summary(),
			Endpoints: c.Endpoints, Available: c.Available, Ejected: c.Ejected, Unhealthy: c.Unhealthy, Draining: c.Draining, Panic: c.Panicking,
			BudgetBalance: c.Budget, Active: c.Requests,
			Requests: c.Totals.Exchanges, Failures: c.Totals.Failures, Retries: c.Totals.Retries,
			P50Ms: c.Totals.Durations.Quantile(0.5).Seconds() * 1000, P99Ms: c.Totals.Durations.Quantile(0.99).Seconds() * 1000,
			Durations: c.Totals.Durations.Counts(), Identities: c.Spec.Identities,
			Limits: admin.LimitsView{
				Connections: limitView(c, limit.Connections, most.MaxConnections),
				Pending:     limitView(c, limit.Pending, most.MaxPending),
				Requests:    limitView(c, limit.Requests, most.MaxRequests),
			},
		}
		for _, r := range []limit.Resource{limit.Connections, limit.Pending, limit.Requests} {
			v.Limits.WouldHaveRejected += c.Limits.WouldHaveRejected(r)
		}
		v.Subsets, v.Shares = subsetViews(c.Subsets), explain.Shares(c.Tiers)
		v.Failover = explain.Failover(c.Failover)
		gateViews(c, &v)
		if b := upstream.Worst(c.Breakers); b != nil {
			v.Breaker = p.breakerView(b, now)
		}
		for i := range c.Admission {
			v.Admission = append(v.Admission, explain.Admission(&c.Admission[i]))
		}
		for i := range c.Breakers {
			if c.Breakers[i].Of != "" {
				v.Breakers = append(v.Breakers, *p.breakerView(&c.Breakers[i], now))
			}
		}
		views = append(views, v)
	}
	return views
}

func (p *Proxy) viewRateLimits() []admin.RateLimitView {
	pl := p.current.Load()
	if pl == nil {
		return nil
	}
	views := make([]admin.RateLimitView, 0, len(pl.RateLimits))
	for _, l := range pl.RateLimits {
		v := admin.RateLimitView{
			Cluster: l.Cluster, Direction: l.Direction.String(), Name: l.Name,
			Requests: l.Rate.Requests, PerMs: l.Rate.Per.Milliseconds(), Burst: l.Rate.Size(),
			Scope: l.Scope, Key: l.Key.String(), Mode: l.Mode.String(), Evictions: l.Metrics.Evicted.Value(),
			UnknownPassed: l.Metrics.Decisions(telemetry.RateUnknownPassed), UnknownRefused: l.Metrics.Decisions(telemetry.RateUnknownRefused),
			Passed: l.Metrics.Decisions(telemetry.RatePassed), Limited: l.Metrics.Decisions(telemetry.RateLimited),
			WouldLimit: l.Metrics.Decisions(telemetry.RateWouldLimit),
		}
		if l.Table != nil {
			v.Keys, v.MaxKeys, v.Shares = l.Table.Len(), l.MaxKeys, l.Table.Shares()
		}
		if l.Rate.Requests == 0 {
			v.Burst, v.PerMs = 0, 0
		}
		if l.Shared != nil {
			v.Entries = l.Counted.Entries
			d := l.Metrics.Times()
			v.Errors, v.AskP50Ms, v.AskP99Ms = l.Metrics.Failures(), d.Quantile(0.5).Seconds()*1000, d.Quantile(0.99).Seconds()*1000
		}
		if l.Field != "" {
			v.Key += ": " + l.Field
		}
		views = append(views, v)
	}
	return views
}

func limitView(c *upstream.ClusterState, r limit.Resource, most int64) admin.LimitView {
	return admin.LimitView{Value: c.Limits.Gauge(r).Value(), Max: most, Rejected: c.Limits.Rejected(r)}
}

func (p *Proxy) breakerView(b *upstream.BreakerState, now time.Duration) *admin.BreakerView {
	return &admin.BreakerView{
		Scope: b.Scope.String(), Of: b.Of, Cause: b.Cause.String(), Rejected: b.Rejected,
		State: b.State.String(), Mode: b.Mode.String(), Since: p.wall(now, b.Since), Until: p.wall(now, b.Until),
		Requests: b.Counts.Successes + b.Counts.Failures, Failures: b.Counts.Failures,
		Opened: b.Opened, WouldHaveRejected: b.WouldHaveRejected,
	}
}

// maxConnectionViews bounds the page of connections.
const maxConnectionViews = 1000

func (p *Proxy) viewConnections() []admin.ConnectionView {
	var views []admin.ConnectionView
	for _, l := range p.all() {
		for _, s := range l.States(maxConnectionViews - len(views)) {
			v := admin.ConnectionView{
				ID: s.ID, Direction: s.Direction.String(), Listener: s.Listener, Protocol: s.Protocol,
				Remote: s.Peer.From(), Local: s.Local, State: "idle", Since: s.Since, Exchanges: s.Exchanges,
			}
			if s.Busy {
				v.State = "busy"
			}
			if !s.Peer.ID.IsZero() {
				v.Peer = s.Peer.ID.String()
			}
			if s.Peer.TLS != 0 {
				v.TLS = tls.VersionName(s.Peer.TLS)
			}
			views = append(views, v)
		}
	}
	return views
}

// viewPlaintext is the inventory of all listeners, those that still drain
// included; a last row for each counts the callers it had no room for.
func (p *Proxy) viewPlaintext() []admin.PlaintextView {
	var views []admin.PlaintextView
	for _, l := range p.all() {
		name := l.Plan().Name
		peers, lost := l.PlaintextPeers()
		for _, e := range peers {
			views = append(views, admin.PlaintextView{Listener: name, Address: e.Addr.Unmap().String(), Connections: e.Connections, Last: e.Last})
		}
		if lost > 0 {
			views = append(views, admin.PlaintextView{Listener: name, Address: admin.OtherCallers, Connections: lost})
		}
	}
	return views
}

func (p *Proxy) viewIdentity() admin.IdentityView {
	if p.identity == nil {
		return admin.IdentityView{Source: "none"}
	}
	st := p.identity.Status()
	v := admin.IdentityView{Source: st.Kind, Updates: st.Updates}
	if st.LastError != nil {
		v.LastError = st.LastError.Error()
	}
	if m := p.identity.Material(); m != nil {
		v.ID, v.NotBefore, v.NotAfter = m.ID.String(), m.NotBefore, m.NotAfter
		for td, pool := range m.Bundles {
			//lint:ignore SA1019 the pool was made from parsed roots, so Subjects leaves out nothing
			v.Bundles = append(v.Bundles, admin.BundleView{TrustDomain: td, Roots: len(pool.Subjects())})
		}
		slices.SortFunc(v.Bundles, func(a, b admin.BundleView) int { return strings.Compare(a.TrustDomain, b.TrustDomain) })
	}
	return v
}

func (p *Proxy) viewDiscovery() []admin.WatchView {
	if p.source == nil {
		return nil
	}
	kind := p.initial.Config.Discovery.Kind()
	list := p.source.Status()
	views := make([]admin.WatchView, 0, len(list))
	for _, w := range list {
		v := watchView(kind, &w)
		if p.snapshot != nil {
			if s := p.snapshot.Snapshot(); s.SaveError != "" && v.LastError == "" {
				v.LastError = "snapshot: " + s.SaveError
			}
		}
		views = append(views, v)
	}
	return views
}

func (p *Proxy) viewReload() admin.ReloadView {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reload
}

func (p *Proxy) viewProcess() admin.ProcessView {
	return admin.ProcessView{
		Service: p.initial.Config.Service.Name, Version: p.version, Started: p.started, Draining: p.draining.Load(),
		Memory: p.viewMemory(),
	}
}
