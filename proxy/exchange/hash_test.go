package exchange_test

import (
	"fmt"
	"io"
	"math"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/balance"
)

// numberedOrigins starts n endpoints that answer with their letter.
func (b *bed) numberedOrigins(n int) (list []*origin) {
	for i := range n {
		list = append(list, b.another(answering(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%c", 'a'+i))))
	}
	b.to(list...)
	return list
}

// ask sends a GET with fields and returns the endpoint's letter and the head.
func (c *client) ask(target string, fields ...string) (who, head string) {
	c.t.Helper()
	c.send("GET " + target + " HTTP/1.1\r\nHost: api\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n")
	head = c.head()
	one := make([]byte, 1)
	if _, err := io.ReadFull(c.br, one); err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		c.t.Fatalf("%q %v", head, err)
	}
	return string(one), head
}

func hashing(a balance.Algorithm, on ...balance.HashOn) func(*setup) {
	return func(s *setup) { s.policy.Balance.Algorithm, s.policy.Balance.Hash = a, on }
}

// TestHashedBy: requests with one value go to one endpoint, those with others
// to all, for each thing that a request may be known by.
func TestHashedBy(t *testing.T) {
	for _, c := range []struct {
		name string
		on   []balance.HashOn
		ask  func(c *client, value string) (who, head string)
	}{
		{"header", []balance.HashOn{{Header: "x-user"}}, func(c *client, v string) (string, string) {
			return c.ask("/", "X-USER: "+v, "x-user: other")
		}},
		{"known header", []balance.HashOn{{Header: "user-agent"}}, func(c *client, v string) (string, string) {
			return c.ask("/", "User-Agent: "+v)
		}},
		{"host", []balance.HashOn{{Header: "host"}}, func(c *client, v string) (string, string) {
			return c.ask("http://" + v + ".example/")
		}},
		{"query", []balance.HashOn{{Query: "user"}}, func(c *client, v string) (string, string) {
			return c.ask("/a?x=1&users=2&user=" + v + "&user=3")
		}},
		{"cookie", []balance.HashOn{{Cookie: &balance.HashCookie{Name: "sid"}}}, func(c *client, v string) (string, string) {
			return c.ask("/", "Cookie: a=b; xsid=1", "Cookie: c=d;sid="+v+"; e=f; sid=2")
		}},
		{"the first that there is", []balance.HashOn{{Header: "x-user"}, {Identity: true}, {Query: "user"}, {SourceIP: true}}, func(c *client, v string) (string, string) {
			return c.ask("/?user=" + v)
		}},
	} {
		for _, a := range []balance.Algorithm{balance.RingHash, balance.Maglev} {
			t.Run(c.name+"/"+a.String(), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, plain, hashing(a, c.on...))
				b.numberedOrigins(4)
				cl := b.dial()
				all := map[string]bool{}
				for v := range 30 {
					value := fmt.Sprintf("user%d", v)
					first, head := c.ask(cl, value)
					again, _ := c.ask(b.dial(), value)
					if first != again {
						t.Errorf("%s went to %s and to %s", value, first, again)
					}
					if strings.Contains(head, "et-cookie") {
						t.Errorf("a cookie that nobody asked for: %q", head)
					}
					all[first] = true
				}
				if len(all) != 4 {
					t.Errorf("30 values went to %d of 4 endpoints", len(all))
				}
				none := map[string]bool{}
				for range 40 {
					who, _ := cl.ask("/", "User-Agent:")
					none[who] = true
				}
				if last := c.on[len(c.on)-1]; last.SourceIP != (len(none) == 1) && c.name != "host" {
					t.Errorf("40 requests without a value went to %d endpoints", len(none))
				}
			})
		}
	}
}

