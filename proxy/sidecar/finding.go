package sidecar

import (
	"cmp"
	"fmt"
	"slices"
)

// Kind says what became of something that Consul asks for.
type Kind string

// The kinds.
const (
	// Refused: it is not done, and somebody who relies on it must know.
	Refused Kind = "refused"
	// Differs: it is done in another manner than Envoy does.
	Differs Kind = "differs"
	// Ignored: it means nothing to this proxy, and nothing is lost by that.
	Ignored Kind = "ignored"
)

// Finding is something in Consul that is not done as it is asked for there.
type Finding struct {
	Kind Kind `json:"kind"`
	// Entry is where in Consul it stands: "registration web-sidecar-proxy".
	Entry string `json:"entry"`
	// Field is the field there: "Upstreams[api].Config.envoy_cluster_json".
	Field string `json:"field"`
	// Problem says what is not done and what holds in its place.
	Problem string `json:"problem"`
	// Remedy says what to do; empty where there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
}

// String returns the finding in one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s %s: %s", f.Kind, f.Entry, f.Field, f.Problem)
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return s
}

func (k Kind) order() int {
	return slices.Index([]Kind{Refused, Differs, Ignored}, k)
}

// sorted returns the findings with the gravest first, each once.
func sorted(all []Finding) []Finding {
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(a.Kind.order()-b.Kind.order(), cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Problem, b.Problem))
	})
	return slices.Compact(all)
}
