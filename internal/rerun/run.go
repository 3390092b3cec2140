package rerun

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/hist"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// Result is what came of the trace under a configuration, by cluster.
type Result struct {
	Clusters []*ClusterResult
	// Interval is that of the time series.
	Interval time.Duration
}

// ClusterResult is what came of a cluster's requests.
type ClusterResult struct {
	Name    string
	Inbound bool
	Stats   *replay.Stats
	Latency *hist.Histogram // of the good
	// Ends is how the ends of attempts were known, Picks how their endpoints: by what
	// was recorded, or not.
	Ends  [sourceCount]uint64
	Picks [2]uint64
	// Refused by limits or a breaker although they were, or would probably have been,
	// answered well.
	RefusedGood, RefusedProbablyGood uint64
	// Refused by the breakers of routes and endpoints, which are not rerun.
	Refused uint64
	Other   uint64 // exchanges that still went on at the end
}

// run is one pass over a trace.
type run struct {
	t        *Trace
	e        *replay.Engine
	id       replay.ActorID
	fixed    *rules   // nil: those of the log
	inLog    []*rules // by Trace.configs
	present  *rules
	clients  []*client // by cluster
	next     int       // request
	change   int
	random   replay.Random
	result   *Result
	interval time.Duration
}

// client is a cluster in a run.
type client struct {
	*replay.Client
	r        *run
	c        *cluster
	out      *ClusterResult
	names    []uint32 // by number
	numberOf map[uint32]int
	list     []replay.Endpoint
	words    map[time.Duration]uint64
	follow   bool // the recorded picks hold under the policy
	timed    bool // attempts and exchanges have the time that they had when recorded
	gone     map[uint64]replay.Ref
}

var errNoConfig = errors.New("the log does not say which configuration was in force: it is empty, or its beginning is missing")

// Recorded reruns t under the configurations that it was recorded with.
func (t *Trace) Recorded() (*Result, error) {
	r := &run{t: t}
	for i, text := range t.configs {
		loaded, err := config.ParseEffective(fmt.Sprintf("recorded configuration %d", i+1), []byte(text))
		if err != nil {
			return nil, fmt.Errorf("the configuration in the log is not one that this version of outrigger takes: %w", err)
		}
		r.inLog = append(r.inLog, newRules(t, loaded.Config))
	}
	if len(r.inLog) == 0 {
		return nil, errNoConfig
	}
	return r.run(), nil
}

// Config returns the last configuration of the log.
func (t *Trace) Config() (*config.Loaded, error) {
	if len(t.configs) == 0 {
		return nil, errNoConfig
	}
	return config.ParseEffective("the recorded configuration", []byte(t.configs[len(t.configs)-1]))
}

// ConfigText returns the last configuration of the log as it was written.
func (t *Trace) ConfigText() string {
	if len(t.configs) == 0 {
		return ""
	}
	return t.configs[len(t.configs)-1]
}

// Under reruns t under a configuration.
func (t *Trace) Under(loaded *config.Loaded) (*Result, error) {
	cfg, err := written(loaded)
	if err != nil {
		return nil, err
	}
	r := &run{t: t, fixed: newRules(t, cfg)}
	for _, text := range t.configs {
		var rules *rules // of one that is not understood
		if loaded, err := config.ParseEffective("", []byte(text)); err == nil {
			if cfg, err := written(loaded); err == nil {
				rules = newRules(t, cfg)
			}
		}
		r.inLog = append(r.inLog, rules)
	}
	return r.run(), nil
}

// written is the configuration as it is when it has been written out and read again:
// two that mean the same then are the same.
func written(loaded *config.Loaded) (*config.Config, error) {
	var b bytes.Buffer
	if err := loaded.WriteEffective(&b); err != nil {
		return nil, err
	}
	again, err := config.ParseEffective(loaded.File, b.Bytes())
	if err != nil {
		return nil, err
	}
	return again.Config, nil
}

// seed makes runs of one trace and configuration the same.
const seed = 0x6f7574726967

func (r *run) run() *Result {
	t := r.t
	r.e = replay.New(seed)
	r.random = r.e.Fork()
	r.id = r.e.Add(r)
	r.interval = max(time.Second, (t.Span / 600).Truncate(time.Second))
	r.result = &Result{Interval: r.interval}
	if r.present = r.fixed; r.present == nil {
		r.present = r.inLog[0]
	}
	// The clock is brought to where the sweep had its turns.
	r.e.Run(max(t.start.Truncate(sweepTurn)+t.phase-2*sweepTurn, 0))
	for i, c := range t.clusters {
		out := &ClusterResult{Name: c.name, Inbound: c.inbound, Stats: replay.StatsFrom(t.start, r.interval)}
		out.Latency = &out.Stats.Latency
		r.result.Clusters = append(r.result.Clusters, out)
		r.clients = append(r.clients, r.newClient(i, c, out))
	}
	r.schedule()
	end := t.start + t.Span + time.Minute
	r.e.Run(end)
	for _, c := range r.clients {
		c.Stats.Close(end)
		c.Stats.Points = c.Stats.Points[:min(len(c.Stats.Points), int(t.Span/r.interval)+1)]
		c.out.Other = uint64(max(c.Stats.Active(), 0))
	}
	return r.result
}

func (r *run) newClient(i int, c *cluster, out *ClusterResult) *client {
	k := &client{r: r, c: c, out: out, numberOf: map[uint32]int{}, words: map[time.Duration]uint64{}}
	k.Client = replay.NewClient(r.e, r.present.policy[i], k, k)
	k.Client.Stats = out.Stats
	k.Client.Follow(k)
	k.follow, k.timed = r.follows(i, 0), r.times(i, 0)
	for j := range r.t.changes {
		if ch := &r.t.changes[j]; ch.kind == outcomes.Judged && int(ch.cluster) == i {
			k.words[ch.at] = ch.word
		}
	}
	return k
}

