package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"nothing", Config{}, "services: is required; say which DNS name holds the endpoints of each service"},
		{"no name", Config{Services: map[string]Target{"api": {}}}, "services.api.name: is required; write host:port, or the name of an SRV record"},
		{"no port", Config{Services: map[string]Target{"api": {Name: "api.local"}}}, `services.api.name: is "api.local"; write host:port, or the name of an SRV record, which starts with an underscore`},
		{"port 0", Config{Services: map[string]Target{"api": {Name: "api:0"}}}, `services.api.name: is "api:0"; the port must be a number from 1 to 65535`},
		{"bare IPv6", Config{Services: map[string]Target{"api": {Name: "::1:80"}}}, `services.api.name: is "::1:80"; write an IPv6 address in brackets, such as [::1]:80`},
		{"good", Config{Services: map[string]Target{"a": {Name: "[::1]:80"}, "b": {Name: "_http._tcp.b.local"}, "c": {Name: "c:1", Family: "ipv4", Protocol: "tcp"}}}, ""},
		{"the rest", Config{
			Services: map[string]Target{"api": {Name: "a:1", Family: "ipv5", Protocol: "udp", Identities: []string{"x"}}},
			Refresh:  time.Millisecond, Timeout: time.Microsecond, Server: "dns.local",
		}, `services.api.family: is "ipv5"; use any, ipv4 or ipv6
services.api.protocol: is "udp"; use http or tcp
services.api.identities[0]: is "x"; a SPIFFE ID starts with spiffe://
refresh: is 1ms; the least is 100ms
timeout: is 1µs; the least is 10ms
server: is "dns.local"; write an IP address with a port, such as 127.0.0.1:8600`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			tt.cfg.Validate(func(field, problem string) { got = append(got, field+": "+problem) })
			if g := strings.Join(got, "\n"); g != tt.want {
				t.Errorf("got\n%s\nwant\n%s", g, tt.want)
			}
			if _, err := New(tt.cfg); (err == nil) != (tt.want == "") {
				t.Errorf("New: %v", err)
			}
		})
	}
}

