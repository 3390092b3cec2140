package explain

import (
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// within says in words which part of a cluster s is, and who belongs to it. st
// becomes what it is for that part. A nil subset is the whole cluster, as is one
// that falls back on it.
func within(s *upstream.Subset, st *upstream.ClusterState) (words string, belongs func(*admin.EndpointView) bool) {
	all := func(*admin.EndpointView) bool { return true }
	if s == nil {
		return "", all
	}
	part := s.State()
	if part.Fallback {
		return " of all, as subset " + part.Name + " is empty", all
	}
	st.Available, st.Panicking, st.Tiers = part.Usable, part.Panicking, part.Tiers
	return " in subset " + part.Name + " (" + part.Match.String() + ")", func(v *admin.EndpointView) bool {
		for key, want := range part.Match.All() {
			if got, ok := v.Metadata[key]; !ok || got != want {
				return false
			}
		}
		return true
	}
}
