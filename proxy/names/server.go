package names

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Server takes queries on one address. It implements dns.Handler.
type Server struct {
	log     *slog.Logger
	udp     net.PacketConn
	tcp     net.Listener
	forward *forwarder
	table   atomic.Pointer[Table]
	ctx     context.Context // ends when no more is answered
	end     context.CancelFunc
	told    atomic.Int64 // when a failure was last logged

	answered, unknown, forwarded, failed, refused atomic.Uint64
}

// Stats counts queries by what became of them.
type Stats struct {
	Answered  uint64 // from the table
	Unknown   uint64 // there is no such name in the proxy's zones
	Forwarded uint64 // answered by another server
	Failed    uint64 // no server answered, or too many queries were under way
	Refused   uint64 // not a plain query with one question
}

// tellEvery bounds how often a failure to reach other servers is logged.
const tellEvery = 10 * time.Second

// idleTCP is how long a TCP connection may be silent (RFC 7766, section 6.2.3).
const idleTCP = 10 * time.Second

// maxTCP is how many queries one TCP connection may make.
const maxTCP = 1024

// Listen binds the address of c, for UDP and TCP, and serves nothing yet.
func Listen(c Config, log *slog.Logger) (*Server, error) {
	return listen(c, log, "/etc/resolv.conf")
}

func listen(c Config, log *slog.Logger, resolvConf string) (*Server, error) {
	tcp, udp, err := bind(c.Listen)
	if err != nil {
		return nil, err
	}
	own := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	own = netip.AddrPortFrom(own.Addr().Unmap(), own.Port())
	f, err := newForwarder(c, own, resolvConf)
	if err != nil {
		udp.Close()
		tcp.Close()
		return nil, err
	}
	s := &Server{log: log, udp: udp, tcp: tcp, forward: f}
	s.ctx, s.end = context.WithCancel(context.Background())
	s.table.Store(NewTable(c, nil))
	return s, nil
}

// bind listens on address over TCP and UDP. Where the system chooses the port,
// what it chose for TCP can be taken for UDP: then it is asked again.
func bind(address string) (net.Listener, net.PacketConn, error) {
	const tries = 10
	for try := 1; ; try++ {
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp, nil
		}
		tcp.Close()
		if _, port, _ := net.SplitHostPort(address); port != "0" || try == tries {
			return nil, nil, err
		}
	}
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.tcp.Addr() }

// SetTable makes t what is answered from.
func (s *Server) SetTable(t *Table) { s.table.Store(t) }

// Stats returns the counts.
func (s *Server) Stats() Stats {
	return Stats{s.answered.Load(), s.unknown.Load(), s.forwarded.Load(), s.failed.Load(), s.refused.Load()}
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.end()
	ended := make(chan error, 2)
	idle := func() time.Duration { return idleTCP }
	udp := &dns.Server{Handler: s, PacketConn: s.udp}
	tcp := &dns.Server{Handler: s, Listener: s.tcp, ReadTimeout: idleTCP, WriteTimeout: idleTCP, IdleTimeout: idle, MaxTCPQueries: maxTCP}
	var err error
	running := make([]*dns.Server, 0, 2)
	for _, d := range []*dns.Server{udp, tcp} {
		started := make(chan struct{})
		d.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- d.ActivateAndServe() }()
		select {
		case <-started: // before that it cannot be shut down
			running = append(running, d)
		case err = <-ended:
		}
	}
	left := len(running)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
			left--
		}
	}
	s.end() // queries at other servers
	for _, d := range running {
		_ = d.Shutdown() // one has ended perhaps
	}
	for range left {
		<-ended
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r := s.respond(q, w.LocalAddr().Network())
	if w.LocalAddr().Network() != "tcp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		r.Truncate(size)
	}
	_ = w.WriteMsg(r) // a client that has gone does not miss it
}

// respond finds the answer to q, which came over network.
func (s *Server) respond(q *dns.Msg, network string) *dns.Msg {
	r := new(dns.Msg)
	r.SetReply(q)
	r.RecursionAvailable = true
	if q.Opcode != dns.OpcodeQuery || q.Response || len(q.Question) != 1 {
		s.refused.Add(1)
		r.Rcode = dns.RcodeRefused
		if q.Opcode != dns.OpcodeQuery {
			r.Rcode = dns.RcodeNotImplemented
		}
		return r
	}
	if o := q.IsEdns0(); o != nil {
		r.SetEdns0(dns.DefaultMsgSize, o.Do())
	}
	name := dns.CanonicalName(q.Question[0].Name)
	t := s.table.Load()
	a := t.Ask(q.Question[0])
	servers, zoned := s.forward.servers(name)
	switch {
	case a.Ours && a.Known:
		s.answered.Add(1)
		r.Authoritative, r.Answer = true, a.Records
		r.Extra = append(r.Extra, a.Extra...)
		if len(a.Records) == 0 {
			r.Ns = []dns.RR{t.soa(a.Zone)}
		}
		return r
	case a.Ours && !zoned:
		s.unknown.Add(1)
		r.Authoritative, r.Rcode, r.Ns = true, dns.RcodeNameError, []dns.RR{t.soa(a.Zone)}
		return r
	}
	got, err := s.forward.ask(s.ctx, q, network, servers)
	if err != nil {
		s.failed.Add(1)
		s.tell(name, err)
		r.Rcode = dns.RcodeServerFailure
		return r
	}
	s.forwarded.Add(1)
	got.Id = q.Id
	return got
}

// tell logs that a query found no answer, now and then.
func (s *Server) tell(name string, err error) {
	now, last := time.Now().UnixNano(), s.told.Load()
	if errors.Is(err, context.Canceled) || time.Duration(now-last) < tellEvery || !s.told.CompareAndSwap(last, now) {
		return
	}
	s.log.Warn("a DNS query could not be passed on", "event", "dns_failed", "name", name, "error", err)
}
