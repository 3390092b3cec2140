// Package datagram relays UDP: what one client sends goes to one endpoint, and back, until both have been silent for a while.
package datagram

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// maxDatagram is the longest payload that UDP has room for (RFC 768).
const maxDatagram = 65535

// Options are what relays of a process share.
type Options struct {
	Now       func() time.Duration // monotonic
	AccessLog *telemetry.AccessLog // nil without one
	Log       *slog.Logger
	Memory    *memory.Budget // nil without one
}

// Relay is one bound socket with the flows that came to it. What it relays to
// follows the plan; the socket stays.
type Relay struct {
	o    Options
	conn *net.UDPConn
	plan atomic.Pointer[plan.Datagrams]
	wg   sync.WaitGroup

	shards  atomic.Uint32
	buffers sync.Pool // of *[maxDatagram]byte, for what endpoints send

	mu    sync.Mutex
	flows map[netip.AddrPort]*flow
	ended bool
}

// Bind opens the socket of p without reading from it.
func Bind(p *plan.Datagrams, o Options) (*Relay, error) {
	addr, err := net.ResolveUDPAddr("udp", p.Address)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot take datagrams on %s: %w", p.Name, p.Address, err)
	}
	r := &Relay{o: o, conn: conn, flows: map[netip.AddrPort]*flow{}}
	r.buffers.New = func() any { return new([maxDatagram]byte) }
	r.plan.Store(p)
	return r, nil
}

// Address is the bound address, with the port that the system chose.
func (r *Relay) Address() net.Addr { return r.conn.LocalAddr() }

// Plan returns what is relayed at present.
func (r *Relay) Plan() *plan.Datagrams { return r.plan.Load() }

// Apply makes p what is relayed. Flows stay with their endpoints.
func (r *Relay) Apply(p *plan.Datagrams) { r.plan.Store(p) }

// Close closes the socket and ends all flows; Run returns soon after.
func (r *Relay) Close() {
	_ = r.conn.Close()
	r.mu.Lock()
	r.ended = true
	for _, f := range r.flows {
		_ = f.conn.Close()
	}
	r.mu.Unlock()
}

// Flows returns how many flows there are.
func (r *Relay) Flows() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.flows)
}

// Run relays until ctx ends or Close is called.
func (r *Relay) Run(ctx context.Context) error {
	defer r.wg.Wait()
	defer r.Close()
	defer context.AfterFunc(ctx, r.Close)()
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			r.plan.Load().Metrics.AcceptErrors.Inc() // such as an ICMP error of a reply; the socket is good
			continue
		}
		r.take(from, buf[:n])
	}
}

// take passes a datagram on. Where the endpoint's host says that nobody listens
// there, another one gets it.
func (r *Relay) take(from netip.AddrPort, data []byte) {
	p := r.plan.Load()
	p.Metrics.BytesIn.Add(uint64(len(data)))
	var tried []*flow
	for range maxTries {
		f := r.flow(from)
		if f == nil {
			if f = r.open(p, from, tried); f == nil {
				return
			}
		}
		if f.send(data) {
			return
		}
		r.end(f, outcome.ConnectFailed)
		tried = append(tried, f)
	}
}

// maxTries is how many endpoints one datagram may be offered to.
const maxTries = 3

func (r *Relay) flow(from netip.AddrPort) *flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flows[from]
}

// open begins a flow with an endpoint that was not tried before, or counts the
// datagram as refused and returns nil.
func (r *Relay) open(p *plan.Datagrams, from netip.AddrPort, before []*flow) *flow {
	cl := p.Cluster
	f := &flow{r: r, cl: cl, metrics: p.Metrics, plan: p, from: from, start: r.o.Now(), shard: r.shards.Add(1)}
	f.last.Store(int64(f.start))
	cl.Metrics().Begin(f.shard)
	if r.o.Memory.At(memory.Refuse) {
		r.o.Memory.Gave(memory.Connections)
		f.refused(outcome.Overload)
		return nil
	}
	if r.Flows() >= p.MaxFlows {
		f.refused(outcome.LimitConnections)
		return nil
	}
	if cl.Policy().Limits.Mode.Partial() {
		f.tried.Draw = guard.DrawOf(rand.Uint64())
	}
	if !cl.Gate.TryEnter(f.tried.Draw) {
		f.refused(outcome.LimitRequests)
		return nil
	}
	for _, b := range before {
		f.tried.Add(b.ep)
	}
	if !f.dial() {
		cl.Gate.Leave(f.start)
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		_ = f.conn.Close() // its goroutine ends it
	}
	r.flows[from] = f
	p.Metrics.Connections.Inc()
	p.Metrics.Active.Inc()
	r.wg.Go(f.replies)
	return f
}

// end takes f out, so that the client's next datagram begins another flow.
func (r *Relay) end(f *flow, why outcome.Reason) {
	f.why.CompareAndSwap(uint32(outcome.OK), uint32(why))
	r.mu.Lock()
	if r.flows[f.from] == f {
		delete(r.flows, f.from)
	}
	r.mu.Unlock()
	_ = f.conn.Close() // replies ends with it
}
