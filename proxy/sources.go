package proxy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/discovery/dns"
	"github.com/outrigger-mesh/outrigger/discovery/file"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/consulca"
	"github.com/outrigger-mesh/outrigger/mtls/workload"
	"github.com/outrigger-mesh/outrigger/proxy/compile"
	"github.com/outrigger-mesh/outrigger/proxy/sidecar"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

func (p *Proxy) newIdentity(cfg *config.Config) error {
	c := &cfg.Identity
	switch {
	case c.WorkloadAPI != "":
		p.identity = workload.New(workload.Config{Socket: c.WorkloadAPI, StartupTimeout: startupTimeout(c), Logger: p.log})
	case c.Files != nil:
		p.identity = mtls.NewFiles(mtls.FilesConfig{
			CertFile: c.Files.Cert, KeyFile: c.Files.Key, BundleFile: c.Files.Bundle, Bundles: c.Files.Bundles,
			TrustDomain: c.TrustDomain, StartupTimeout: startupTimeout(c), Logger: p.log,
		})
	case c.Consul != nil:
		at := consul.Default()
		if cfg.Discovery.Consul != nil {
			at = *cfg.Discovery.Consul
		}
		access, err := consul.NewClient(at)
		if err != nil {
			return p.initial.Problem("identity.consul", err.Error())
		}
		p.identity = consulca.New(*c.Consul, consulca.Options{
			Service: cfg.Service.Name, TrustDomain: c.TrustDomain, StartupTimeout: startupTimeout(c), Client: access, Logger: p.log,
		})
	}
	if p.identity != nil && len(c.Bundles) > 0 {
		p.identity = mtls.WithBundles(p.identity, c.Bundles, p.log)
	}
	return nil
}

// startupTimeout is what the sources of identity take: for them 0 means the
// default, where in the configuration it means no limit.
func startupTimeout(c *config.Identity) time.Duration {
	if c.StartupTimeout == 0 {
		return -1
	}
	return c.StartupTimeout
}

func (p *Proxy) newDiscovery(cfg *config.Config) (err error) {
	d := &cfg.Discovery
	switch {
	case p.sidecar != nil:
		p.source = p.sidecar.source
	case d.Consul != nil:
		if p.source, err = consul.New(*d.Consul); err == nil && d.Consul.Register != nil {
			p.register, err = consul.NewRegistrar(*d.Consul, consul.Instance{
				Service: cfg.Service.Name, Listen: parseAddrPort(cfg.Inbound.Listen), Logger: p.log,
			})
		}
	case d.File != nil:
		p.source, err = file.New(*d.File)
	case d.DNS != nil:
		p.source, err = dns.New(*d.DNS)
	}
	if err != nil {
		return p.initial.Problem("discovery."+d.Kind(), err.Error())
	}
	if p.source != nil && d.Snapshot != "" {
		datacenter := ""
		if d.Consul != nil {
			datacenter = d.Consul.Datacenter
		}
		p.snapshot = discovery.NewSnapshotter(p.source, discovery.SnapshotConfig{Path: d.Snapshot, Datacenter: datacenter, Logger: p.log})
		p.source = p.snapshot
	}
	return nil
}

// deregistration returns what takes this proxy out of Consul; nil when it has not
// registered anything.
func (p *Proxy) deregistration() func(context.Context) error {
	if p.register != nil {
		return p.register.Deregister
	}
	if p.sidecar != nil {
		if d, ok := p.sidecar.follower.(interface{ Deregister(context.Context) error }); ok {
			return d.Deregister
		}
	}
	return nil
}

// setServices makes names the services that discovery follows. p.mu is held.
func (p *Proxy) setServices(names []string) {
	for _, name := range names {
		if p.watched[name] == nil {
			p.watched[name] = p.metrics.Discovery(name)
			p.watched[name].Bind(p.watchGauges(name))
		}
	}
	for name, m := range p.watched {
		if !slices.Contains(names, name) {
			m.Release()
			delete(p.watched, name)
		}
	}
	old := p.following.Swap(&names)
	if old == nil || !slices.Equal(*old, names) {
		select {
		case p.refollow <- struct{}{}:
		default:
		}
	}
}

// follow runs discovery. When the services to follow change, a source that can
// goes on with those that stay; any other is run again from the start. Endpoints
// that are known stay in use meanwhile.
func (p *Proxy) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.refollow:
		}
		if r, ok := discovery.Refollows(p.source); ok {
			return p.followOn(ctx, r)
		}
		run, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		names := *p.following.Load()
		go func() { done <- p.source.Run(run, names, discovery.Distinct(&sink{p})) }()
		select {
		case <-ctx.Done():
		case <-p.refollow:
			// For the next turn; another change may have said so already.
			select {
			case p.refollow <- struct{}{}:
			default:
			}
		case err := <-done:
			cancel()
			return err
		}
		cancel()
		<-done
	}
}

