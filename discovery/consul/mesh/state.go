package mesh

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
)

// state is what has been answered so far.
type state struct {
	reg          *Registration
	trustDomain  string
	intentions   []Intention
	matched      bool // intentions were answered
	defaultAllow bool
	policy       bool // the default policy is known
	providers    map[string]*JWTProvider
	mesh         *MeshEntry
	serviceMode  *string // MutualTLSMode of service-defaults ...
	globalMode   *string // ... and of proxy-defaults
	chains       map[string]*chainState

	// In transparent mode:
	services     []string    // what there is; nil while that is not known
	callees      []Intention // with the own service as the source, the most precise first
	calleesKnown bool
	destinations []Destination // by name
}

// chainState is what is known of the chain of an upstream.
type chainState struct {
	key     string // of the watch
	chain   *Chain // the last good one
	failure string // why there is none
	implied bool   // the registration does not name the upstream
}

// snapshot returns all that is known, and whether that is enough. Impatient, it
// does not wait for the chains of single upstreams.
func (s *state) snapshot(impatient bool) (*Snapshot, bool) {
	if s.reg == nil || s.trustDomain == "" || !s.matched || !s.policy || s.providers == nil || s.mesh == nil ||
		s.serviceMode == nil || s.globalMode == nil {
		return nil, false
	}
	if s.reg.transparent() && (s.services == nil || !s.calleesKnown) {
		return nil, false
	}
	snap := &Snapshot{
		Proxy: *s.reg, TrustDomain: s.trustDomain, Datacenter: s.reg.Datacenter,
		Chains: map[string]*Chain{}, Failures: map[string]string{},
		Intentions: s.intentions, DefaultAllow: s.defaultAllow,
		Providers: maps.Clone(s.providers), Mesh: *s.mesh,
	}
	snap.Proxy.Proxy.MutualTLSMode = cmp.Or(*s.serviceMode, *s.globalMode)
	if s.reg.transparent() {
		snap.Destinations = s.destinations // intentions about them are in no answer about the own service
	}
	for name, c := range s.chains {
		switch {
		case c.implied && c.chain != nil && len(c.chain.AutoVirtualIPs)+len(c.chain.ManualVirtualIPs) == 0:
			// It is not in the mesh, or nobody could call it without naming it.
		case c.chain != nil:
			snap.Chains[name] = c.chain
		case c.failure != "":
			snap.Failures[name] = c.failure
		case c.implied && impatient:
		case impatient:
			snap.Failures[name] = "consul has not answered yet"
		default:
			return nil, false
		}
	}
	return snap, true
}

// equal reports whether a consumer would do the same with both.
func (s *Snapshot) equal(o *Snapshot) bool {
	if s == nil || o == nil {
		return s == o
	}
	a, err := json.Marshal(s)
	b, err2 := json.Marshal(o)
	return err == nil && err2 == nil && bytes.Equal(a, b)
}