// TestHashedByIdentity: callers are told apart by their SPIFFE ID, and those
// from one address are not.
func TestHashedByIdentity(t *testing.T) {
	for name, on := range map[string]balance.HashOn{"identity": {Identity: true}, "source_ip": {SourceIP: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, mtlsDown, hashing(balance.Maglev, on))
			b.numberedOrigins(5)
			seen := map[string]bool{}
			for range 20 {
				who, _ := b.dial().ask("/")
				seen[who] = true
			}
			if len(seen) != 1 {
				t.Errorf("20 connections of one caller went to %d endpoints", len(seen))
			}
		})
	}
}

// TestGivenCookie: a client without the cookie gets one, with which it is known.
func TestGivenCookie(t *testing.T) {
	b := newBed(t, plain, hashing(balance.RingHash, balance.HashOn{Cookie: &balance.HashCookie{Name: "sid", TTL: 2 * time.Hour, Path: "/app", Insecure: true}}))
	b.numberedOrigins(4)
	form := regexp.MustCompile(`(?m)^set-cookie: (sid=[A-Za-z0-9_-]{22}); Path=/app; Max-Age=7200; HttpOnly; SameSite=Lax\r$`)
	c := b.dial()
	values, all := map[string]bool{}, map[string]bool{}
	const clients = 120 // by so many no endpoint is missed by chance
	for range clients {
		who, head := c.ask("/", "Cookie: sid=")
		m := form.FindStringSubmatch(head)
		if m == nil {
			t.Fatalf("no such cookie in %q", head)
		}
		values[m[1]], all[who] = true, true
		again, head := c.ask("/", "Cookie: "+m[1])
		if again != who || strings.Contains(head, "set-cookie") {
			t.Errorf("with its cookie the client goes from %s to %s: %q", who, again, head)
		}
	}
	if len(values) != clients || len(all) != 4 {
		t.Errorf("%d clients got %d cookies, for %d of 4 endpoints", clients, len(values), len(all))
	}
}

// TestAffinity: a client stays where its first request went, also with a retry
// that ended elsewhere, and a cookie that is made up changes nothing.
func TestAffinity(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		s.policy.Balance.Affinity = &balance.Affinity{Name: "srv"}
		s.policy.Balance.Algorithm = balance.Random
		s.policy.Retry = retrying(2)
	})
	origins := b.numberedOrigins(4)
	form := regexp.MustCompile(`(?m)^set-cookie: (srv=[A-Za-z0-9_-]{24}); Path=/; Secure; HttpOnly; SameSite=Lax\r$`)
	c := b.dial()
	cookies := map[string]string{}
	for range 60 {
		who, head := c.ask("/", "Cookie: srv=AAAAAAAAAAAAAAAAAAAAAAAA")
		m := form.FindStringSubmatch(head)
		if m == nil {
			t.Fatalf("no such cookie in %q", head)
		}
		if had := cookies[who]; had != "" && had != m[1] {
			t.Errorf("%s has two cookies: %s and %s", who, had, m[1])
		}
		cookies[who] = m[1]
	}
	if len(cookies) != 4 {
		t.Fatalf("60 requests with a made up cookie went to %d of 4 endpoints", len(cookies))
	}
	for who, cookie := range cookies {
		for range 10 {
			if got, head := c.ask("/", "Cookie: a=b; "+cookie); got != who || strings.Contains(head, "set-cookie") {
				t.Errorf("with the cookie of %s the client goes to %s: %q", who, got, head)
			}
		}
	}
	b.apply(func(p *upstream.Policy) { p.Timeout = 5 * time.Second })
	if got, _ := c.ask("/", "Cookie: "+cookies["b"]); got != "b" {
		t.Errorf("after a reload the client of b goes to %s", got)
	}
	origins[1].stop() // b refuses connections: the retry goes elsewhere
	got, head := c.ask("/", "Cookie: "+cookies["b"])
	if m := form.FindStringSubmatch(head); got == "b" || m == nil || m[1] != cookies[got] {
		t.Errorf("the client of b goes to %s and gets %q, want %s", got, head, cookies[got])
	}
}

