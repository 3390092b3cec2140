package proxy

import (
	"net"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/lifecycle"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// desk is an address beside the admin API's at which some of it can be asked.
type desk struct {
	name   string
	server *admin.Server
}

// newDesks opens the further addresses of the admin section.
func (p *Proxy) newDesks(loaded *config.Loaded) error {
	a := &loaded.Config.Admin
	open := func(key, address string, serve func(admin.Options) *admin.Server) error {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			return loaded.Problem("admin."+key, "cannot listen: "+err.Error())
		}
		o := admin.Options{Listener: ln, Metrics: p.metrics.Handler(), Logger: p.log, Views: admin.Views{Ready: p.Ready}}
		p.desks = append(p.desks, desk{"admin." + key, serve(o)})
		return nil
	}
	if a.ProbeListen != "" {
		if err := open("probe_listen", a.ProbeListen, admin.NewProbes); err != nil {
			return err
		}
	}
	if a.MetricsListen != "" {
		metrics := func(o admin.Options) *admin.Server { return admin.NewMetrics(o, a.MetricsPath) }
		if err := open("metrics_listen", a.MetricsListen, metrics); err != nil {
			return err
		}
	}
	if l := a.Lifecycle; l != nil {
		return open("lifecycle.listen", l.Listen, func(o admin.Options) *admin.Server {
			return admin.NewLifecycle(o, admin.Lifecycle{
				ShutdownPath: l.ShutdownPath, StartupPath: l.StartupPath, StartupTimeout: l.StartupTimeout, Shutdown: p.quit,
			})
		})
	}
	return nil
}

// runDesks serves them in group.
func (p *Proxy) runDesks(group *lifecycle.Group) {
	for _, d := range p.desks {
		group.Go(d.name, p.optional(d.name, d.server.Run))
	}
}
