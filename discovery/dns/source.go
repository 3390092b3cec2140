package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// maxTargets bounds the SRV targets that are looked up for one service.
const maxTargets = 1000

// resolver is the part of net.Resolver that is used.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Source follows services in DNS. It implements discovery.Source.
//
// A name that does not exist or has no records counts as a failure, which
// keeps the last good endpoints: DNS has no way to tell an empty service from
// a broken zone.
type Source struct {
	cfg   Config
	res   resolver
	track discovery.Tracker
}

// New returns a Source for the names in cfg. Nothing is looked up before Run.
func New(cfg Config) (*Source, error) {
	var errs []error
	cfg.Validate(func(field, problem string) { errs = append(errs, fmt.Errorf("discovery.dns.%s %s", field, problem)) })
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = Default().Refresh
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = Default().Timeout
	}
	res := &net.Resolver{}
	if cfg.Server != "" {
		res.PreferGo = true
		res.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, cfg.Server)
		}
	}
	return &Source{cfg: cfg, res: res}, nil
}

// Status implements discovery.Source.
func (s *Source) Status() []discovery.WatchStatus { return s.track.Status() }

// Run implements discovery.Source.
func (s *Source) Run(ctx context.Context, services []string, sink discovery.Sink) error {
	sink = discovery.Distinct(sink)
	var wg sync.WaitGroup
	for _, service := range s.track.Follow(services) {
		target, ok := s.cfg.Services[service]
		if !ok {
			err := fmt.Errorf("discovery.dns.services has no entry for service %q", service)
			s.track.Fail(service, err)
			sink.Fail(service, err)
			continue
		}
		wg.Go(func() { s.follow(ctx, service, target, sink) })
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

func (s *Source) follow(ctx context.Context, service string, target Target, sink discovery.Sink) {
	for {
		eps, warning, err := s.lookup(ctx, target)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			err = fmt.Errorf("dns lookup of %s: %w", target.Name, err)
			s.track.Fail(service, err)
			sink.Fail(service, err)
		default:
			s.track.Confirm(service, 0, len(eps), warning)
			sink.Update(&discovery.Service{
				Name: service, Protocol: target.Protocol, Identities: target.Identities,
				Endpoints: eps, Source: "dns " + target.Name, Updated: time.Now(),
			})
		}
		if !discovery.Sleep(ctx, discovery.Jitter(s.cfg.Refresh, 0.2, rand.Uint64()), nil) {
			return
		}
	}
}

// lookup returns the endpoints behind a target, at least one.
func (s *Source) lookup(ctx context.Context, t Target) ([]discovery.Endpoint, string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	n, err := parseName(t.Name)
	if err != nil {
		return nil, "", err
	}
	if n.port == 0 {
		return s.lookupSRV(ctx, n.host, t.Family)
	}
	addrs, err := s.addresses(ctx, n.host, t.Family)
	if err != nil {
		return nil, "", err
	}
	eps := make([]discovery.Endpoint, 0, len(addrs))
	for _, a := range addrs {
		eps = append(eps, discovery.Endpoint{Address: netip.AddrPortFrom(a, n.port), Weight: 1})
	}
	return discovery.SortEndpoints(eps), "", nil
}

func (s *Source) addresses(ctx context.Context, host, family string) ([]netip.Addr, error) {
	network := "ip"
	switch family {
	case "ipv4":
		network = "ip4"
	case "ipv6":
		network = "ip6"
	}
	addrs, err := s.res.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// lookupSRV returns the endpoints of all records, each with the priority of its
// record (RFC 2782): those of later ones are used as far as earlier ones do not
// suffice.
func (s *Source) lookupSRV(ctx context.Context, name, family string) ([]discovery.Endpoint, string, error) {
	_, records, err := s.res.LookupSRV(ctx, "", "", name)
	// The resolver may return an error for malformed records together with the good ones.
	if len(records) == 0 {
		if err == nil {
			err = fmt.Errorf("%s has no SRV record", name)
		}
		return nil, "", err
	}
	var warnings []string
	if err != nil {
		warnings = append(warnings, err.Error())
	}
	if len(records) > maxTargets {
		return nil, "", fmt.Errorf("%s has %d SRV records; the limit is %d", name, len(records), maxTargets)
	}
	// Of an address that has records of several priorities the first counts.
	slices.SortStableFunc(records, func(a, b *net.SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	eps, failures := s.targets(ctx, records, family)
	if len(eps) == 0 {
		return nil, "", errors.Join(failures...)
	}
	for _, e := range failures {
		warnings = append(warnings, e.Error())
	}
	return discovery.SortEndpoints(eps), strings.Join(warnings, "; "), nil
}

// targets looks up the addresses of SRV records, each name once.
func (s *Source) targets(ctx context.Context, records []*net.SRV, family string) (eps []discovery.Endpoint, errs []error) {
	known := map[string][]netip.Addr{}
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		if host == "" || r.Port == 0 {
			errs = append(errs, fmt.Errorf("an SRV record says that the service is not available (target %q, port %d)", r.Target, r.Port))
			continue
		}
		addrs, ok := known[host]
		if !ok {
			var err error
			if addrs, err = s.addresses(ctx, host, family); err != nil {
				errs = append(errs, err)
			}
			known[host] = addrs
		}
		for _, a := range addrs {
			eps = append(eps, discovery.Endpoint{
				Address: netip.AddrPortFrom(a, r.Port), Weight: max(1, uint32(r.Weight)), Node: host, Priority: r.Priority,
			})
		}
	}
	return eps, errs
}
