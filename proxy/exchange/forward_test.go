package exchange_test

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

const (
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	given  = "x-request-id: r1\r\ntraceparent: " + parent + "\r\n"
)

// TestForwardedRequest compares what the origin gets byte for byte.
func TestForwardedRequest(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{
			"order and case stay",
			"GET /a?b=%20c HTTP/1.1\r\nhOsT: Api:80\r\nX-Z: 1\r\nx-a:2\r\nX-Z:  3\t\r\n" + given + "\r\n",
			"GET /a?b=%20c HTTP/1.1\r\nhOsT: Api:80\r\nX-Z: 1\r\nx-a:2\r\nX-Z:  3\t\r\n" + given + "FWD",
		},
		{
			"hop by hop fields go",
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nTE: gzip\r\nProxy-Connection: close\r\nUpgrade: websocket\r\n" + given + "\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + given + "FWD",
		},
		{
			"forwarded-for is appended, proto kept, certificate sanitized",
			"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Client-Cert: URI=spiffe://evil/x\r\n" + given + "\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n" + given + "x-forwarded-for: 1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1\r\nCERT",
		},
		{
			"a peer cannot name away what is said about it",
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for, x-forwarded-client-cert, x-request-id, host\r\nX-Forwarded-For: 9.9.9.9\r\n" + given + "\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + given + "x-forwarded-for: 9.9.9.9, 127.0.0.1\r\nPROTOCERT",
		},
		{
			"absolute form",
			"GET http://Real:8080?q HTTP/1.1\r\nHost: other\r\n" + given + "\r\n",
			"GET /?q HTTP/1.1\r\nHost: Real:8080\r\n" + given + "FWD",
		},
		{
			"asterisk form",
			"OPTIONS * HTTP/1.1\r\nHost: a\r\n" + given + "\r\n",
			"OPTIONS * HTTP/1.1\r\nHost: a\r\n" + given + "FWD",
		},
		{
			"trailers of gRPC stay announced",
			"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n" + given + "\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n" + given + "FWDconnection: te\r\n",
		},
		{
			"small body with expectation",
			"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + given + "\r\nab",
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n" + given + "FWD",
		},
		{
			"chunked body is coded again",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + given + "\r\n001;x=y\r\na\r\n0\r\nA-B: c\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\n" + given + "FWDtransfer-encoding: chunked\r\n",
		},
		{
			"an upgrade to HTTP/2 would hide requests",
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + given + "\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + given + "FWD",
		},
		{
			"one empty line before",
			"\r\nGET / HTTP/1.1\r\nHost: a\r\n" + given + "\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + given + "FWD",
		},
		{
			"an unknown expectation is for the origin",
			"GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n" + given + "\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n" + given + "FWD",
		},
	}
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		heads := make(chan string, 1)
		b.start(func(c *originConn) {
			for {
				head, _, ok := c.message()
				if !ok {
					return
				}
				heads <- head
				c.send(okResponse)
			}
		})
		proto, cert := "x-forwarded-proto: http\r\n", ""
		if b.mode == mtlsDown {
			proto, cert = "x-forwarded-proto: https\r\n", "x-forwarded-client-cert: By="+proxyID+";URI="+clientID+"\r\n"
		}
		c := b.dial()
		for _, test := range tests {
			c.send(test.in)
			want := strings.NewReplacer("FWD", "x-forwarded-for: 127.0.0.1\r\n"+proto+cert, "PROTO", proto, "CERT", cert).Replace(test.want)
			if got := <-heads; got != want {
				t.Errorf("%s:\ngot  %q\nwant %q", test.name, got, want)
			}
			c.expect(okResponse)
		}
	})
}

// TestCreatedFields looks at what is made where the client sends nothing good.
func TestCreatedFields(t *testing.T) {
	b := newBed(t, plain, nil)
	heads := make(chan string, 1)
	b.start(func(c *originConn) {
		for {
			head := c.head()
			if head == "" {
				return
			}
			heads <- head
			c.send(okResponse)
		}
	})
	id := regexp.MustCompile(`\r\nx-request-id: [0-9a-f-]{32,36}\r\n`)
	trace := regexp.MustCompile(`\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-9]\r\n`)
	c := b.dial()
	seen := map[string]bool{}
	for _, fields := range []string{
		"", "X-Request-Id: \r\n", "X-Request-Id: " + strings.Repeat("a", 129) + "\r\n", "X-Request-Id: a\r\nX-Request-Id: b\r\n",
		"traceparent: nonsense\r\ntracestate: a=b\r\n", "traceparent: " + parent + "\r\ntraceparent: " + parent + "\r\ntracestate: a=b\r\n",
	} {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
		head := <-heads
		c.expect(okResponse)
		if strings.Count(strings.ToLower(head), "\r\nx-request-id:") != 1 || !id.MatchString(head) {
			t.Errorf("%q: request id in %q", fields, head)
		}
		if strings.Count(head, "\r\ntraceparent:") != 1 || !trace.MatchString(head) || strings.Contains(head, "tracestate") {
			t.Errorf("%q: trace context in %q", fields, head)
		}
		if got := id.FindString(head); seen[got] {
			t.Errorf("%q was given twice", got)
		} else {
			seen[got] = true
		}
	}
}

