package breaker

import "fmt"

// Scope is what one breaker stands before. The zero value is ScopeCluster.
type Scope uint8

const (
	// ScopeCluster is one breaker for all that goes to the cluster.
	ScopeCluster Scope = iota
	// ScopeRoute is one for each route that leads to the cluster.
	ScopeRoute
	// ScopeEndpoint is one for each endpoint of the cluster.
	ScopeEndpoint
)

var scopes = [...]string{ScopeCluster: "cluster", ScopeRoute: "route", ScopeEndpoint: "endpoint"}

// String returns the name used in configuration and on the admin API.
func (s Scope) String() string {
	if int(s) < len(scopes) {
		return scopes[s]
	}
	return fmt.Sprintf("scope(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. The empty string means
// cluster.
func (s *Scope) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*s = ScopeCluster
		return nil
	}
	for i, name := range scopes {
		if string(b) == name {
			*s = Scope(i)
			return nil
		}
	}
	return fmt.Errorf("unknown scope %q; use cluster, route or endpoint", b)
}

// Severity orders states by how much they refuse: 0 closed, 1 half-open, 2 open.
func (s State) Severity() int {
	switch s {
	case Open:
		return 2
	case HalfOpen:
		return 1
	}
	return 0
}