// followOn runs a source that takes other services while it runs.
func (p *Proxy) followOn(ctx context.Context, source discovery.Refollower) error {
	names := *p.following.Load()
	done := make(chan error, 1)
	distinct := discovery.Distinct(&sink{p})
	go func() { done <- source.Run(ctx, names, distinct) }()
	for {
		select {
		case err := <-done:
			return err
		case <-p.refollow:
			next := *p.following.Load()
			had := make(map[string]bool, len(names))
			for _, name := range names {
				had[name] = true
			}
			for _, name := range next {
				if !had[name] {
					distinct.Forget(name) // the registry has forgotten it, too
				}
			}
			names = next
			source.Follow(names)
		}
	}
}

// watches is what discovery said about its services at a moment.
type watches struct {
	at   time.Time
	list []discovery.WatchStatus // sorted by name
}

// of returns what was said of a service, and how long ago; nil when nothing was.
func (w *watches) of(service string) (*discovery.WatchStatus, time.Duration) {
	if w == nil {
		return nil, 0
	}
	i, ok := slices.BinarySearchFunc(w.list, service, func(s discovery.WatchStatus, name string) int { return strings.Compare(s.Service, name) })
	if !ok {
		return nil, 0
	}
	return &w.list[i], time.Since(w.at)
}

// watchRefresh is how old the statuses in the metrics may be.
const watchRefresh = 500 * time.Millisecond

// keepWatches copies the statuses of discovery now and then for the metrics. A
// scrape must not ask the source itself: it holds the lock of the metrics, the
// source may hold its own while it reports endpoints, and new endpoints need
// the lock of the metrics.
func (p *Proxy) keepWatches(ctx context.Context) error {
	for {
		p.watches.Store(&watches{time.Now(), p.source.Status()})
		if !sleep(ctx, watchRefresh) {
			return nil
		}
	}
}

// watchGauges reads the status of one service's watch.
func (p *Proxy) watchGauges(service string) telemetry.DiscoveryGauges {
	return telemetry.DiscoveryGauges{
		Age: func() float64 {
			s, since := p.watches.Load().of(service)
			if s == nil || s.Age == noData {
				return ageSeconds(noData)
			}
			return ageSeconds(s.Age + since)
		},
		Endpoints: func() float64 {
			if s, _ := p.watches.Load().of(service); s != nil {
				return float64(s.Endpoints)
			}
			return 0
		},
	}
}

// noData is the age that discovery gives where there are no data yet.
const noData = time.Duration(-1)

// ageSeconds is an age in seconds; -1 where there are no data yet.
func ageSeconds(age time.Duration) float64 {
	if age < 0 {
		return -1
	}
	return age.Seconds()
}

// sink takes what discovery finds to the registry.
type sink struct{ p *Proxy }

// Update implements discovery.Sink.
func (s *sink) Update(svc *discovery.Service) {
	p := s.p
	list, cut := compile.Endpoints(svc)
	if cut > 0 {
		p.log.Warn("metadata of endpoints are longer than is kept", "event", "metadata_cut", "service", svc.Name, "endpoints", cut)
	}
	if svc.Stale {
		p.log.Warn("using the last good endpoints from disk", "event", "stale", "service", svc.Name, "endpoints", len(list), "from", svc.Updated.Format(time.RFC3339))
	}
	ids := svc.Identities
	if p.sidecar != nil && !sidecar.ConsulIdentity(&p.initial.Config.Identity) {
		ids = nil // those of Consul's CA, which this mesh does not use
	}
	p.expect(svc.Name, ids, svc.SNI)
	p.registry.SetEndpoints(svc.Name, list)
	if svc.Name == p.initial.Config.Service.Name {
		p.divide(p.current.Load())
	}
	p.mu.Lock()
	if m := p.watched[svc.Name]; m != nil {
		m.Updates.Inc()
	}
	p.mu.Unlock()
}

// expect notes the identities and the server name that discovery gives the
// endpoints of a service. New ones are put into the plan before the endpoints are used: connections to
// them would be refused otherwise.
func (p *Proxy) expect(service string, ids []string, name string) {
	p.mu.Lock()
	before, nameBefore := p.identities[service], p.serverNames[service]
	if slices.Equal(before, ids) && nameBefore == name {
		p.mu.Unlock()
		return
	}
	p.identities[service], p.serverNames[service] = ids, name
	var err error
	if p.loaded != nil && !p.draining.Load() && told(p.loaded.Config.Policy(service), nameBefore != name) {
		if err = p.apply(p.loaded); err != nil {
			// So that the configuration can still be reloaded.
			p.identities[service], p.serverNames[service] = before, nameBefore
		}
	}
	p.mu.Unlock()
	if err != nil {
		p.failed(fmt.Errorf("identities given by discovery: %w", err))
	}
}

// told reports whether what discovery says of a service counts: what the policy names goes first, and then the plan stays
// as it is.
func told(policy config.Policy, named bool) bool {
	return len(policy.Identities) == 0 || named && policy.ServerName == ""
}

// Fail implements discovery.Sink.
func (s *sink) Fail(service string, err error) {
	s.p.mu.Lock()
	if m := s.p.watched[service]; m != nil {
		m.Errors.Inc()
	}
	s.p.mu.Unlock()
	s.p.log.Warn("discovery has trouble; the last good endpoints stay in use", "event", "discovery_failed", "service", service, "error", err)
}
