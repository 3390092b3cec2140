package proxy

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/lifecycle"
	"github.com/outrigger-mesh/outrigger/proxy/listener"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// drainStep is how often the drain looks whether connections have ended.
const drainStep = 50 * time.Millisecond

// drain ends the proxy in order: not ready and deregistered, still serving for
// the drain delay; then no new inbound connections, and those that are there
// end with their exchange; egress goes on until the application has closed its
// own connections. What is left at the deadline, or when kill ends, is cut off,
// which drain reports.
func (p *Proxy) drain(kill context.Context, core *lifecycle.Group, orderly bool) (cut bool) {
	p.draining.Store(true)
	p.faults.Drain()
	began := time.Now()
	cfg := p.initial.Config.Drain
	p.mu.Lock()
	if p.loaded != nil {
		cfg = p.loaded.Config.Drain
	}
	p.mu.Unlock()
	if orderly {
		p.log.Info("draining", "event", "drain", "delay", cfg.Delay.String(), "timeout", cfg.Timeout.String())
		if deregister := p.deregistration(); deregister != nil {
			ctx, cancel := context.WithTimeout(kill, flushTime)
			if err := deregister(ctx); err != nil {
				p.log.Warn("cannot deregister", "event", "deregister_failed", "error", err)
			}
			cancel()
		}
		// Callers that have no connection now may still know of this proxy.
		if p.serves() {
			sleep(kill, cfg.Delay)
		}
	}
	p.closing.Store(true)
	deadline, cancel := context.WithTimeout(kill, cfg.Timeout)
	defer cancel()
	var inbound, outbound []*listener.Listener
	for _, l := range p.all() {
		if l.Plan().Direction == telemetry.Inbound {
			l.Stop()
			inbound = append(inbound, l)
		} else {
			outbound = append(outbound, l)
		}
	}
	if orderly {
		p.await(deadline, inbound, true)
		p.letGo(deadline, min(goodbye, cfg.Timeout/2), outbound)
	}
	left := 0
	for _, l := range append(inbound, outbound...) {
		l.Stop()
		left += busy(l)
		l.CloseAll()
	}
	p.accepting.Stop()
	_ = p.accepting.Wait()
	p.log.Info("drained", "event", "drained", "took", time.Since(began).Round(time.Millisecond).String(), "cut_off", left)
	return orderly && left > 0
}

// goodbye is how long before the end of the drain the WebSockets of the own
// application are closed: longer than both sides may take to answer.
const goodbye = 8 * time.Second

// letGo waits for the application to close its connections, and has WebSockets
// closed that are still there when no more than last is left.
func (p *Proxy) letGo(ctx context.Context, last time.Duration, list []*listener.Listener) {
	end, _ := ctx.Deadline()
	before, cancel := context.WithDeadline(ctx, end.Add(-last))
	p.await(before, list, false)
	cancel()
	for _, l := range list {
		l.GoAway()
	}
	p.await(ctx, list, false)
}

// await waits until the listeners have no connections left. With idle,
// connections without an exchange are closed.
func (p *Proxy) await(ctx context.Context, list []*listener.Listener, idle bool) {
	for {
		n := 0
		for _, l := range list {
			if idle {
				l.CloseIdle()
			}
			n += l.Connections()
		}
		if n == 0 || !sleep(ctx, drainStep) {
			return
		}
	}
}

// serves reports whether others call through this proxy, or its application
// does at present.
func (p *Proxy) serves() bool {
	return slices.ContainsFunc(p.all(), func(l *listener.Listener) bool {
		return l.Plan().Direction == telemetry.Inbound || l.Connections() > 0
	})
}

// busy returns how many connections of l carry an exchange. Those without one
// lose nothing when they are closed.
func busy(l *listener.Listener) (n int) {
	for _, s := range l.States(math.MaxInt) {
		if s.Busy {
			n++
		}
	}
	return n
}

// sleep waits for d and reports false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
