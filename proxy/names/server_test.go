package names

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// run serves c on a free port until the test ends.
func run(t *testing.T, c Config, resolvConf string) *Server {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	s, err := listen(c, slog.New(slog.DiscardHandler), resolvConf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

// other is a server that answers everything as answer says.
func other(t *testing.T, answer func(*dns.Msg, string) *dns.Msg) string {
	t.Helper()
	c := Default()
	c.Forward = []string{"127.0.0.1:1"}
	c.Listen = "127.0.0.1:0"
	bound, err := listen(c, slog.New(slog.DiscardHandler), "")
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if r := answer(q, w.LocalAddr().Network()); r != nil {
			_ = w.WriteMsg(r)
		}
	})
	for _, d := range []*dns.Server{{PacketConn: bound.udp, Handler: h}, {Listener: bound.tcp, Handler: h}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		d.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- d.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = d.Shutdown(); <-ended })
	}
	return bound.Address().String()
}

func ask(t *testing.T, s *Server, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name, kind)
	c := dns.Client{Net: network, Timeout: 20 * time.Second}
	r, _, err := c.ExchangeContext(t.Context(), q, s.Address().String())
	if err != nil {
		t.Fatalf("%s over %s: %v", name, network, err)
	}
	return r
}

func says(text string) func(*dns.Msg, string) *dns.Msg {
	return func(q *dns.Msg, _ string) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{text}}}
		return r
	}
}

func fails(code int) func(*dns.Msg, string) *dns.Msg {
	return func(q *dns.Msg, _ string) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
}

func TestServe(t *testing.T) {
	c := Default()
	c.Zones = []string{"virtual.consul", "mesh"}
	c.Forward = []string{other(t, fails(dns.RcodeServerFailure)), other(t, says("rest"))}
	c.ForwardZones = map[string][]string{"consul": {other(t, says("consul"))}}
	s := run(t, c, "")
	s.SetTable(NewTable(c, []Name{{Service: "api", Addresses: addrs("240.0.0.2")}}))
	for _, network := range []string{"udp", "tcp"} {
		for _, q := range []struct {
			name string
			kind uint16
			want string
		}{
			{"api.virtual.consul.", dns.TypeA, "NOERROR true 240.0.0.2"},
			{"api.virtual.consul.", dns.TypeAAAA, "NOERROR true SOA virtual.consul."},
			{"nobody.mesh.", dns.TypeA, "NXDOMAIN true SOA mesh."},
			{"nobody.virtual.consul.", dns.TypeTXT, "NOERROR false consul"}, // Consul may know better
			{"api.service.consul.", dns.TypeTXT, "NOERROR false consul"},
			{"example.org.", dns.TypeTXT, "NOERROR false rest"},
		} {
			r := ask(t, s, network, q.name, q.kind)
			got := fmt.Sprint(dns.RcodeToString[r.Rcode], " ", r.Authoritative)
			for _, rr := range r.Answer {
				got += " " + strings.Trim(rr.String()[len(rr.Header().String()):], `"`)
			}
			for _, rr := range r.Ns {
				got += " SOA " + rr.Header().Name
			}
			if got != q.want || !r.RecursionAvailable && r.Authoritative {
				t.Errorf("%s over %s: %s, want %s", q.name, network, got, q.want)
			}
		}
	}
	if got, want := s.Stats(), (Stats{Answered: 4, Unknown: 2, Forwarded: 6}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// What does not fit into a UDP packet is asked for by TCP (RFC 2181, section 9).
func TestLong(t *testing.T) {
	c := Default()
	c.Forward = []string{"127.0.0.1:1"}
	s := run(t, c, "")
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("240.0.1.%d", i))
	}
	s.SetTable(NewTable(c, []Name{{Service: "api", Addresses: addrs(many...)}}))
	r := ask(t, s, "udp", "api.virtual.consul.", dns.TypeA)
	r.Compress = true // as it came
	if !r.Truncated || r.Len() > dns.MinMsgSize {
		t.Errorf("over UDP truncated %v, %d bytes", r.Truncated, r.Len())
	}
	if r := ask(t, s, "tcp", "api.virtual.consul.", dns.TypeA); r.Truncated || len(r.Answer) != 200 {
		t.Errorf("over TCP truncated %v, %d records", r.Truncated, len(r.Answer))
	}
}

