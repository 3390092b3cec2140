package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
)

// NewSidecar prepares to follow the sidecar that discovery.consul.sidecar of the
// base names. flags are what was given on the command line; they are over base
// already, and are laid over it again when it is reloaded. Of o Log, LogLevel,
// Version and Commit count. It opens the addresses of the admin section, so that
// mistakes about them are found at once; nothing is sent before Run.
func NewSidecar(base *config.Base, flags []config.Layer, o Options) (*Sidecar, error) {
	m, err := base.Make()
	if err != nil {
		return nil, err
	}
	d := m.Config.Discovery
	var at mesh.Options
	at.Logger = o.Log
	if d.Snapshot != "" {
		at.Snapshot = d.Snapshot + ".sidecar" // beside that of the endpoints
	}
	f, err := mesh.New(*d.Consul, at)
	if err != nil {
		return nil, err
	}
	s := newSidecar(base, f, o.Log)
	s.source, s.flags, s.where = f.Endpoints(), flags, f.Client().Address()
	s.named = cmp.Or(m.Config.Service.Name, d.Consul.Sidecar.For, d.Consul.Sidecar.ProxyID)
	if err := s.openEarly(m, o); err != nil {
		s.quit()
		return nil, err
	}
	return s, nil
}

// newSidecar is what every Sidecar begins as.
func newSidecar(base *config.Base, f meshFollower, log *slog.Logger) *Sidecar {
	s := &Sidecar{follower: f, log: log, base: base, began: time.Now(), changed: make(chan struct{})}
	s.quitting, s.quit = context.WithCancel(context.Background())
	return s
}
