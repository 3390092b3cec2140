package proxy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/proxy/sidecar"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// meshView returns what shows what Consul says of this sidecar; nil where this
// proxy is none.
func (p *Proxy) meshView() func() admin.MeshView {
	if p.sidecar == nil {
		return nil
	}
	return p.viewMesh
}

func (p *Proxy) viewMesh() admin.MeshView {
	v := p.sidecar.view()
	listen := map[string]string{}
	p.mu.Lock()
	if p.loaded != nil {
		for _, u := range p.loaded.Config.Outbound.Upstreams {
			listen[u.Service] = u.Listen
		}
	}
	p.mu.Unlock()
	for i := range v.Upstreams {
		v.Upstreams[i].Listen = listen[v.Upstreams[i].Name]
	}
	return v
}

// bindMesh lets the metrics read what Consul says of this sidecar.
func (p *Proxy) bindMesh(g *telemetry.ProcessGauges) {
	if p.sidecar != nil {
		p.sidecar.bind(g)
	}
}

// bind is bindMesh before there is a proxy, too.
func (s *Sidecar) bind(g *telemetry.ProcessGauges) {
	for _, of := range []string{"registration", "roots", "intentions", "jwt-providers", "mesh", "proxy-defaults", "service-defaults", "chains"} {
		g.MeshAges = append(g.MeshAges, telemetry.NamedGauge{Name: of, Value: func() float64 { return s.age(of) }})
	}
	for _, kind := range []sidecar.Kind{sidecar.Refused, sidecar.Differs, sidecar.Ignored} {
		g.MeshFindings = append(g.MeshFindings, telemetry.NamedGauge{Name: string(kind), Value: func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			n := 0
			for _, f := range s.findings {
				if f.Kind == kind {
					n++
				}
			}
			return float64(n)
		}})
	}
	g.MeshRefused = func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.refused != "" {
			return 1
		}
		return 0
	}
}

// age is how old the oldest answer is of those that are about one thing; that of
// upstreams' chains is "chains".
func (s *Sidecar) age(of string) float64 {
	age, missing := noData, false
	s.follower.Each(func(w *discovery.WatchStatus) {
		about := strings.TrimPrefix(w.Service, "sidecar/")
		if strings.HasPrefix(about, "chain ") {
			about = "chains"
		}
		if about == of {
			age, missing = max(age, w.Age), missing || w.Age == noData
		}
	})
	if missing {
		age = noData
	}
	return ageSeconds(age)
}

// view tells all but where upstreams are listened for.
func (s *Sidecar) view() admin.MeshView {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := admin.MeshView{Since: s.since, Refused: s.refused}
	for _, f := range s.findings {
		v.Findings = append(v.Findings, admin.MeshFindingView{Kind: string(f.Kind), Entry: f.Entry, Field: f.Field, Problem: f.Problem, Remedy: f.Remedy})
	}
	s.follower.Each(func(w *discovery.WatchStatus) { v.Watches = append(v.Watches, watchView("consul", w)) })
	if s.running == nil {
		v.Waiting = s.waits()
	}
	snap := s.tried
	if snap == nil {
		return v
	}
	v.Registration, v.Service, v.Datacenter = snap.Proxy.ID, snap.Proxy.Proxy.DestinationServiceName, snap.Datacenter
	v.TrustDomain, v.Stale, v.Default = snap.TrustDomain, snap.Stale, "deny"
	if snap.DefaultAllow {
		v.Default = "allow"
	}
	for _, name := range slices.Sorted(maps.Keys(snap.Chains)) {
		v.Upstreams = append(v.Upstreams, chainView(name, snap.Chains[name], &snap.Proxy))
	}
	for _, name := range slices.Sorted(maps.Keys(snap.Failures)) {
		v.Upstreams = append(v.Upstreams, admin.MeshUpstreamView{Name: name, Chain: "none", Targets: []string{}, Trouble: snap.Failures[name]})
	}
	for i := range snap.Intentions {
		n := &snap.Intentions[i]
		action := n.Action
		if len(n.Permissions) > 0 {
			action = "by permission"
		}
		v.Intentions = append(v.Intentions, admin.MeshIntentionView{
			Source: sourceOf(n), Destination: n.DestinationName, Action: action,
			Permissions: len(n.Permissions), JWT: n.JWT != nil, Precedence: n.Precedence,
		})
	}
	return v
}

func sourceOf(n *mesh.Intention) string {
	source := n.SourceName
	if n.SourcePeer != "" {
		source += " of peer " + n.SourcePeer
	}
	return source
}

func chainView(name string, c *mesh.Chain, own *mesh.Registration) admin.MeshUpstreamView {
	v := admin.MeshUpstreamView{Name: name, Protocol: c.Protocol, Targets: []string{}}
	does := map[string]bool{}
	for _, n := range c.Nodes {
		does[n.Type] = true
		if n.Resolver != nil && n.Resolver.Failover != nil {
			does["failover"] = true
		}
	}
	for _, word := range []string{"router", "splitter", "failover", "resolver"} {
		if does[word] {
			v.Chain = word
			break
		}
	}
	for _, t := range c.Targets {
		v.Targets = append(v.Targets, mesh.TargetName(t, own))
	}
	slices.Sort(v.Targets)
	return v
}

func watchView(source string, w *discovery.WatchStatus) admin.WatchView {
	v := admin.WatchView{
		Service: w.Service, Source: source, AgeSec: ageSeconds(w.Age), Stale: w.Stale || w.LastError != "",
		Index: w.Index, Endpoints: w.Endpoints, LastError: w.LastError,
	}
	if v.LastError == "" {
		v.LastError = w.Warning
	}
	return v
}

// check is what readiness rests on: that a description is in force. How old it
// is, and what is wrong with a newer one, is told with it; neither keeps traffic
// away, since the last good one goes on.
func (s *Sidecar) check() admin.Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := admin.Check{Name: "consul", OK: s.running != nil}
	var words []string
	if s.tried != nil {
		words = append(words, s.tried.Proxy.ID)
		if s.tried.Stale {
			words = append(words, "from disk, not confirmed by Consul")
		}
	}
	if s.refused != "" {
		words = append(words, "the last good description is in force: "+s.refused)
	}
	all := s.standing()
	words = append(words, fmt.Sprintf("last confirmed %s ago", admin.Short(all.oldest)))
	if all.trouble != "" {
		words = append(words, all.trouble)
	}
	c.Detail = strings.Join(words, "; ")
	return c
}