func TestNobodyAnswers(t *testing.T) {
	c := Default()
	c.Forward = []string{other(t, fails(dns.RcodeRefused))}
	s := run(t, c, "")
	if r := ask(t, s, "udp", "example.org.", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", dns.RcodeToString[r.Rcode])
	}
	if got := s.Stats(); got.Failed != 1 {
		t.Errorf("counted %+v", got)
	}
}

// More than so many do not wait for other servers.
func TestBusy(t *testing.T) {
	c := Default()
	c.MaxForwarded, c.Timeout = 1, 30*time.Second
	asked, answer := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	c.Forward = []string{other(t, func(q *dns.Msg, network string) *dns.Msg {
		if first.CompareAndSwap(false, true) {
			close(asked)
			<-answer
		}
		return says("late")(q, network)
	})}
	s := run(t, c, "")
	got := make(chan *dns.Msg)
	go func() {
		r, _, _ := (&dns.Client{Net: "tcp", Timeout: 20 * time.Second}).Exchange(new(dns.Msg).SetQuestion("a.example.org.", dns.TypeTXT), s.Address().String())
		got <- r
	}()
	<-asked
	if r := ask(t, s, "udp", "b.example.org.", dns.TypeTXT); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("a second one: %s", dns.RcodeToString[r.Rcode])
	}
	close(answer)
	if r := <-got; r == nil || r.Rcode != dns.RcodeSuccess {
		t.Errorf("the first: %v", r)
	}
}

// The servers of the system are read, and the proxy does not ask itself.
func TestSystemServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 127.0.0.53\nnameserver 10.0.0.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own := netip.MustParseAddrPort("127.0.0.53:53")
	f, err := newForwarder(Default(), own, path)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.servers("example.org.")); got != "[10.0.0.2:53] false" {
		t.Errorf("got %s", got)
	}
	if _, err := newForwarder(Default(), own, path+".none"); err == nil || !strings.Contains(err.Error(), "dns.forward names none") {
		t.Errorf("without the file: %v", err)
	}
}

// Whatever comes is answered by one message with the same id, or ends a
// connection.
func FuzzRespond(f *testing.F) {
	for _, q := range []*dns.Msg{
		new(dns.Msg).SetQuestion("api.virtual.consul.", dns.TypeA),
		new(dns.Msg).SetQuestion("2.0.0.240.in-addr.arpa.", dns.TypePTR),
		new(dns.Msg).SetQuestion("nobody.virtual.consul.", dns.TypeSRV).SetEdns0(4096, true),
		new(dns.Msg).SetUpdate("virtual.consul."),
	} {
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	c := Default()
	c.MaxForwarded = 1
	s := &Server{log: slog.New(slog.DiscardHandler), forward: &forwarder{places: make(chan struct{}, 1)}, ctx: context.Background()}
	s.SetTable(NewTable(c, []Name{{Service: "api", Addresses: addrs("240.0.0.2", "2001:db8::2")}, {Service: "db", Addresses: addrs("127.0.0.1"), Port: 7}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		q := new(dns.Msg)
		if q.Unpack(data) != nil {
			return
		}
		r := s.respond(q, "udp")
		if r.Id != q.Id || !r.Response {
			t.Fatalf("%v answered by %v", q, r)
		}
		r.Truncate(dns.MinMsgSize)
		if b, err := r.Pack(); err == nil && len(b) > dns.MinMsgSize && len(r.Question) == 1 && len(r.Question[0].Name) < 200 && r.IsEdns0() == nil {
			t.Fatalf("%d bytes of %v", len(b), r)
		}
	})
}
