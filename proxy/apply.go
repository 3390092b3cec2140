package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/compile"
	"github.com/outrigger-mesh/outrigger/proxy/listener"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// Reload loads the configuration from path and applies it. Whatever is wrong
// with it, the plan in use goes on.
func (p *Proxy) Reload(path string) error {
	if p.sidecar != nil {
		return p.reloadSidecar(path)
	}
	loaded, err := config.Load(path)
	if err == nil {
		err = p.Apply(loaded)
	} else {
		p.failed(err)
	}
	return err
}

// Apply makes loaded what is served, all or nothing: on any error the last
// good plan keeps serving.
func (p *Proxy) Apply(loaded *config.Loaded) error {
	p.mu.Lock()
	err := p.apply(loaded)
	p.mu.Unlock()
	if err != nil {
		p.failed(err)
	}
	return err
}

func (p *Proxy) failed(err error) {
	now := time.Now()
	p.metrics.Process().Reloaded(now, false)
	p.mu.Lock()
	p.reload.Failures++
	p.reload.LastError, p.reload.LastErrorAt = err.Error(), now
	first := p.loaded == nil
	p.mu.Unlock()
	if !first {
		p.log.Error("configuration refused; the last good one stays in use", "event", "reload_failed", "error", err)
	}
}

// apply does the work of Apply under p.mu.
func (p *Proxy) apply(loaded *config.Loaded) error {
	if p.draining.Load() {
		return errors.New("the proxy is shutting down")
	}
	if err := p.restartNeeded(loaded); err != nil {
		return err
	}
	draft, err := compile.Compile(compile.Input{
		Loaded: loaded, Version: p.planned + 1, Source: p.identity,
		TrustDomain: p.trustDomain(loaded.Config), Datacenter: p.datacenter(), Identities: p.identities, ServerNames: p.serverNames, Limiters: p.limiters, Tokens: p.tokens,
	})
	if err != nil {
		return err
	}
	bound, err := p.bind(draft.Listeners())
	if err != nil {
		return err
	}
	datagrams, err := p.bindDatagrams(draft.Datagrams())
	if err != nil {
		bound.abandon()
		return err
	}
	access, err := p.changeAccessLog(loaded)
	if err == nil {
		if err = p.setOutcomes(loaded); err != nil {
			access.Abandon()
		}
	}
	if err != nil {
		datagrams.abandon()
		bound.abandon()
		return err
	}
	access.Commit()
	p.tokens.Use(draft.Verifiers())
	old := p.current.Load()
	next := draft.Build(p.registry, p.metrics)
	p.divide(next)
	p.sync(next, bound)
	p.syncDatagrams(next, datagrams)
	p.current.Store(next)
	p.divide(next) // again: discovery may have told the plan before
	p.planned = next.Version
	p.remember(next.Version, loaded)
	p.logConfigured(next.Version, loaded)
	// Not so when only identities given by discovery have changed.
	asked := p.loaded != loaded
	p.loaded = loaded
	for _, l := range append(slices.Collect(maps.Values(p.listeners)), p.retired...) {
		if n := l.Recheck(); n > 0 {
			p.log.Warn("connections ended because the rules no longer allow their callers", "event", "rechecked", "listener", l.Plan().Name, "connections", n)
		}
	}
	if old != nil {
		compile.Release(old, p.registry)
	}
	p.begun()
	p.faults.Apply(loaded.Config.Faults.Allow, next.Faults)
	p.setServices(draft.Services())
	p.setNames(loaded.Config)
	p.setLevel(loaded.Config.Telemetry.Log.Level)
	p.applied(next, asked)
	return nil
}

func (p *Proxy) applied(next *plan.Plan, asked bool) {
	now := time.Now()
	p.metrics.Process().ConfigVersion.Inc()
	p.reload.Version = next.Version
	if asked {
		p.metrics.Process().Reloaded(now, true)
		p.reload.Applied, p.reload.LastError, p.reload.File = now, "", p.loaded.File
		p.reload.Reloads++
	}
	names := make([]string, 0, len(next.Listeners)+len(next.Datagrams))
	for _, l := range next.Listeners {
		names = append(names, l.Name+"="+p.listeners[l.Name].Where())
	}
	for _, g := range next.Datagrams {
		names = append(names, g.Name+"="+p.datagrams[g.Name].Address().String())
	}
	p.log.Info("plan in use", "event", "applied", "version", next.Version, "listeners", names)
}

