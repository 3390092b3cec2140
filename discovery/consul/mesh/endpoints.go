package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// Endpoints follows the instances of targets by TargetName. A name that is no
// target of the sidecar's chains is that of a service of its own datacenter.
// It implements discovery.Refollower.
type Endpoints struct {
	f     *Follower
	track discovery.Tracker
	each  discovery.Each
	lane  *lane
	gates gates

	mu      sync.Mutex
	own     *Registration
	trust   string
	targets map[string]*destination
	running map[string]following
	known   chan struct{} // closed when own is set
}

// destination is what a name stands for.
type destination struct {
	target Target
	query  string // the prepared query; target has the rest
	key    string // equal for those with the same instances
}

// following is a destination that is followed.
type following struct {
	key    string
	cancel context.CancelFunc
}

func newEndpoints(f *Follower) *Endpoints {
	e := &Endpoints{
		f: f, targets: map[string]*destination{}, running: map[string]following{}, known: make(chan struct{}),
		gates: gates{client: f.client, all: map[string]*gate{}},
	}
	e.each.Track = &e.track
	e.lane = newLane(f.client, f.polls(), e.detectors)
	return e
}

// Status implements discovery.Source.
func (e *Endpoints) Status() []discovery.WatchStatus { return e.track.Status() }

// Follow implements discovery.Refollower.
func (e *Endpoints) Follow(services []string) { e.each.Set(services) }

// Run implements discovery.Source. Nothing is asked for before the Follower
// knows the sidecar's registration.
func (e *Endpoints) Run(ctx context.Context, services []string, sink discovery.Sink) error {
	var wg sync.WaitGroup
	wg.Go(func() { e.lane.run(ctx) })
	e.each.Run(ctx, services, func(ctx context.Context, service string) {
		e.follow(ctx, service, discovery.Distinct(sink))
	})
	wg.Wait()
	e.gates.wg.Wait()
	return nil
}

// detectors are queries whose index changes when instances of a service do, in
// the datacenters of the targets. Their filters leave little or nothing in the answer.
func (e *Endpoints) detectors() []detector {
	e.mu.Lock()
	defer e.mu.Unlock()
	datacenters := map[string]bool{}
	for _, d := range e.targets {
		if d.target.Datacenter != "" {
			datacenters[d.target.Datacenter] = true
		}
	}
	var list []detector
	for dc := range datacenters {
		list = append(list,
			detector{consul.Query{Path: "/v1/health/state/any", Params: map[string]string{"dc": dc, "filter": `Status != "passing"`}, Need: "node:read"}, true},
			detector{consul.Query{Path: "/v1/catalog/services", Params: map[string]string{"dc": dc, "filter": `ServiceName == "-"`}, Need: "service:read"}, false})
	}
	return list
}

// know takes over what a snapshot says about targets.
func (e *Endpoints) know(s *Snapshot) {
	targets := map[string]*destination{}
	add := func(name string, d *destination) {
		key, _ := json.Marshal([]any{d.target, d.query}) // plain values, which cannot fail
		d.key = string(key)
		targets[name] = d
	}
	for _, c := range s.Chains {
		for _, t := range c.Targets {
			add(TargetName(t, &s.Proxy), &destination{target: *t})
		}
	}
	for i := range s.Proxy.Proxy.Upstreams {
		u := &s.Proxy.Proxy.Upstreams[i]
		if u.DestinationType == "prepared_query" {
			add(UpstreamName(u, &s.Proxy), &destination{
				query:  u.DestinationName,
				target: Target{Datacenter: or(u.Datacenter, s.Datacenter), Namespace: u.DestinationNamespace, Partition: u.DestinationPartition},
			})
		}
	}
	e.mu.Lock()
	if e.own == nil {
		close(e.known)
	}
	again := e.trust != s.TrustDomain
	e.own, e.trust, e.targets = &s.Proxy, s.TrustDomain, targets
	for name, r := range e.running {
		if again || e.destination(name).key != r.key {
			r.cancel()
		}
	}
	e.mu.Unlock()
	e.lane.changed() // there may be other datacenters
}

// destination returns what a name stands for. e.mu is held and e.own is set.
func (e *Endpoints) destination(name string) *destination {
	if d := e.targets[name]; d != nil {
		return d
	}
	return &destination{target: Target{
		Service: name, Datacenter: e.own.Datacenter, Namespace: e.own.Namespace, Partition: e.own.Partition,
	}}
}

// follow follows one name until ctx ends.
func (e *Endpoints) follow(ctx context.Context, name string, sink discovery.Sink) {
	select {
	case <-ctx.Done():
		return
	case <-e.known:
	}
	for ctx.Err() == nil {
		run, cancel := context.WithCancel(ctx)
		e.mu.Lock()
		d := e.destination(name)
		e.running[name] = following{d.key, cancel}
		e.mu.Unlock()
		e.followOne(run, &found{e: e, name: name, d: d, sink: sink})
		cancel()
	}
	e.mu.Lock()
	delete(e.running, name)
	e.mu.Unlock()
}

