package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	mu      sync.Mutex
	own     *Registration
	trust   string
	targets map[string]*destination
	changed chan struct{} // closed when one of them does
}

// destination is what a name stands for.
type destination struct {
	target Target
	query  string // the prepared query; target has the rest
	key    string // equal for those with the same instances
}

func newEndpoints(f *Follower) *Endpoints {
	e := &Endpoints{f: f, targets: map[string]*destination{}, changed: make(chan struct{})}
	e.each.Track = &e.track
	return e
}

// Status implements discovery.Source.
func (e *Endpoints) Status() []discovery.WatchStatus { return e.track.Status() }

// Follow implements discovery.Refollower.
func (e *Endpoints) Follow(services []string) { e.each.Set(services) }

// Run implements discovery.Source. Nothing is asked for before the Follower
// knows the sidecar's registration.
func (e *Endpoints) Run(ctx context.Context, services []string, sink discovery.Sink) error {
	e.each.Run(ctx, services, func(ctx context.Context, service string) {
		e.follow(ctx, service, discovery.Distinct(sink))
	})
	return nil
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
	defer e.mu.Unlock()
	e.own, e.trust, e.targets = &s.Proxy, s.TrustDomain, targets
	close(e.changed)
	e.changed = make(chan struct{})
}

// find returns what a name stands for, nil while nothing is known, and a
// channel that is closed when that may have changed.
func (e *Endpoints) find(name string) (*destination, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own == nil {
		return nil, e.changed
	}
	d := e.targets[name]
	if d == nil {
		d = &destination{target: Target{Service: name, Datacenter: e.own.Datacenter, Namespace: e.own.Namespace, Partition: e.own.Partition}}
	}
	return d, e.changed
}

// follow follows one name until ctx ends.
func (e *Endpoints) follow(ctx context.Context, name string, sink discovery.Sink) {
	for ctx.Err() == nil {
		d, changed := e.find(name)
		if d == nil {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		run, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.followOne(run, name, d, sink)
		}()
		for same := true; same && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case <-changed:
				var now *destination
				now, changed = e.find(name)
				same = now.key == d.key
			}
		}
		cancel()
		<-done
	}
}

// followOne follows the instances of a destination until ctx ends.
func (e *Endpoints) followOne(ctx context.Context, name string, d *destination, sink discovery.Sink) {
	walk, q := e.f.client.Walk(), e.query(d)
	for ctx.Err() == nil {
		pause, early := walk.Step(ctx, q, func(r consul.Reply) (int, error) {
			s, warning, err := e.read(name, d, r)
			if err != nil {
				return 0, err
			}
			e.track.Confirm(name, r.Index, len(s.Endpoints), warning)
			sink.Update(s)
			return len(s.Endpoints), nil
		}, func(err error) {
			e.track.Fail(name, err)
			sink.Fail(name, err)
		})
		if pause > 0 {
			discovery.Sleep(ctx, pause, early)
		}
	}
}

// query asks for the instances of a destination.
func (e *Endpoints) query(d *destination) consul.Query {
	t := &d.target
	e.mu.Lock()
	own := e.own
	e.mu.Unlock()
	q := consul.Query{
		Path:   "/v1/health/connect/" + url.PathEscape(t.Service),
		Params: own.in(t.Namespace, t.Partition, "filter", t.Subset.Filter),
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

// read decodes the answer to query.
func (e *Endpoints) read(name string, d *destination, r consul.Reply) (*discovery.Service, string, error) {
	e.mu.Lock()
	own, trust := e.own, e.trust
	e.mu.Unlock()
	t := &d.target
	in, err := consul.DecodeInstances(r.Body, consul.Reading{WAN: t.remote(own), OnlyPassing: t.Subset.OnlyPassing})
	if err != nil {
		return nil, "", err
	}
	if r.Hidden && len(in.Endpoints) == 0 {
		// An empty list because of missing rights must not take away the endpoints.
		return nil, "", errors.New("every instance is hidden by ACLs")
	}
	s := &discovery.Service{
		Name: name, Endpoints: in.Endpoints, Index: r.Index, Source: "consul", Updated: time.Now(),
		SNI: or(t.SNI, ServerName(trust, t)), Identities: []string{Identity(trust, t.Service, t.Namespace, t.Partition, t.Datacenter)},
	}
	if t.Peer != "" {
		s.SNI, s.Identities = in.PeerSNI, in.PeerIdentities
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
	return s, strings.Join(warnings, "; "), nil
}

// remote reports whether the target is in another datacenter or partition than
// the sidecar.
func (t *Target) remote(own *Registration) bool {
	return t.Peer != "" || t.Datacenter != "" && t.Datacenter != own.Datacenter ||
		t.Partition != "" && t.Partition != orDefault(own.Partition)
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