// restartNeeded refuses changes of what is fixed for the life of a process.
func (p *Proxy) restartNeeded(loaded *config.Loaded) error {
	if p.loaded == nil {
		return nil
	}
	old, now := p.loaded.Config, loaded.Config
	oldLog, nowLog := old.Telemetry, now.Telemetry
	oldLog.Log.Level, nowLog.Log.Level = "", ""
	oldLog.Outcomes, nowLog.Outcomes = outcomes.Config{}, outcomes.Config{}
	oldLog.AccessLog, nowLog.AccessLog = config.AccessLog{}, config.AccessLog{}
	var problems config.Problems
	for _, f := range []struct {
		path     string
		old, now any
	}{
		{"identity", old.Identity, now.Identity},
		{"discovery", old.Discovery, now.Discovery},
		{"admin", old.Admin, now.Admin},
		{"memory", old.Memory, now.Memory},
		{"dns", old.DNS, now.DNS},
		{"telemetry", oldLog, nowLog},
		{"service.name", old.Service.Name, now.Service.Name},
		{"inbound.listen", registered(old), registered(now)},
	} {
		if !reflect.DeepEqual(f.old, f.now) {
			problems = append(problems, loaded.Problem(f.path, "cannot change while the proxy runs; restart it, or take the change back"))
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// registered is the inbound address that the catalog tells others; empty when
// the proxy does not register there.
func registered(c *config.Config) string {
	if c.Discovery.Consul == nil || c.Discovery.Consul.Register == nil {
		return ""
	}
	return c.Inbound.Listen
}

// sockets are the listeners of a plan by name; fresh are those of them that
// are not accepting yet.
type sockets struct {
	byName map[string]*listener.Listener
	fresh  map[*listener.Listener]bool
}

// bind finds the sockets that the plan needs: those that are open on the same
// addresses, whatever their names have been, and new ones. On an error those
// just opened are closed again.
func (p *Proxy) bind(want []*plan.Listener) (sockets, error) {
	open := map[string]*listener.Listener{}
	for _, l := range p.listeners {
		open[socketOf(l.Plan())] = l
	}
	s := sockets{byName: map[string]*listener.Listener{}, fresh: map[*listener.Listener]bool{}}
	var errs []error
	for _, l := range want {
		n := open[socketOf(l)]
		if n == nil {
			var err error
			if n, err = listener.Bind(l, p.server, p.log); err != nil {
				errs = append(errs, p.ownPort(l, err))
				continue
			}
			s.fresh[n] = true
		}
		s.byName[l.Name] = n
	}
	if len(errs) > 0 {
		s.abandon()
		return sockets{}, errors.Join(errs...)
	}
	return s, nil
}

// abandon closes what was bound for a plan that does not come.
func (s sockets) abandon() {
	for n := range s.fresh {
		n.Stop()
	}
}

// socketOf names the socket that l needs: its address; without one, or with a port that the
// kernel chooses the listener itself.
func socketOf(l *plan.Listener) string {
	if l.Address == "" {
		return "without a socket: " + l.Name
	}
	if strings.HasSuffix(l.Address, ":0") {
		return l.Name + " " + l.Address
	}
	if l.Transparent {
		return "transparent " + l.Address
	}
	return l.Address
}

// ownPort explains an error of binding l when this proxy has the port itself,
// on another address such as the wildcard.
func (p *Proxy) ownPort(l *plan.Listener, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	_, port, _ := net.SplitHostPort(l.Address)
	for name, have := range p.listeners {
		if _, own, _ := net.SplitHostPort(have.Plan().Address); own == port {
			return fmt.Errorf("%w; it is this proxy's own listener %s on %s: restart the proxy to change its address or mode", err, name, have.Plan().Address)
		}
	}
	return err
}

// sync gives every listener its part of the plan, starts new ones and lets
// those end that are no longer wanted.
func (p *Proxy) sync(next *plan.Plan, s sockets) {
	used := map[*listener.Listener]bool{}
	for _, l := range next.Listeners {
		n := s.byName[l.Name]
		used[n] = true
		if s.fresh[n] {
			n.Apply(l)
			p.accepting.Go("listener "+l.Name, n.Run)
			continue
		}
		before := n.Plan()
		n.Apply(l)
		switch {
		case before.Protocol != l.Protocol || before.Direction != l.Direction || before.Exposed != l.Exposed:
			// What was understood of these connections no longer holds.
			p.log.Warn("connections ended because their listener now serves something else", "event", "repurposed",
				"listener", l.Name, "before", before.Name+" "+before.Protocol.String(), "connections", n.Connections())
			n.CloseAll()
		case before.Security != l.Security:
			n.CloseIdle()
		}
	}
	p.direct(next, s)
	for _, l := range p.listeners {
		if !used[l] {
			p.retire(l)
		}
	}
	p.listeners = s.byName
	for _, l := range next.Listeners {
		if l.Direction != telemetry.Inbound || l.Exposed {
			continue
		}
		// The rules in force hold for connections of an earlier address, too.
		for _, r := range p.retired {
			if r.Plan().Direction == telemetry.Inbound && !r.Plan().Exposed && r.Plan().Protocol == l.Protocol && r.Plan().Original == l.Original {
				r.Apply(l)
			}
		}
	}
}

// retire stops accepting on l; its connections end when they have nothing to
// do, or with the proxy.
func (p *Proxy) retire(l *listener.Listener) {
	l.Stop()
	l.CloseIdle()
	p.retired = append(p.retired, l)
	p.log.Info("listener closed", "event", "listener_closed", "listener", l.Plan().Name, "address", l.Where())
}

// retiredStep is how often connections of retired listeners are looked at.
const retiredStep = 200 * time.Millisecond

// closeRetired ends the connections of retired listeners as soon as they carry
// no exchange, and forgets listeners that have none left.
func (p *Proxy) closeRetired(ctx context.Context) error {
	for sleep(ctx, retiredStep) {
		p.mu.Lock()
		p.retired = slices.DeleteFunc(p.retired, func(l *listener.Listener) bool {
			l.CloseIdle()
			return l.Connections() == 0
		})
		p.mu.Unlock()
	}
	return nil
}

func (p *Proxy) setLevel(name string) {
	var level slog.Level
	if p.level != nil && level.UnmarshalText([]byte(name)) == nil {
		p.level.Set(level)
	}
}