// TestRetryAfterIsHeeded: an endpoint that asks to be left alone is, as long as
// the policy listens.
func TestRetryAfterIsHeeded(t *testing.T) {
	for _, most := range []time.Duration{time.Hour, 0} {
		t.Run(most.String(), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, plain, func(s *setup) { s.policy.Balance.RetryAfterMax = most })
			busy := b.another(answering("HTTP/1.1 429 Later\r\nRetry-After: 60\r\nContent-Length: 2\r\n\r\nno"))
			free := b.another(answering(okResponse))
			b.to(busy, free)
			c := b.dial()
			refused := 0
			for range 40 {
				c.get("/")
				if strings.HasPrefix(c.head(), "HTTP/1.1 429 ") {
					refused++
				}
				if _, err := io.ReadFull(c.br, make([]byte, 2)); err != nil {
					t.Fatal(err)
				}
			}
			if refused == 0 || refused > 1 && most > 0 {
				t.Errorf("%d of 40 requests went to the endpoint that asked to be left alone", refused)
			}
			_, endpoints := b.registry.States()
			highest := max(endpoints[0].EWMA, endpoints[1].EWMA)
			if heeded := highest >= balance.Default().FailurePenalty; heeded != (most > 0) {
				t.Errorf("the dearer endpoint costs %v", highest)
			}
		})
	}
}

// TestTCPHashed: connections from one address go to one endpoint, until it has
// its bounded load of connections that are open.
func TestTCPHashed(t *testing.T) {
	b := newBed(t, plain, func(s *setup) {
		hashing(balance.Maglev, balance.HashOn{SourceIP: true})(s)
		s.policy.Balance.BoundedLoadPercent = 200
		s.tcp = true
	})
	var list []*origin
	for i := range 4 {
		list = append(list, b.another(func(c *originConn) {
			c.send(string(rune('a' + i)))
			c.stall()
		}))
	}
	b.to(list...)
	counts := map[string]int{}
	var order []string
	for range 8 {
		c := b.dial()
		one := make([]byte, 1)
		if _, err := io.ReadFull(c.br, one); err != nil {
			t.Fatal(err)
		}
		counts[string(one)]++
		order = append(order, string(one))
	}
	// Of 8 open at once, 2 x 8/4 = 4 may be at one endpoint.
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	if most > 4 || counts[order[0]] != most || len(counts) < 2 {
		t.Errorf("connections went to %q", order)
	}
	if !slices.Contains(order[1:], order[0]) {
		t.Errorf("no second connection went to the first one's endpoint: %q", order)
	}
}

// TestNoAllocationHashed: what a request is known by is found, and its cookie
// recognized, without allocating.
func TestNoAllocationHashed(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBed(t, plain, func(s *setup) {
		hashing(balance.Maglev, balance.HashOn{Header: "x-user"}, balance.HashOn{Cookie: &balance.HashCookie{Name: "sid"}}, balance.HashOn{Query: "u"}, balance.HashOn{SourceIP: true})(s)
		s.policy.Balance.BoundedLoadPercent = 150
		s.policy.Balance.Affinity = &balance.Affinity{Name: "srv"}
	})
	b.start(steadyOrigin(okResponse))
	c := b.dial()
	_, line, _ := strings.Cut(func() string { c.get("/"); return c.head() }(), "set-cookie: ")
	cookie, _, _ := strings.Cut(line, ";")
	c.expect("ok")
	request, buf := []byte("GET /x?a=b HTTP/1.1\r\nHost: a\r\nCookie: "+cookie+"\r\n\r\n"), make([]byte, len(okResponse))
	least := uint64(math.MaxUint64)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for range 4 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := exchanges(c.Conn, request, buf, 1000); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	if string(buf) != okResponse {
		t.Errorf("got %q", buf)
	}
	if got := float64(least) / 1000; got > 0.05 {
		t.Errorf("%.3f allocations an exchange", got)
	}
}
