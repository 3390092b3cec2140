package dns

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// server is a DNS server on loopback UDP for tests.
type server struct {
	conn net.PacketConn
	done chan struct{}

	mu    sync.Mutex
	addrs map[string][]string // "host." to addresses
	srv   map[string][]dnsmessage.SRVResource
	code  dnsmessage.RCode
}

func newServer(t *testing.T) *server {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{conn: conn, done: make(chan struct{}), addrs: map[string][]string{}, srv: map[string][]dnsmessage.SRVResource{}}
	go s.serve()
	t.Cleanup(func() {
		conn.Close()
		<-s.done
	})
	return s
}

// set changes what the server answers.
func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) serve() {
	defer close(s.done)
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		if q.Unpack(buf[:n]) != nil || len(q.Questions) != 1 {
			continue
		}
		if out, err := s.answer(q).Pack(); err == nil {
			_, _ = s.conn.WriteTo(out, from)
		}
	}
}

func (s *server) answer(q dnsmessage.Message) *dnsmessage.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	ask := q.Questions[0]
	name := strings.ToLower(ask.Name.String())
	a := &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, Authoritative: true, RecursionAvailable: true, RCode: s.code},
		Questions: q.Questions,
	}
	if s.code != dnsmessage.RCodeSuccess {
		return a
	}
	head := dnsmessage.ResourceHeader{Name: ask.Name, Class: dnsmessage.ClassINET, TTL: 1}
	add := func(b dnsmessage.ResourceBody) {
		a.Answers = append(a.Answers, dnsmessage.Resource{Header: head, Body: b})
	}
	for _, text := range s.addrs[name] {
		ip := netip.MustParseAddr(text)
		switch {
		case ask.Type == dnsmessage.TypeA && ip.Is4():
			add(&dnsmessage.AResource{A: ip.As4()})
		case ask.Type == dnsmessage.TypeAAAA && ip.Is6():
			add(&dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
	if ask.Type == dnsmessage.TypeSRV {
		for _, r := range s.srv[name] {
			add(&r)
		}
	}
	if s.addrs[name] == nil && s.srv[name] == nil {
		a.RCode = dnsmessage.RCodeNameError
	}
	return a
}

func record(priority, weight, port uint16, target string) dnsmessage.SRVResource {
	return dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(target)}
}
