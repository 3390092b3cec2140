package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// openEarly opens the addresses of the admin section that are known before Consul
// has said anything. One that nobody asked for may be another's: it is done
// without, since the description may say another.
func (s *Sidecar) openEarly(m *config.Making, o Options) error {
	if err := m.Check("admin"); err != nil {
		return err
	}
	a := &m.Config.Admin
	metrics, err := telemetry.New(telemetry.Options{Resource: telemetry.Resource{Service: m.Config.Service.Name, Version: o.Version, Commit: o.Commit}})
	if err != nil {
		return err
	}
	var g telemetry.ProcessGauges
	s.bind(&g)
	metrics.Process().Bind(g)
	views := admin.Options{Metrics: metrics.Handler(), LogLevel: o.LogLevel, Logger: s.log, Views: admin.Views{
		Ready: s.ready, Mesh: s.view,
		Process: func() admin.ProcessView {
			return admin.ProcessView{Service: s.named, Version: o.Version, Started: s.began}
		},
	}}
	for _, at := range desksOf(a) {
		ln, err := net.Listen("tcp", at.address)
		switch {
		case err == nil:
			server := deskServer(at.key, a, views, admin.NewWaiting, s.quit)
			s.desks = append(s.desks, &desk{key: at.key, address: at.address, Desk: admin.NewDesk(ln, server), shared: true})
		case errors.Is(err, syscall.EADDRINUSE) && !m.Given("admin."+at.key):
			s.taken = append(s.taken, at)
			s.log.Warn("cannot listen yet", "event", "admin_taken", "setting", "admin."+at.key, "error", err)
		default:
			s.closeDesks()
			return m.Problem("admin."+at.key, "cannot listen: "+err.Error())
		}
	}
	return nil
}

func (s *Sidecar) closeDesks() {
	for _, d := range s.desks {
		_ = d.Close() // nothing was served
	}
	s.desks = nil
}

// runDesks serves at the early addresses until ctx ends.
func (s *Sidecar) runDesks(ctx context.Context) {
	var wg sync.WaitGroup
	for _, d := range s.desks {
		wg.Go(func() {
			if err := d.Run(ctx); err != nil {
				s.log.Error(d.name()+" has failed; the proxy goes on without it", "event", "part_failed", "error", err)
			}
		})
	}
	wg.Wait()
}

// openDesks are the addresses that are open already.
func (s *Sidecar) openDesks() []*desk {
	if s == nil {
		return nil
	}
	return slices.Clone(s.desks)
}

// adminURL is where the admin API is by now, or "off".
func (s *Sidecar) adminURL() string {
	for _, d := range s.desks {
		if d.key == apiKey {
			return "http://" + d.Addr().String() + "/"
		}
	}
	return "off"
}

// How long, and how often, it is tried to have an address that somebody else had
// when this process began: another sidecar that did not know its own yet.
const (
	takenTime = 10 * time.Second
	takenStep = 100 * time.Millisecond
)

// awaitTaken waits until the addresses that could not be had, and that a asks for, are free. Nobody is
// told where they are not: who opens them then says so.
func (s *Sidecar) awaitTaken(ctx context.Context, a *config.Admin) {
	ctx, cancel := context.WithTimeout(ctx, takenTime)
	defer cancel()
	for _, at := range desksOf(a) {
		if !slices.ContainsFunc(s.taken, func(t deskAt) bool { return t.address == at.address }) {
			continue
		}
		for {
			ln, err := net.Listen("tcp", at.address)
			if err == nil {
				_ = ln.Close()
				break
			}
			if !sleep(ctx, takenStep) {
				return
			}
		}
	}
}

// ready is what readiness is before there is a proxy, and that of the proxy then:
// whoever began to wait before goes on.
func (s *Sidecar) ready() (bool, []admin.Check) {
	if p := s.proxy.Load(); p != nil {
		return p.Ready()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return false, []admin.Check{{Name: "consul", Detail: s.waits()}}
}

// waits says what the start waits for. s.mu is held.
func (s *Sidecar) waits() string {
	switch {
	case s.running != nil:
		return "Consul has described this sidecar; it starts"
	case s.refused != "":
		return fmt.Sprintf("what Consul at %s says of this sidecar since %s cannot be served: %s", s.where, s.since.UTC().Format(time.RFC3339), s.refused)
	}
	why := "no answer yet"
	if trouble := s.trouble(); trouble != "" {
		why = "last error: " + trouble
	}
	return fmt.Sprintf("waiting for Consul at %s since %s: %s", s.where, s.began.UTC().Format(time.RFC3339), why)
}
