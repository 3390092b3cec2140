package mesh

import (
	"encoding/json"
	"errors"
	"net/url"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// watches returns the queries that what is known asks for. f.mu is held.
func (f *Follower) watches() []*watch {
	list := []*watch{
		{
			name:  "sidecar/roots",
			query: consul.Query{Path: "/v1/agent/connect/ca/roots", Need: "to be valid"},
			take:  f.takeRoots,
		},
		{
			name:  "sidecar/jwt-providers",
			query: consul.Query{Path: "/v1/config/jwt-provider", Need: "to be valid", Params: f.dc()},
			take:  f.takeProviders,
		},
		{
			name:  "sidecar/mesh",
			query: consul.Query{Path: "/v1/config/mesh/mesh", Need: "to be valid", Optional: true, Params: f.dc()},
			take:  f.takeMesh,
		},
		{
			name:  "sidecar/proxy-defaults",
			query: consul.Query{Path: "/v1/config/proxy-defaults/global", Need: "to be valid", Optional: true, Params: f.dc()},
			take:  f.takeMode(func(s *state) **string { return &s.globalMode }),
		},
	}
	if reg := f.state.reg; reg != nil {
		own := reg.OwnService()
		list = append(list, &watch{
			name: "sidecar/service-defaults", key: own,
			query: consul.Query{
				Path: "/v1/config/service-defaults/" + url.PathEscape(own), Optional: true,
				Params: reg.in("", "", "dc", f.cfg.Datacenter),
				Need:   "service:read on " + own,
			},
			take: f.takeMode(func(s *state) **string { return &s.serviceMode }),
		}, f.intentionsWatch(reg))
		if reg.transparent() {
			list = append(list, f.impliedWatches(reg)...)
		}
		list = append(list, f.chainWatches(reg)...)
	}
	for _, w := range list {
		w.f = f
	}
	return list
}

func (f *Follower) dc() map[string]string { return map[string]string{"dc": f.cfg.Datacenter} }

func (f *Follower) takeRoots(r consul.Reply) (int, error) {
	var answer struct {
		TrustDomain string
		Roots       []struct{}
	}
	if err := json.Unmarshal(r.Body, &answer); err != nil {
		return 0, err
	}
	if answer.TrustDomain == "" {
		return 0, errors.New("the roots name no trust domain; is Connect enabled (connect.enabled)?")
	}
	f.change(func(s *state) { s.trustDomain = answer.TrustDomain })
	return len(answer.Roots), nil
}

func (f *Follower) takeProviders(r consul.Reply) (int, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(r.Body, &raw); err != nil {
		return 0, err
	}
	providers := make(map[string]*JWTProvider, len(raw))
	for _, b := range raw {
		var known struct {
			JWTProvider
			entryFields
		}
		unknown, err := strictly(b, &known)
		p := known.JWTProvider
		if err != nil {
			return 0, err
		}
		p.Unknown = unknown
		providers[p.Name] = &p
	}
	f.change(func(s *state) { s.providers = providers })
	return len(providers), nil
}

func (f *Follower) takeMesh(r consul.Reply) (int, error) {
	entry := new(MeshEntry)
	if !r.Missing {
		if err := json.Unmarshal(r.Body, entry); err != nil {
			return 0, err
		}
	}
	f.change(func(s *state) { s.mesh = entry })
	return 0, nil
}

// takeMode takes the MutualTLSMode of an entry, which is in no registration.
func (f *Follower) takeMode(field func(*state) **string) func(consul.Reply) (int, error) {
	return func(r consul.Reply) (int, error) {
		var entry struct{ MutualTLSMode string }
		if !r.Missing {
			if err := json.Unmarshal(r.Body, &entry); err != nil {
				return 0, err
			}
		}
		f.change(func(s *state) { *field(s) = &entry.MutualTLSMode })
		return 0, nil
	}
}