// lookup asks a loopback server through the real resolver.
func lookup(t *testing.T, srv *server, target Target) (string, string, error) {
	t.Helper()
	s, err := New(Config{Services: map[string]Target{"api": target}, Server: srv.conn.LocalAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	eps, warning, err := s.lookup(t.Context(), target)
	var out []string
	for _, e := range eps {
		text := e.Address.String()
		if e.Weight != 1 {
			text += "*" + string('0'+rune(e.Weight))
		}
		if e.Priority != 0 {
			text += fmt.Sprint("#", e.Priority)
		}
		out = append(out, text)
	}
	return strings.Join(out, " "), warning, err
}

func TestLookup(t *testing.T) {
	srv := newServer(t)
	srv.set(func() {
		srv.addrs["api.test."] = []string{"10.0.0.2", "10.0.0.1", "fd00::1"}
		srv.addrs["b.test."] = []string{"10.0.1.1"}
		srv.addrs["four.test."] = []string{"10.0.0.4"}
		srv.srv["_http._tcp.test."] = []dnsmessage.SRVResource{
			record(20, 1, 82, "b.test."), record(10, 5, 80, "api.test."), record(10, 0, 81, "b.test."),
		}
		srv.srv["_half._tcp.test."] = []dnsmessage.SRVResource{record(1, 1, 80, "gone.test."), record(1, 1, 81, "b.test.")}
		srv.srv["_second._tcp.test."] = []dnsmessage.SRVResource{record(1, 1, 80, "gone.test."), record(2, 1, 81, "b.test.")}
		srv.srv["_none._tcp.test."] = []dnsmessage.SRVResource{record(0, 0, 0, ".")}
	})
	for _, tt := range []struct {
		target              Target
		want, warning, fail string
	}{
		{Target{Name: "api.test:80"}, "10.0.0.1:80 10.0.0.2:80 [fd00::1]:80", "", ""},
		{Target{Name: "api.test:80", Family: "ipv4"}, "10.0.0.1:80 10.0.0.2:80", "", ""},
		{Target{Name: "api.test:80", Family: "ipv6"}, "[fd00::1]:80", "", ""},
		{Target{Name: "four.test:80", Family: "ipv6"}, "", "", "no"},
		{Target{Name: "gone.test:80"}, "", "", "no such host"},
		{Target{Name: "10.1.2.3:80"}, "10.1.2.3:80", "", ""},
		{Target{Name: "[::1]:80"}, "[::1]:80", "", ""},
		{Target{Name: "_http._tcp.test"}, "10.0.0.1:80*5#10 10.0.0.2:80*5#10 10.0.1.1:81#10 10.0.1.1:82#20 [fd00::1]:80*5#10", "", ""},
		{Target{Name: "_half._tcp.test"}, "10.0.1.1:81#1", "gone.test", ""},
		{Target{Name: "_second._tcp.test"}, "10.0.1.1:81#2", "gone.test", ""},
		{Target{Name: "_none._tcp.test"}, "", "", "not available"},
		{Target{Name: "_gone._tcp.test"}, "", "", "no such host"},
	} {
		t.Run(strings.TrimSpace(tt.target.Name+" "+tt.target.Family), func(t *testing.T) {
			got, warning, err := lookup(t, srv, tt.target)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if !strings.Contains(warning, tt.warning) || (warning == "") != (tt.warning == "") {
				t.Errorf("warning %q, want one with %q", warning, tt.warning)
			}
			if (err == nil) != (tt.fail == "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
				t.Errorf("error %v, want one with %q", err, tt.fail)
			}
		})
	}
}

func TestServerFailure(t *testing.T) {
	srv := newServer(t)
	srv.set(func() { srv.code = dnsmessage.RCodeServerFailure })
	if got, _, err := lookup(t, srv, Target{Name: "api.test:80"}); err == nil {
		t.Errorf("got %q from a failing server", got)
	}
}

// Through the real resolver and a real server: changes are followed, failures
// keep what there was.
func TestFollowReal(t *testing.T) {
	srv := newServer(t)
	srv.set(func() { srv.addrs["api.test."] = []string{"10.0.0.1"} })
	s, err := New(Config{
		Services: map[string]Target{"api": {Name: "api.test:80"}},
		Refresh:  100 * time.Millisecond, Server: srv.conn.LocalAddr().String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := make(lines, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, []string{"api"}, l) }()
	// The pause between lookups is real time here; only its outcome is looked at.
	expect := func(want string) {
		t.Helper()
		for {
			select {
			case got := <-l:
				if strings.HasPrefix(got, want) {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%q never came", want)
			}
		}
	}
	expect("api 10.0.0.1:80*1")
	srv.set(func() { srv.addrs["api.test."] = []string{"10.0.0.1", "10.0.0.2"} })
	expect("api 10.0.0.1:80*1 10.0.0.2:80*1")
	srv.set(func() { srv.addrs["api.test."] = nil })
	expect("api failed: dns lookup of api.test:80: ")
	if st := s.Status(); st[0].Endpoints != 2 || st[0].LastError == "" {
		t.Errorf("status %+v", st)
	}
	srv.set(func() { srv.addrs["api.test."] = []string{"10.0.0.2"} })
	expect("api 10.0.0.2:80*1")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// script is a resolver whose answers the test sets and whose calls it counts.
type script struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	hang  bool
	asked []time.Time
}

func (s *script) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	addrs, err, hang := append([]netip.Addr(nil), s.addrs...), s.err, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return addrs, err
}

func (s *script) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", nil, errors.New("not asked for here")
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Services: map[string]Target{"api": {Name: "api:80"}}})
		if err != nil {
			t.Fatal(err)
		}
		res := &script{addrs: []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")}}
		s.res = res
		l := make(lines, 1000)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, []string{"api", "web"}, l) }()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if got := <-l; got != `web failed: discovery.dns.services has no entry for service "web"` {
			t.Errorf("got %q", got)
		}
		if got := <-l; got != "api 10.0.0.1:80*1" {
			t.Errorf("got %q", got)
		}
		if len(l) != 0 {
			t.Errorf("%d more calls of the sink without a change", len(l))
		}
		if n := len(res.asked); n < 17 || n > 26 {
			t.Errorf("%d lookups in 100 s, want about 20", n)
		}
		same := true
		for i := 1; i < len(res.asked); i++ {
			pause := res.asked[i].Sub(res.asked[i-1])
			if pause < 4*time.Second || pause > 6*time.Second {
				t.Errorf("pause %v, want 4s to 6s", pause)
			}
			same = same && pause == res.asked[1].Sub(res.asked[0])
		}
		if same {
			t.Error("the pauses have no jitter")
		}

		// A resolver that hangs is given up after the timeout.
		res.mu.Lock()
		res.hang = true
		res.mu.Unlock()
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if got := <-l; got != "api failed: dns lookup of api:80: context deadline exceeded" {
			t.Errorf("got %q", got)
		}
		if st := s.Status()[0]; st.Endpoints != 1 || st.LastError == "" || st.Age < 3*time.Second {
			t.Errorf("status %+v", st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