// followOne follows the instances of a destination until ctx ends.
func (e *Endpoints) followOne(ctx context.Context, f *found) {
	if f.d.query != "" {
		e.followQuery(ctx, f)
		return
	}
	e.mu.Lock()
	own := e.own
	e.mu.Unlock()
	if datacenter, wan, ok := f.d.target.gateway(own); ok {
		gate, release := e.gates.use(datacenter, wan)
		defer release()
		f.gate, f.through = gate, datacenter
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for {
				_, _, changed, _ := gate.endpoints()
				f.publish(nil)
				select {
				case <-ctx.Done():
					return
				case <-changed:
				}
			}
		})
	}
	q := question{
		query: e.query(f.d, ""),
		take: func(r consul.Reply) (int, error) {
			in, err := e.read(f.d, r)
			if err != nil {
				return 0, err
			}
			f.publish(in)
			return len(in.Endpoints), nil
		},
		same:  func(index uint64) { e.track.Confirm(f.name, index, f.size(), f.warned()) },
		fail:  f.failed,
		names: f.names,
	}
	if f.d.target.Peer == "" {
		q.probe = e.query(f.d, `Service.ID == "-"`)
		q.probe.Cached = true
	}
	e.lane.follow(ctx, q)
}

// followQuery executes a prepared query now and then, because Consul does not
// say when its answer changes.
func (e *Endpoints) followQuery(ctx context.Context, f *found) {
	q := consul.Query{
		Path: "/v1/query/" + url.PathEscape(f.d.query) + "/execute", Need: "service:read on what the query finds",
		Params: map[string]string{"connect": "1", "dc": f.d.target.Datacenter},
	}
	backoff := discovery.Backoff{Base: 200 * time.Millisecond, Max: 10 * time.Second}
	for ctx.Err() == nil {
		early := e.f.client.TokenChanged()
		r, err := e.f.client.Ask(ctx, q)
		var in consul.Instances
		if err == nil {
			in, err = consul.DecodeExecuted(r.Body, consul.Reading{})
		}
		pause := discovery.Jitter(queryPause, 0.1, rand.Uint64())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = max(200*time.Millisecond, backoff.Next(rand.Uint64()))
			f.failed(err)
		default:
			backoff.Reset()
			f.publish(&answered{Instances: in, warning: in.Warning})
		}
		discovery.Sleep(ctx, pause, early)
	}
}

// queryPause is the time between two executions of a prepared query; Consul's
// own for Envoy.
const queryPause = 30 * time.Second

// query asks for the instances of a destination, or those that a filter leaves of them.
func (e *Endpoints) query(d *destination, narrow string) consul.Query {
	t := &d.target
	e.mu.Lock()
	own := e.own
	e.mu.Unlock()
	filter := or(narrow, t.Subset.Filter)
	q := consul.Query{
		Path:   "/v1/health/connect/" + url.PathEscape(t.Service),
		Params: own.in(t.Namespace, t.Partition, "filter", filter),
		Need:   fmt.Sprintf("service:read on %q and node:read", t.Service),
	}
	if t.Peer != "" {
		q.Params["peer"] = t.Peer
		delete(q.Params, "partition")
	} else {
		q.Params["dc"] = t.Datacenter
	}
	return q
}

// answered is the answer to a query for instances.
type answered struct {
	consul.Instances
	index   uint64
	warning string
}

// read decodes the answer to query.
func (e *Endpoints) read(d *destination, r consul.Reply) (*answered, error) {
	e.mu.Lock()
	own := e.own
	e.mu.Unlock()
	t := &d.target
	in, err := consul.DecodeInstances(r.Body, consul.Reading{WAN: t.remote(own) && t.Peer == "", OnlyPassing: t.Subset.OnlyPassing})
	if err != nil {
		return nil, err
	}
	if r.Hidden && len(in.Endpoints) == 0 {
		// An empty list because of missing rights must not take away the endpoints.
		return nil, errors.New("every instance is hidden by ACLs")
	}
	warnings := []string{}
	if in.Warning != "" {
		warnings = append(warnings, in.Warning)
	}
	if r.Hidden {
		warnings = append(warnings, "some instances are hidden by ACLs; the token needs node:read")
	}
	if len(in.Endpoints) == 0 && r.DefaultPolicy == "deny" && e.f.client.Anonymous() {
		warnings = append(warnings, "there is no ACL token and Consul denies by default; instances may be hidden")
	}
	return &answered{in, r.Index, strings.Join(warnings, "; ")}, nil
}

// remote reports whether the target is in another datacenter or partition than
// the sidecar.
func (t *Target) remote(own *Registration) bool {
	return t.Peer != "" || t.Datacenter != "" && t.Datacenter != own.Datacenter ||
		t.Partition != "" && t.Partition != orDefault(own.Partition)
}

// gateway returns the datacenter through whose mesh gateways the target is
// reached, if it is, and whether their addresses are those for others.
func (t *Target) gateway(own *Registration) (datacenter string, wan, ok bool) {
	switch {
	case !t.remote(own):
		return "", false, false
	case t.MeshGateway.Mode == "local":
		return own.Datacenter, false, true
	case t.MeshGateway.Mode == "remote" && t.Peer == "":
		return t.Datacenter, true, true // a peer's instances are its gateways already
	}
	return "", false, false
}

// Identity is the SPIFFE ID of a service in Consul's mesh.
func Identity(trustDomain, service, namespace, partition, datacenter string) string {
	id := "spiffe://" + trustDomain
	if orDefault(partition) != "default" {
		id += "/ap/" + partition
	}
	return id + "/ns/" + orDefault(namespace) + "/dc/" + datacenter + "/svc/" + service
}

// ServerName is what TLS to a service in Consul's mesh asks for.
func ServerName(trustDomain string, t *Target) string {
	name := t.Service + "." + orDefault(t.Namespace)
	if t.ServiceSubset != "" {
		name = t.ServiceSubset + "." + name
	}
	if orDefault(t.Partition) == "default" {
		return name + "." + t.Datacenter + ".internal." + trustDomain
	}
	return name + "." + t.Partition + "." + t.Datacenter + ".internal-v1." + trustDomain
}
