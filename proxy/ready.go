package proxy

import (
	"context"
	"runtime"
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

const (
	// settleStep is the pause between two times that a sidecar gives memory back.
	settleStep = 4 * time.Second
	// largeHeap is from how many bytes on a heap that is at rest is a large one.
	largeHeap = 16 << 20
	// largePercent is how much of a large heap its garbage may take before it is
	// collected; the runtime's own default is as much again.
	largePercent, runtimePercent = 50, 100
)

// settle gives back to the system what the start took and nothing needs after
// it: configuration and catalogs as they were read, above all. In a large mesh,
// where most of what a sidecar has is what it knows, less is left free for
// garbage, of which traffic makes none; who has set GOGC to another value than
// the default has that.
func (p *Proxy) settle(ctx context.Context) error {
	if !p.awaitReady(ctx) {
		return nil
	}
	debug.FreeOSMemory()
	if p.sidecar == nil {
		return nil
	}
	// The first answers have others follow, and stacks that these have made large
	// lose half at each collection.
	for range 2 {
		if !sleep(ctx, settleStep) {
			return nil
		}
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc >= largeHeap {
		if had := debug.SetGCPercent(largePercent); had != runtimePercent {
			debug.SetGCPercent(had)
		}
	}
	return nil
}
