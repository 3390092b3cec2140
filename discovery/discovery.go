// Package discovery says what is out there: a Source follows services in a file, in DNS or in Consul and hands their endpoints to a Sink.
package discovery

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Health is what the source says about an endpoint. What the proxy itself
// learns about it (ejection, connection errors) is not part of it.
type Health uint8

const (
	// Passing endpoints get traffic. It is the zero value: a source without
	// health information calls everything passing.
	Passing Health = iota
	// Warning endpoints get traffic too, usually with a smaller weight.
	Warning
	// Critical endpoints get traffic only under the panic rule.
	Critical
)

// String returns "passing", "warning" or "critical", Consul's words.
func (h Health) String() string {
	switch h {
	case Passing:
		return "passing"
	case Warning:
		return "warning"
	default:
		return "critical"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. The empty string means passing.
func (h *Health) UnmarshalText(b []byte) error {
	switch string(b) {
	case "passing", "":
		*h = Passing
	case "warning":
		*h = Warning
	case "critical":
		*h = Critical
	default:
		return fmt.Errorf("unknown health %q; use passing, warning or critical", b)
	}
	return nil
}

// MaxWeight is the largest weight an endpoint may have; Consul's limit.
const MaxWeight = 65535

// Endpoint is one instance of a service.
type Endpoint struct {
	// Address is where the instance listens, always an IP address and a port above 0.
	Address netip.AddrPort `json:"address"`
	// ID is the source's name for the instance; empty when it has none.
	ID string `json:"id,omitempty"`
	// Weight is the share of traffic relative to the other endpoints, 1 to MaxWeight.
	Weight uint32 `json:"weight"`
	// Health is the source's opinion.
	Health Health `json:"health"`
	// Tags and Meta are passed on as the source gives them.
	Tags []string          `json:"tags,omitempty"`
	Meta map[string]string `json:"meta,omitempty"`
	// NodeMeta is what the source knows of the machine.
	NodeMeta map[string]string `json:"node_meta,omitempty"`
	// Region and Zone are where the instance runs; empty where that is not known.
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// Priority is the level of the instance: others are used when those of lower
	// numbers do not suffice. Default 0.
	Priority uint16 `json:"priority,omitempty"`
	// Draining is why the instance is to get nothing new, in the words of the
	// source; empty when it is not.
	Draining string `json:"draining,omitempty"`
	// Node is the machine the instance runs on, Datacenter the place of the
	// machine; empty where the source knows neither.
	Node       string `json:"node,omitempty"`
	Datacenter string `json:"datacenter,omitempty"`
}

// Equal reports whether both describe the same instance in the same state.
func (e *Endpoint) Equal(o *Endpoint) bool {
	return e.Address == o.Address && e.ID == o.ID && e.Weight == o.Weight && e.Health == o.Health &&
		e.Node == o.Node && e.Datacenter == o.Datacenter &&
		e.Region == o.Region && e.Zone == o.Zone && e.Priority == o.Priority && e.Draining == o.Draining &&
		slices.Equal(e.Tags, o.Tags) && maps.Equal(e.Meta, o.Meta) && maps.Equal(e.NodeMeta, o.NodeMeta)
}

// Metadata calls f for everything by which endpoints can be told apart: what is
// in Meta, "tag.NAME" = "true" for every tag, and "node.KEY" for what is in
// NodeMeta.
func (e *Endpoint) Metadata(f func(key, value string)) {
	for k, v := range e.Meta {
		f(k, v)
	}
	for _, t := range e.Tags {
		f("tag."+t, "true")
	}
	for k, v := range e.NodeMeta {
		f("node."+k, v)
	}
}

// Service is what is known about one service at one moment. It is immutable
// once published: whoever wants another one makes a new one.
type Service struct {
	// Name is the name the service was asked for by.
	Name string `json:"name"`
	// Protocol is "http", "tcp" or empty when the source does not say.
	Protocol string `json:"protocol,omitempty"`
	// Identities are the SPIFFE IDs the endpoints may present; empty when the
	// source does not say.
	Identities []string `json:"identities,omitempty"`
	// SNI is the server name that TLS to the endpoints asks for; empty when the
	// source does not say. Mesh gateways route by it.
	SNI string `json:"sni,omitempty"`
	// Endpoints are sorted by Address, then ID, without duplicates of the pair.
	Endpoints []Endpoint `json:"endpoints"`
	// Index is the source's version of the data; 0 where there is none.
	Index uint64 `json:"index,omitempty"`
	// Source names where the data comes from, such as "consul" or "file /etc/catalog.yaml".
	Source string `json:"source,omitempty"`
	// Updated is when the source last confirmed the data, as far as known when
	// this value was published. Source.Status has the present age.
	Updated time.Time `json:"updated"`
	// Stale is set when the data comes from a snapshot on disk and no source
	// has confirmed it since this process started.
	Stale bool `json:"-"`
}

// Equal reports whether a consumer would do the same with both: everything is
// compared except Index and Updated, which move without any change.
func (s *Service) Equal(o *Service) bool {
	if s == nil || o == nil {
		return s == o
	}
	if s.Name != o.Name || s.Protocol != o.Protocol || s.Source != o.Source || s.Stale != o.Stale || s.SNI != o.SNI ||
		!slices.Equal(s.Identities, o.Identities) || len(s.Endpoints) != len(o.Endpoints) {
		return false
	}
	for i := range s.Endpoints {
		if !s.Endpoints[i].Equal(&o.Endpoints[i]) {
			return false
		}
	}
	return true
}

// SortEndpoints brings endpoints into the order a published Service has,
// by Address and then ID, and drops repetitions of the pair, keeping the
// first. It changes the slice in place and returns the shortened one.
func SortEndpoints(eps []Endpoint) []Endpoint {
	slices.SortStableFunc(eps, func(a, b Endpoint) int {
		if c := a.Address.Compare(b.Address); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return slices.CompactFunc(eps, func(a, b Endpoint) bool {
		return a.Address == b.Address && a.ID == b.ID
	})
}

// Sink receives what a Source finds. Calls for one service never overlap and
// come in order; calls for different services may come from different
// goroutines at once. A call should return soon: the source waits for it.
type Sink interface {
	// Update publishes a service. The value belongs to the reader and is never changed again.
	Update(*Service)
	// Fail says that the source has trouble with a service. The last Update
	// stays valid; the next Update ends the trouble.
	Fail(service string, err error)
}

// Source follows services until its context ends.
type Source interface {
	// Run follows the named services and reports to sink. It blocks, returns
	// nil when ctx ends, and has ended every goroutine by then. It may be
	// called again after it returned, never twice at once.
	Run(ctx context.Context, services []string, sink Sink) error
	// Status describes the services of the current or last Run, sorted by
	// name. It may be called at any time from any goroutine.
	Status() []WatchStatus
}

// Refollower is a Source whose services may change while it runs, without a
// word about those that stay.
type Refollower interface {
	Source
	// Follow makes services those that the present Run follows, or else the
	// next one, whatever that is given.
	Follow(services []string)
}

// Refollows returns the Refollower that a source is, if it is one.
func Refollows(s Source) (Refollower, bool) {
	r, ok := s.(Refollower)
	if k, is := s.(interface{ Refollows() bool }); ok && is && !k.Refollows() {
		return nil, false
	}
	return r, ok
}

// WatchStatus is what the admin API shows about one followed service.
type WatchStatus struct {
	Service string `json:"service"`
	// Age is the time since the data was last confirmed by its source; for a
	// snapshot from disk that reaches back before this process. -1 means that
	// there is no data yet.
	Age time.Duration `json:"age"`
	// LastError is why the source has trouble now; empty when it has none.
	LastError string `json:"last_error,omitempty"`
	// Warning is something an operator should know about data that is in use,
	// such as entries that an ACL hides.
	Warning string `json:"warning,omitempty"`
	// Index is the source's version of the data; 0 where there is none.
	Index uint64 `json:"index,omitempty"`
	// Endpoints is the number of endpoints in use, in every state of health.
	Endpoints int `json:"endpoints"`
	// Stale is set while the data is a snapshot from disk.
	Stale bool `json:"stale,omitempty"`
}
