package proxy

import (
	"log/slog"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// NewSidecar prepares to follow the sidecar that discovery.consul.sidecar of the
// base names. flags are what was given on the command line; they are over base
// already, and are laid over it again when it is reloaded. Nothing is sent before
// Run.
func NewSidecar(base *config.Base, flags []config.Layer, log *slog.Logger) (*Sidecar, error) {
	m, err := base.Make()
	if err != nil {
		return nil, err
	}
	o := mesh.Options{Logger: log}
	if d := m.Config.Discovery; d.Snapshot != "" {
		o.Snapshot = d.Snapshot + ".sidecar" // beside that of the endpoints
	}
	f, err := mesh.New(*m.Config.Discovery.Consul, o)
	if err != nil {
		return nil, err
	}
	return &Sidecar{follower: f, source: f.Endpoints(), flags: flags, log: log, base: base, changed: make(chan struct{})}, nil
}
