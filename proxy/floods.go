package proxy

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// floods counts the HTTP/2 peers that were stopped for an excess of frames, and
// says so in the log: the first of a kind at once, and then no oftener than
// every sayFlood, however many connections a peer makes for the purpose.
type floods struct {
	log   *slog.Logger
	now   func() time.Duration
	kinds [http2.Floods]struct {
		struck telemetry.Counter
		next   atomic.Int64 // when the log may have the next line; 0 at once
		said   atomic.Uint64
	}
}

// sayFlood is the least time between two lines about floods of a kind.
const sayFlood = 10 * time.Second

// struck counts a peer that was stopped.
func (f *floods) struck(kind http2.Flood, peer netip.AddrPort) {
	k := &f.kinds[kind]
	k.struck.Inc()
	now, next := int64(f.now()), k.next.Load()
	if now < next || !k.next.CompareAndSwap(next, now+int64(sayFlood)) {
		return
	}
	from := "unix"
	if peer.IsValid() {
		from = peer.String()
	}
	all := k.struck.Value()
	f.log.Warn("an HTTP/2 peer was stopped: it sent too much that asks for work and brings nothing",
		"event", "http2_flood", "kind", kind.String(), "peer", from, "connections", all-k.said.Swap(all))
}

// named are the counters, for the metrics.
func (f *floods) named() (list []telemetry.Named) {
	for kind := range http2.Floods {
		list = append(list, telemetry.Named{Name: kind.String(), Value: f.kinds[kind].struck.Value})
	}
	return list
}
