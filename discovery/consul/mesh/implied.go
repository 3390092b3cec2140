package mesh

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// transparent reports whether the application's traffic is intercepted, so that
// it may call services that its registration does not name.
func (r *Registration) transparent() bool { return r.Proxy.Mode == "transparent" }

// impliedWatches returns the queries that say which services the application may
// call without naming them: what there is, and whom intentions let it call.
func (f *Follower) impliedWatches(reg *Registration) []*watch {
	own := reg.OwnService()
	place := own + "/" + reg.Namespace + "/" + reg.Partition
	return []*watch{
		{
			name: "sidecar/services", key: place,
			query: consul.Query{
				Path: "/v1/catalog/services", Need: "service:read on what may be called",
				Params: reg.in("", "", "dc", f.cfg.Datacenter, "filter", `ServiceKind == ""`),
			},
			take: func(r consul.Reply) (int, error) {
				var names map[string][]string
				if err := json.Unmarshal(r.Body, &names); err != nil {
					return 0, err
				}
				if names == nil {
					return 0, errors.New("the answer is null instead of a list")
				}
				f.imply(func(s *state) { s.services = slices.Sorted(maps.Keys(names)) })
				return len(names), nil
			},
		},
		{
			name: "sidecar/callees", key: place,
			query: consul.Query{
				Path: "/v1/connect/intentions/match", Need: "intentions:read on " + own,
				Params: reg.in("", "", "by", "source", "name", own, "dc", f.cfg.Datacenter),
			},
			take: func(r consul.Reply) (int, error) {
				list, err := readIntentions(r.Body, own)
				if err != nil {
					return 0, err
				}
				slices.SortStableFunc(list, func(a, b Intention) int { return cmp.Compare(b.Precedence, a.Precedence) })
				f.imply(func(s *state) { s.callees, s.calleesKnown = list, true })
				return len(list), nil
			},
		},
		{
			name: "sidecar/destinations", key: place,
			query: consul.Query{
				Path: "/v1/config/service-defaults", Need: "service:read on what may be called",
				Params: reg.in("", "", "dc", f.cfg.Datacenter),
			},
			take: f.takeDestinations,
		},
	}
}

// takeDestinations takes those service-defaults that are about something outside
// the mesh.
func (f *Follower) takeDestinations(r consul.Reply) (int, error) {
	var entries []struct {
		Name        string
		Destination *struct {
			Addresses []string
			Port      int
		}
	}
	if err := json.Unmarshal(r.Body, &entries); err != nil {
		return 0, err
	}
	var list []Destination
	for _, e := range entries {
		if d := e.Destination; d != nil {
			list = append(list, Destination{e.Name, d.Addresses, d.Port})
		}
	}
	slices.SortFunc(list, func(a, b Destination) int { return cmp.Compare(a.Name, b.Name) })
	f.change(func(s *state) { s.destinations = list })
	return len(list), nil
}

// imply takes over what may change the services that may be called.
func (f *Follower) imply(what func(*state)) {
	f.mu.Lock()
	before := f.state.implied()
	f.mu.Unlock()
	f.change(what)
	f.mu.Lock()
	after := f.state.implied()
	f.mu.Unlock()
	if !slices.Equal(before, after) {
		f.replan()
	}
}

// implied returns the services that the application may call without naming
// them, sorted; none while that is not known.
func (s *state) implied() []string {
	if s.reg == nil || !s.reg.transparent() || !s.calleesKnown || !s.policy {
		return nil
	}
	var list []string
	for _, name := range s.services {
		if name != s.reg.OwnService() && name != "consul" && s.mayCall(name) {
			list = append(list, name)
		}
	}
	return list
}

// mayCall reports whether the most precise intention for a service lets the own
// one call it, or some requests to it. The called sidecar has the last word.
func (s *state) mayCall(service string) bool {
	for i := range s.callees {
		n := &s.callees[i]
		if n.SourcePeer == "" && (n.DestinationName == service || n.DestinationName == "*") {
			return len(n.Permissions) > 0 || n.Action == "allow"
		}
	}
	return s.defaultAllow
}

// unnamed returns the upstream that stands for one that the registration does not
// name: it has what the central configuration says of all.
func (r *Registration) unnamed(service string) *Upstream {
	u := &Upstream{DestinationName: service}
	for i := range r.Proxy.Upstreams {
		if d := &r.Proxy.Upstreams[i]; d.DestinationName == "*" {
			u.Config, u.MeshGateway = d.Config, d.MeshGateway
		}
	}
	return u
}