// follows reports whether the picks that were made under the configuration hold under
// the one that is run: where both balance in the same manner.
func (r *run) follows(cluster, cfg int) bool {
	if r.fixed == nil {
		return true
	}
	if cfg >= len(r.inLog) || r.inLog[cfg] == nil {
		return false
	}
	return reflect.DeepEqual(r.fixed.policy[cluster].Balance, r.inLog[cfg].policy[cluster].Balance)
}

// times reports whether attempts and exchanges may take as long under the
// configuration as under the one that is run.
func (r *run) times(cluster, cfg int) bool {
	if r.fixed == nil {
		return true
	}
	if cfg >= len(r.inLog) || r.inLog[cfg] == nil {
		return false
	}
	now, was := r.fixed, r.inLog[cfg]
	return now.policy[cluster].Timeout == was.policy[cluster].Timeout && perTry(now.policy[cluster].Retry) == perTry(was.policy[cluster].Retry) &&
		maps.EqualFunc(now.routes[cluster], was.routes[cluster], func(a, b *replay.Override) bool {
			return a.Timeout == b.Timeout && perTry(a.Retry) == perTry(b.Retry)
		})
}

// perTry is how long an attempt may take, 0 without a bound.
func perTry(c *retry.Config) time.Duration {
	if c == nil {
		return 0
	}
	return c.PerTryTimeout
}

// schedule lets Fire be called when the next thing of the trace happens.
func (r *run) schedule() {
	at := forever
	if r.next < len(r.t.requests) {
		at = r.t.requests[r.next].begin
	}
	if r.change < len(r.t.changes) {
		at = min(at, r.t.changes[r.change].at)
	}
	if at != forever {
		r.e.At(at, r.id, 0)
	}
}

// fireCancel marks the arguments of Fire that name a request whose caller goes.
const fireCancel = 1 << 63

// Fire implements replay.Actor.
func (r *run) Fire(now time.Duration, arg uint64) {
	if arg&fireCancel != 0 {
		r.cancel(arg &^ fireCancel)
		return
	}
	for r.change < len(r.t.changes) && r.t.changes[r.change].at <= now {
		r.changed(&r.t.changes[r.change])
		r.change++
	}
	for r.next < len(r.t.requests) && r.t.requests[r.next].begin <= now {
		r.offer(r.next)
		r.next++
	}
	r.schedule()
}

func (r *run) changed(ch *change) {
	switch ch.kind {
	case outcomes.Began: // another process, which knows nothing of the one before
		for i, k := range r.clients {
			k.Client.SetEndpoints(nil)
			fresh := r.newClient(i, k.c, k.out)
			fresh.words, fresh.follow, fresh.timed = k.words, k.follow, k.timed
			r.clients[i] = fresh
		}
	case outcomes.Configured:
		if r.fixed == nil {
			r.present = r.inLog[ch.config]
		}
		for i, k := range r.clients {
			k.follow, k.timed = r.follows(i, ch.config), r.times(i, ch.config)
			if r.fixed == nil && ch.config > 0 {
				k.SetPolicy(r.present.policy[i])
			}
		}
	case outcomes.Endpoints:
		r.clients[ch.cluster].endpoints(ch.list)
	case outcomes.Judged:
		if ch.own {
			r.clients[ch.cluster].Review()
		}
	}
}

// endpoints makes list those of the cluster.
func (k *client) endpoints(list []outcomes.Endpoint) {
	k.list, k.names = k.list[:0], k.names[:0]
	clear(k.numberOf)
	for i := range list {
		e := &list[i]
		name := k.r.t.name(e.Address)
		k.numberOf[name] = i
		k.names = append(k.names, name)
		k.list = append(k.list, replay.Endpoint{Name: e.Address, Weight: e.Weight, Healthy: e.Usable})
	}
	k.SetEndpoints(k.list)
}

// known makes sure of an endpoint to which an attempt went though the log does not
// say that there was one.
func (k *client) known(name uint32) {
	if _, ok := k.numberOf[name]; ok {
		return
	}
	k.numberOf[name] = len(k.list)
	k.names = append(k.names, name)
	k.list = append(k.list, replay.Endpoint{Name: k.r.t.names[name], Weight: 1, Healthy: true})
	k.SetEndpoints(slices.Clone(k.list))
}

// offer begins request i.
func (r *run) offer(i int) {
	q := &r.t.requests[i]
	k := r.clients[q.cluster]
	if q.reason == outcome.BreakerOpen && q.n == 0 && r.present.apart[q.cluster] {
		k.out.Refused++
		return
	}
	for j := range uint32(q.n) {
		k.known(r.t.attempts[q.first+j].endpoint)
	}
	ref := k.Offer(replay.Request{
		ID: uint64(i), Key: q.key, Keyed: q.marks&outcomes.Keyed != 0, Deadline: q.deadline, Arrived: q.at,
		Override:   r.present.routes[q.cluster][q.route],
		Idempotent: q.marks&outcomes.Idempotent != 0, Replayable: q.marks&outcomes.Replayable != 0,
	})
	if q.reason == outcome.DownstreamGone {
		if k.gone == nil {
			k.gone = map[uint64]replay.Ref{}
		}
		k.gone[uint64(i)] = ref
		r.e.At(q.end, r.id, fireCancel|uint64(i))
	}
}

// cancel lets the caller of request i go, if it is still there.
func (r *run) cancel(i uint64) {
	k := r.clients[r.t.requests[i].cluster]
	if ref, ok := k.gone[i]; ok {
		delete(k.gone, i)
		k.Cancel(ref)
	}
}
