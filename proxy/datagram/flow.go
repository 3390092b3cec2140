package datagram

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// flow is the datagrams of one client, with the endpoint that gets them.
type flow struct {
	r       *Relay
	plan    *plan.Datagrams
	cl      *upstream.Cluster
	ep      *upstream.Endpoint
	metrics *telemetry.Listener
	conn    *net.UDPConn // connected to the endpoint
	from    netip.AddrPort
	start   time.Duration
	shard   uint32
	tried   upstream.Tried

	last     atomic.Int64 // when a datagram last went either way
	in, out  atomic.Uint64
	answered atomic.Bool
	why      atomic.Uint32 // an outcome.Reason
}

// dial picks an endpoint and makes a socket for it. What is in the way is
// recorded.
func (f *flow) dial() bool {
	var k balance.Key
	hash := f.cl.Policy().Balance.Hash
	for i := range hash {
		if h := &hash[i]; h.SourceIP && k.Add(h, balance.KeyOf(f.from.Addr().String()), true) {
			break
		}
	}
	wish := upstream.Wish{Key: k.Value, Keyed: k.Some}
	for range maxTries {
		now := f.r.o.Now()
		if f.ep = f.cl.Pick(now, &wish, &f.tried); f.ep == nil {
			f.record(outcome.NoEndpoints, now)
			return false
		}
		f.cl.Begin(f.ep, now)
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.ep.AddrPort()))
		if err == nil {
			f.conn = conn
			return true
		}
		// No route, or no more file descriptors.
		f.cl.Finish(f.ep, now, 0, outcome.ConnectFailed, 0)
		f.tried.Add(f.ep)
	}
	f.record(outcome.ConnectFailed, f.r.o.Now())
	return false
}

// send reports whether the endpoint can be reached as far as is known: its host
// may have said meanwhile that nobody listens there (ICMP).
func (f *flow) send(data []byte) bool {
	n, err := f.conn.Write(data)
	if err == nil {
		f.in.Add(uint64(n))
		f.last.Store(int64(f.r.o.Now()))
		return true
	}
	// What is too long, or finds the buffers full, is lost as UDP may lose it.
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, net.ErrClosed)
}

// replies passes on what the endpoint sends until the flow ends.
func (f *flow) replies() {
	why := outcome.OK
	raw, err := f.conn.SyscallConn()
	for err == nil {
		left := f.plan.Idle - (f.r.o.Now() - time.Duration(f.last.Load()))
		if left <= 0 {
			break
		}
		_ = f.conn.SetReadDeadline(time.Now().Add(left))
		switch err = f.reply(raw); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = nil // a look at what came the other way
		case err != nil && !errors.Is(err, net.ErrClosed):
			why = outcome.ConnectFailed
		}
	}
	f.r.end(f, why)
	f.finish()
}

// reply waits for a datagram and passes it on. While it waits it has no buffer.
func (f *flow) reply(raw syscall.RawConn) error {
	var err error
	waited := raw.Read(func(fd uintptr) bool {
		buf := f.r.buffers.Get().(*[maxDatagram]byte)
		defer f.r.buffers.Put(buf)
		var n int
		for {
			if n, err = syscall.Read(int(fd), buf[:]); err != syscall.EINTR {
				break
			}
		}
		if err != nil {
			return err != syscall.EAGAIN
		}
		f.answered.Store(true)
		f.last.Store(int64(f.r.o.Now()))
		f.out.Add(uint64(n))
		f.metrics.BytesOut.Add(uint64(n))
		_, _ = f.r.conn.WriteToUDPAddrPort(buf[:n], f.from) // lost as UDP may lose it
		return true
	})
	if waited != nil {
		return waited
	}
	return err
}

// finish records the flow once. An endpoint of which nobody says that it is not
// there has done well: that a client gets no answer may be as it should be.
func (f *flow) finish() {
	now := f.r.o.Now()
	why := outcome.Reason(f.why.Load())
	if f.answered.Load() {
		why = outcome.OK
	}
	rtt := time.Duration(-1) // nothing is known of how long it takes
	if why == outcome.OK {
		f.ep.Load.End(now, rtt, false)
	} else {
		f.cl.Finish(f.ep, now, now-f.start, why, 0)
	}
	f.cl.Gate.Leave(now)
	f.metrics.Active.Dec()
	f.record(why, now)
}

// refused counts a datagram for which there is no flow.
func (f *flow) refused(why outcome.Reason) {
	f.metrics.Refused.Inc()
	f.record(why, f.r.o.Now())
}

func (f *flow) record(why outcome.Reason, now time.Duration) {
	f.cl.Metrics().Finish(f.shard, why, 0, now-f.start)
	log := f.r.o.AccessLog
	if !log.Takes(false) {
		return
	}
	took := now - f.start
	rec := telemetry.Record{
		Start: time.Now().Add(-took), Duration: took, Direction: telemetry.Outbound, Protocol: "udp",
		Listener: f.plan.Name, Cluster: f.cl.Name(), Reason: why, DownstreamAddr: f.from,
		BytesIn: f.in.Load(), BytesOut: f.out.Load(),
	}
	if f.ep != nil {
		rec.Endpoint, rec.UpstreamAddr = f.ep.Address(), f.ep.AddrPort()
	}
	log.Write(&rec)
}
