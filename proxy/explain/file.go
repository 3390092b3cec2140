package explain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/file"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/compile"
	"github.com/outrigger-mesh/outrigger/proxy/exchange"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// File answers q for the proxy that would run with loaded, of which nothing is
// started: endpoints are those of a catalog in a file, where there is one, and
// every guard is as in the beginning.
func File(q *admin.Question, loaded *config.Loaded) (*admin.LegView, error) {
	in := compile.Input{Loaded: loaded, Version: 1, TrustDomain: loaded.Config.Identity.TrustDomain}
	if loaded.Config.Identity.Configured() {
		in.Source = absent{}
	}
	services, err := catalog(loaded)
	if err != nil {
		return nil, err
	}
	in.Identities, in.ServerNames = map[string][]string{}, map[string]string{}
	for _, s := range services {
		in.Identities[s.Name], in.ServerNames[s.Name] = s.Identities, s.SNI
	}
	draft, err := compile.Compile(in)
	if err != nil {
		return nil, err
	}
	metrics, err := telemetry.New(telemetry.Options{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer func() { _ = metrics.Shutdown(ctx) }()
	registry := upstream.NewRegistry(ctx, wire.NewSweeper(time.Now()), metrics, slog.New(slog.DiscardHandler))
	p := draft.Build(registry, metrics)
	defer compile.Release(p, registry)
	for _, s := range services {
		list, _ := compile.Endpoints(s)
		registry.SetEndpoints(s.Name, list)
	}
	var endpoints []admin.EndpointView
	_, states := registry.States()
	for i := range states {
		s := &states[i]
		v := admin.EndpointView{
			Cluster: s.Cluster, Address: s.Address, ID: s.Spec.ID, Health: s.Spec.Health, Weight: s.Spec.Weight, State: s.Evidence.State.String(),
			Draining: s.Spec.Draining, Region: s.Spec.Region, Zone: s.Spec.Zone, Priority: s.Spec.Priority,
		}
		if s.Spec.Labels != "" {
			v.Metadata = maps.Collect(s.Spec.Labels.All())
		}
		endpoints = append(endpoints, v)
	}
	return Request(q, Input{Plan: p, Loaded: loaded, TrustDomain: in.TrustDomain, Endpoints: endpoints, Faults: p.Faults, Hops: exchange.NewHops()})
}

// catalog reads the endpoints that a file gives; none where others know them.
func catalog(loaded *config.Loaded) ([]*discovery.Service, error) {
	d := loaded.Config.Discovery.File
	if d == nil {
		return nil, nil
	}
	services, err := file.Load(d.Path)
	if err != nil {
		return nil, fmt.Errorf("discovery.file.path: %w", err)
	}
	return services, nil
}

// absent stands for an identity that a proxy would have. Nobody asks it: no
// connection is made.
type absent struct{}

func (absent) Run(context.Context) error { return errors.New("there is no identity here") }
func (absent) Material() *mtls.Material  { return nil }
func (absent) Changed() <-chan struct{}  { return nil }
func (absent) Status() mtls.Status       { return mtls.Status{Kind: "none"} }