// TestDeadlineField checks the deadline between proxies in and out.
func TestDeadlineField(t *testing.T) {
	field := regexp.MustCompile(`\r\nx-outrigger-deadline: (\d+)\r\n`)
	for _, test := range []struct {
		timeout  time.Duration
		in       string
		min, max int
	}{
		{0, "", 0, 0},
		{5 * time.Second, "", 3000, 5000},
		{5 * time.Second, "2000", 1000, 2000},
		{5 * time.Second, "60000", 3000, 5000},
		{0, "2000", 1000, 2000},
		{0, "-5", 0, 0},
		{0, "1s", 0, 0},
		{0, "9999999999", 0, 0},
		{5 * time.Second, "1\r\nX-Outrigger-Deadline: 2", 3000, 5000},
	} {
		t.Run(fmt.Sprint(test.timeout, test.in), func(t *testing.T) {
			b := newBed(t, plain, func(s *setup) { s.policy.Timeout = test.timeout })
			heads := make(chan string, 1)
			b.start(func(c *originConn) {
				heads <- c.head()
				c.send(okResponse)
			})
			c := b.dial()
			in := ""
			if test.in != "" {
				in = "X-Outrigger-Deadline: " + test.in + "\r\n"
			}
			c.send("GET / HTTP/1.1\r\nHost: a\r\n" + in + "\r\n")
			c.expect(okResponse)
			var ms int
			head := <-heads
			if m := field.FindStringSubmatch(head); m != nil {
				fmt.Sscan(m[1], &ms)
			}
			if ms < test.min || ms > test.max || strings.Count(strings.ToLower(head), "x-outrigger-deadline") > 1 {
				t.Errorf("deadline of %d ms, want %d to %d: %q", ms, test.min, test.max, head)
			}
		})
	}
	t.Run("spent", func(t *testing.T) {
		b := newBed(t, plain, nil)
		o := b.start(answering(okResponse))
		c := b.dial()
		c.send("GET / HTTP/1.1\r\nHost: a\r\nx-outrigger-deadline: 0\r\n\r\n")
		c.reply(504, "request_timeout")
		if n := o.accepted.Load(); n != 0 {
			t.Errorf("%d connections were made for a request without time left", n)
		}
		b.wantReasons("request_timeout")
	})
}

// TestForwardedResponse compares what the client gets byte for byte.
func TestForwardedResponse(t *testing.T) {
	const get, head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
	const old, oldKeep = "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
	tests := []struct {
		name, request, response, want string
		close                         bool // of the downstream
		ends                          bool // the origin closes behind its response
	}{
		{name: "length", request: get, response: "HTTP/1.1 200 Fine\r\nsErver: X\r\nContent-length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nabc"},
		{name: "length 0", request: get, response: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{name: "204", request: get, response: "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"},
		{
			name: "204 with length", request: get, response: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nX: y\r\n\r\n",
			want: "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
		},
		{name: "304 with length", request: get, response: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
		{name: "head with length", request: head, response: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		{
			name: "head with chunked", request: head, response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			want: "HTTP/1.1 200 OK\r\n\r\n",
		},
		{
			name: "chunked with trailers", request: get,
			response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n03;a=\"b\"\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n",
		},
		{
			name: "hop by hop", request: get,
			response: "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nContent-Length: 0\r\nX: y\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: y\r\n\r\n",
		},
		{
			name: "the origin's close is its own affair", request: get, ends: true,
			response: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
		},
		{
			name: "until close becomes chunked", request: get, ends: true,
			response: "HTTP/1.1 200 OK\r\n\r\nabc",
			want:     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		},
		{
			name: "old origin", request: get, ends: true,
			response: "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
		},
		{
			name: "old client", request: old, close: true,
			response: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nconnection: close\r\n\r\na",
		},
		{
			name: "old client that keeps", request: oldKeep,
			response: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nconnection: keep-alive\r\n\r\na",
		},
		{
			name: "old client gets no chunks", request: oldKeep, close: true,
			response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc",
		},
		{
			name: "old client, until close", request: oldKeep, close: true, ends: true,
			response: "HTTP/1.1 200 OK\r\n\r\nabc",
			want:     "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc",
		},
		{
			name: "old client gets no interim response", request: oldKeep,
			response: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nconnection: keep-alive\r\n\r\n",
		},
		{
			name: "interim responses", request: get,
			response: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		},
		{
			name: "the client's close", request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", close: true,
			response: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nconnection: close\r\n\r\na",
		},
		{name: "error status", request: get, response: "HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\na"},
	}
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		for _, test := range tests {
			b.start(func(c *originConn) {
				for c.head() != "" {
					c.send(test.response)
					if test.ends {
						return
					}
				}
			})
			want := test.want
			if want == "" {
				want = test.response
			}
			c := b.dial()
			for range 2 { // the second proves that nothing was left over
				c.send(test.request)
				c.expect(want)
				if test.close {
					c.closed()
					break
				}
			}
			_ = c.Close()
		}
	})
}

// TestSplitRequest sends a request in two parts, cut at every byte.
func TestSplitRequest(t *testing.T) {
	requests := []string{
		"GET /x HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\nT: u\r\n\r\n",
	}
	run(t, []mode{plain, mtlsDown}, nil, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			for {
				_, body, ok := c.message()
				if !ok {
					return
				}
				c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
			}
		})
		c := b.dial()
		for i, r := range requests {
			want := []string{"", "hello", "hello[T: u]"}[i]
			for cut := 1; cut < len(r); cut++ {
				c.send(r[:cut])
				if cut%4 == 0 {
					time.Sleep(time.Millisecond) // lets the first part arrive alone
				}
				c.send(r[cut:])
				c.expect(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(want), want))
			}
		}
	})
}

