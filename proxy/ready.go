package proxy

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/outrigger-mesh/outrigger/telemetry"
)

// readyStep is how often it is looked whether the proxy is ready.
const readyStep = 50 * time.Millisecond

// awaitReady reports whether the proxy became ready before ctx ended or it was
// told to stop.
func (p *Proxy) awaitReady(ctx context.Context) bool {
	for !p.isReady() {
		if p.draining.Load() || !sleep(ctx, readyStep) {
			return false
		}
	}
	return true
}

// isReady is Ready without the words. Most often it is a service that has not been
// answered yet, which is found soon.
func (p *Proxy) isReady() bool {
	pl := p.current.Load()
	if pl == nil {
		return false
	}
	for _, c := range pl.Clusters {
		if c.Direction() == telemetry.Outbound && !c.Listed() {
			return false
		}
	}
	ready, _ := p.Ready()
	return ready
}

// registration registers the service as soon as the proxy is ready, so that
// nobody is sent here before.
func (p *Proxy) registration(ctx context.Context) error {
	if !p.awaitReady(ctx) {
		return nil
	}
	return p.register.Run(ctx)
}

// settle gives back to the system what the start took and nothing needs after
// it: configuration and catalogs as they were read, above all.
func (p *Proxy) settle(ctx context.Context) error {
	if p.awaitReady(ctx) {
		debug.FreeOSMemory()
	}
	return nil
}
