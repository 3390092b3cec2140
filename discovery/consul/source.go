package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
)

const (
	waitTime    = 5 * time.Minute        // Consul's default for a blocking query
	backoffBase = 200 * time.Millisecond // after an error, with full jitter ...
	backoffMax  = 10 * time.Second       // ... up to this
	pollPause   = 5 * time.Second        // when the server gives no index to wait on
	minPause    = 100 * time.Millisecond // between two queries for a service: bursts become one update
	maxPause    = 900 * time.Millisecond // the same for services with very many instances
	perInstance = 80 * time.Microsecond  // what an instance adds to it
)

// Source follows services in Consul, one blocking query a service. It
// implements discovery.Refollower.
type Source struct {
	cfg    Config
	client *client
	wait   time.Duration
	track  discovery.Tracker
	each   discovery.Each
}

// New returns a Source for the agent that cfg names. Nothing is sent before Run.
func New(cfg Config) (*Source, error) {
	c, err := newClient(cfg, nil)
	if err != nil {
		return nil, err
	}
	return newSource(cfg, c), nil
}

func newSource(cfg Config, c *client) *Source {
	s := &Source{cfg: cfg, client: c, wait: waitTime}
	s.each.Track = &s.track
	return s
}

// Status implements discovery.Source. While nothing changes, the age grows up
// to the length of a blocking query, a little over 5 minutes.
func (s *Source) Status() []discovery.WatchStatus { return s.track.Status() }

// Run implements discovery.Source.
func (s *Source) Run(ctx context.Context, services []string, sink discovery.Sink) error {
	var wg sync.WaitGroup
	defer s.client.close()
	defer s.client.hold()()
	wg.Go(func() { s.client.keep(ctx) })
	s.each.Run(ctx, services, func(ctx context.Context, service string) {
		s.watch(ctx, service, discovery.Distinct(sink))
	})
	wg.Wait()
	return nil
}

// Follow implements discovery.Refollower.
func (s *Source) Follow(services []string) { s.each.Set(services) }

// watch follows one service until ctx ends.
func (s *Source) watch(ctx context.Context, service string, sink discovery.Sink) {
	w := newWalk(s.client)
	w.run(ctx, func(ctx, token context.Context, at mark, after time.Time) (mark, int, error) {
		eps, next, warning, err := s.query(ctx, token, service, at.index, after)
		if err != nil {
			return mark{}, 0, err
		}
		s.track.Confirm(service, next, len(eps), warning)
		sink.Update(&discovery.Service{
			Name: service, Endpoints: eps, Index: next, Source: "consul", Updated: time.Now(),
		})
		return mark{index: next}, len(eps), nil
	}, func(err error) {
		s.track.Fail(service, err)
		sink.Fail(service, err)
	})
}

// nextIndex is the index to wait on after got was returned to a query with
// last: an index that goes backwards, as after a cluster was rebuilt, or that
// is 0 starts from the beginning.
func nextIndex(last, got uint64) uint64 {
	if got < last {
		return 0
	}
	return got
}

// query asks once for the instances of a service; with an index above 0 the
// server answers when there is something newer, or after the wait time. A query
// that would wait over a connection made later than after fails with
// errNewConn; a zero after allows any.
func (s *Source) query(ctx, token context.Context, service string, index uint64, after time.Time) (eps []discovery.Endpoint, next uint64, warning string, err error) {
	if strings.Contains(service, "/") {
		return nil, 0, "", fmt.Errorf("%q cannot be the name of a Consul service", service)
	}
	q := &api.QueryOptions{Datacenter: s.cfg.Datacenter, AllowStale: s.cfg.Stale, Filter: s.cfg.Filter}
	limit := slack
	if index > 0 {
		// The server adds up to 1/16 to the wait time.
		q.WaitIndex, q.WaitTime = index, s.wait
		limit += s.wait + s.wait/16
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if index > 0 && !after.IsZero() {
		ctx = refuseNewConn(ctx, after)
	}
	defer context.AfterFunc(token, cancel)()

	entries, meta, err := s.client.Health().Service(service, s.cfg.Tag, s.cfg.OnlyPassing, q.WithContext(ctx))
	if err != nil {
		return nil, 0, "", s.client.explain(err, fmt.Sprintf("service:read on %q and node:read", service))
	}
	if entries == nil {
		return nil, 0, "", s.client.explain(errors.New("the answer is null instead of a list"), "")
	}
	if meta.ResultsFilteredByACLs && len(entries) == 0 {
		// An empty list because of missing rights must not take away the endpoints.
		return nil, 0, "", s.client.explain(api.StatusError{
			Code: http.StatusForbidden, Body: "every instance is hidden by ACLs",
		}, fmt.Sprintf("service:read on %q and node:read", service))
	}
	eps, warning = endpoints(entries)
	var warnings []string
	if warning != "" {
		warnings = append(warnings, warning)
	}
	if meta.ResultsFilteredByACLs {
		warnings = append(warnings, "some instances are hidden by ACLs; the token needs node:read")
	}
	if len(entries) == 0 && meta.DefaultACLPolicy == "deny" && s.client.tokens.anonymous() {
		// To the anonymous token Consul does not say that it hides something.
		warnings = append(warnings, "there is no ACL token and Consul denies by default; instances may be hidden")
	}
	return eps, meta.LastIndex, strings.Join(warnings, "; "), nil
}
