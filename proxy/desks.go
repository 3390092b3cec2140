package proxy

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/lifecycle"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// desk is an address of the admin section: the admin API's, or one beside it at
// which some of it can be asked.
type desk struct {
	key, address string // as configured; the key is one of the admin section
	*admin.Desk
	shared bool // a Sidecar runs it
}

// run serves at d until ctx ends.
func (d *desk) run(ctx context.Context) error {
	if !d.shared {
		return d.Run(ctx)
	}
	<-ctx.Done()
	d.End()
	return nil
}

// name is what d is called in messages.
func (d *desk) name() string {
	if d.key == apiKey {
		return "admin API"
	}
	return "admin." + d.key
}

// apiKey is where the address of the admin API itself stands.
const apiKey = "listen"

// deskAt is a desk that is to be.
type deskAt struct{ key, address string }

// desksOf are the addresses that a asks for.
func desksOf(a *config.Admin) []deskAt {
	list := []deskAt{{apiKey, a.Listen}, {"probe_listen", a.ProbeListen}, {"metrics_listen", a.MetricsListen}}
	if a.Lifecycle != nil {
		list = append(list, deskAt{"lifecycle.listen", a.Lifecycle.Listen})
	}
	return slices.DeleteFunc(list, func(d deskAt) bool { return d.address == "" })
}

// deskServer returns what answers at the address that stands at key. whole is
// for the admin API, shutdown ends the process.
func deskServer(key string, a *config.Admin, o admin.Options, whole func(admin.Options) *admin.Server, shutdown func()) *admin.Server {
	switch key {
	case "probe_listen":
		return admin.NewProbes(o)
	case "metrics_listen":
		return admin.NewMetrics(o, a.MetricsPath)
	case "lifecycle.listen":
		l := a.Lifecycle
		return admin.NewLifecycle(o, admin.Lifecycle{
			ShutdownPath: l.ShutdownPath, StartupPath: l.StartupPath, StartupTimeout: l.StartupTimeout, Shutdown: shutdown,
		})
	}
	o.Pprof, o.AllowRemote = a.Pprof, a.AllowRemote
	return whole(o)
}

// newDesks opens the addresses of the admin section, and takes over those that
// are open already.
func (p *Proxy) newDesks(loaded *config.Loaded) error {
	a := &loaded.Config.Admin
	wanted, open := desksOf(a), p.sidecar.openDesks()
	p.left = slices.DeleteFunc(slices.Clone(open), func(d *desk) bool {
		return slices.ContainsFunc(wanted, func(at deskAt) bool { return at.address == d.address })
	})
	var over []func()
	for _, at := range wanted {
		s := deskServer(at.key, a, p.adminOptions(), admin.New, p.quit)
		if i := slices.IndexFunc(open, func(d *desk) bool { return d.address == at.address }); i >= 0 {
			d := *open[i]
			d.key = at.key
			p.desks = append(p.desks, &d)
			open = slices.Delete(open, i, i+1)
			over = append(over, func() { d.Use(s) })
			continue
		}
		ln, err := net.Listen("tcp", at.address)
		if errors.Is(err, syscall.EADDRINUSE) && p.leave(at.address) {
			ln, err = net.Listen("tcp", at.address)
		}
		if err != nil {
			return loaded.Problem("admin."+at.key, "cannot listen: "+err.Error())
		}
		p.desks = append(p.desks, &desk{key: at.key, address: at.address, Desk: admin.NewDesk(ln, s)})
	}
	for _, take := range over {
		take()
	}
	return nil
}

// leave ends what was open before there was a configuration and is in the way of
// address. It reports whether there was any.
func (p *Proxy) leave(address string) (found bool) {
	port := parseAddrPort(address).Port()
	for _, d := range p.left {
		if parseAddrPort(d.address).Port() == port {
			d.End()
			found = true
		}
	}
	return found
}

// runDesks serves them in group, and ends those that the configuration does not
// ask for.
func (p *Proxy) runDesks(group *lifecycle.Group) {
	for _, d := range p.desks {
		group.Go(d.name(), p.optional(d.name(), d.run))
	}
	for _, d := range p.left {
		group.Go(d.name(), func(context.Context) error {
			d.End()
			return nil
		})
	}
}

// AdminAddress returns where the admin API listens; an address whose text is
// "off" without one.
func (p *Proxy) AdminAddress() net.Addr {
	for _, d := range p.desks {
		if d.key == apiKey {
			return d.Addr()
		}
	}
	return noAddress{}
}

type noAddress struct{}

func (noAddress) Network() string { return "tcp" }
func (noAddress) String() string  { return "off" }