// TestPipelining sends many requests at once and expects their answers in order.
func TestPipelining(t *testing.T) {
	run(t, allModes, nil, func(t *testing.T, b *bed) {
		b.start(func(c *originConn) {
			for {
				head, body, ok := c.message()
				if !ok {
					return
				}
				path := strings.Fields(head)[1] + body
				c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path))
			}
		})
		var in, want strings.Builder
		add := func(request, answer string) {
			in.WriteString(request)
			fmt.Fprintf(&want, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
		long := strings.Repeat("x", 100_000)
		for i := range 20 {
			add(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i), fmt.Sprintf("/%d", i))
			add(fmt.Sprintf("POST /p%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", i), fmt.Sprintf("/p%dabc", i))
			add(fmt.Sprintf("POST /c%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n", i), fmt.Sprintf("/c%dde", i))
		}
		add("POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"+long, "/long"+long)
		add("POST /longc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n"+long+"\r\n0\r\n\r\n", "/longc"+long)
		add("GET /last HTTP/1.1\r\nHost: a\r\n\r\n", "/last")
		c := b.dial()
		go c.send(in.String())
		c.expect(want.String())
		if got := len(b.records()); got != 63 {
			t.Errorf("%d records, want 63", got)
		}
	})
}

// TestDrainingClosesBehindTheExchange: inbound connections end with the
// exchange they carry, outbound ones go on.
func TestDrainingClosesBehindTheExchange(t *testing.T) {
	for _, dir := range []telemetry.Direction{telemetry.Inbound, telemetry.Outbound} {
		t.Run(dir.String(), func(t *testing.T) {
			b := newBed(t, plain, func(s *setup) { s.dir = dir })
			b.start(answering(okResponse))
			c := b.dial()
			c.get("/")
			c.expect(okResponse)
			b.draining.Store(true)
			c.get("/")
			if dir == telemetry.Outbound {
				c.expect(okResponse)
				return
			}
			c.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok")
			c.closed()
			b.wantReasons("ok", "ok")
		})
	}
}

// TestSwappedEndpointsUnderLoad changes the endpoints all the time without a
// client noticing.
func TestSwappedEndpointsUnderLoad(t *testing.T) {
	b := newBed(t, plain, func(s *setup) { s.quiet = true })
	origins := []*origin{b.another(answering(okResponse)), b.another(answering(okResponse)), b.another(answering(okResponse))}
	b.to(origins...)
	const clients, requests = 4, 200
	done := make(chan struct{})
	for range clients {
		c := b.dial()
		go func() {
			defer func() { done <- struct{}{} }()
			for range requests {
				c.get("/")
				got := make([]byte, len(okResponse))
				if _, err := io.ReadFull(c.br, got); err != nil || string(got) != okResponse {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		}()
	}
	for left, i := clients, 0; left > 0; i++ {
		select {
		case <-done:
			left--
		default:
			b.to(origins[i%3], origins[(i+1)%3])
			if i%5 == 0 {
				b.apply(func(p *upstream.Policy) { p.Timeout = time.Duration(i+1) * time.Minute })
			}
			time.Sleep(time.Millisecond)
		}
	}
}
