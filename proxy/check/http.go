package check

import (
	"context"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/http2"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/health"
)

// maxBody is how much of a body is read so that the connection can be used
// again; one with a longer body is closed.
const maxBody = 64 << 10

func (c *check) requestHead() []byte {
	h := c.cfg.HTTP
	host := h.Host
	if host == "" {
		host = c.e.Cluster()
	}
	return []byte(h.Method + " " + h.Path + " HTTP/1.1\r\nhost: " + host + "\r\nuser-agent: " + UserAgent + "\r\naccept: */*\r\n\r\n")
}

func (c *check) method() http1.Method {
	if c.cfg.HTTP.Method == "HEAD" {
		return http1.MethodHead
	}
	return http1.MethodGet
}

func (c *check) status(status int) health.Result {
	if c.cfg.HTTP.Passes(status) {
		return health.Result{}
	}
	return health.Result{Cause: health.Status, Detail: "HTTP " + strconv.Itoa(status)}
}

// http1 asks over the connection of the last check where that still stands,
// else over a new one.
func (c *check) http1() health.Result {
	conn := c.kept
	c.kept = nil
	if conn != nil {
		if !c.e.Current(conn) {
			_ = conn.Close()
		} else if res, stale := c.askHTTP1(conn, c.bind(conn)); !stale {
			return res
		}
		// It was closed just when it was used: that says nothing.
	}
	protos := []string{"http/1.1"}
	if c.e.Protocol() == "tcp" {
		protos = nil // what is behind it speaks HTTP, but does not know that others ask
	}
	conn, release, res := c.dial(protos)
	if conn == nil {
		return res
	}
	res, _ = c.askHTTP1(conn, release)
	return res
}

// askHTTP1 sends the request and reads the answer; stale says that the
// connection ended without a byte of one. It keeps the connection or closes it.
func (c *check) askHTTP1(conn *wire.Conn, release func() bool) (res health.Result, stale bool) {
	res, keep, stale := c.exchangeHTTP1(conn)
	if release() && keep && res.Cause == health.Passed {
		conn.Release()
		c.kept = conn
	} else {
		_ = conn.Close()
	}
	return res, stale
}

func (c *check) exchangeHTTP1(conn *wire.Conn) (res health.Result, keep, stale bool) {
	var resp http1.Response
	if err := conn.WriteRead(c.requestHead()); err != nil {
		res = broken(err, "waiting for the answer")
		return res, false, res.Cause == health.Closed
	}
	for {
		n, err := resp.Parse(conn.Buffered(), nil, c.method())
		switch {
		case err != nil:
			return protocol(err.Error()), false, false
		case n > 0 && !resp.Interim:
			conn.Consume(n)
			return c.status(resp.Status), resp.KeepAlive && skipBody(conn, &resp), false
		case n > 0:
			conn.Consume(n)
			if len(conn.Buffered()) > 0 {
				continue
			}
		}
		if err := conn.Fill(); err != nil {
			return broken(err, "reading the answer"), false, false
		}
	}
}

// skipBody reads a body to its end, if it is short.
func skipBody(conn *wire.Conn, resp *http1.Response) bool {
	left := resp.Length
	switch resp.Framing {
	case http1.FramingNone:
		return true
	case http1.FramingLength, http1.FramingChunked:
		if left > maxBody {
			return false
		}
	default:
		return false
	}
	var chunks http1.ChunkReader
	for read := 0; read <= maxBody; {
		b := conn.Buffered()
		if resp.Framing == http1.FramingLength {
			n := int(min(int64(len(b)), left))
			conn.Consume(n)
			if left -= int64(n); left == 0 {
				return true
			}
		} else {
			n, _, done, err := chunks.Next(b)
			if err != nil {
				return false
			}
			conn.Consume(n)
			if read += n; done {
				return true
			}
			if n > 0 && n < len(b) {
				continue
			}
		}
		if conn.Fill() != nil {
			return false
		}
	}
	return false
}

// stream sends head and body on a stream to the endpoint and calls answered
// once the final head of the response is there. A stream that its connection
// did not carry to the peer is tried once more.
func (c *check) stream(head, body []byte, method http1.Method, answered func(*http2.Stream, *http1.Response) health.Result) health.Result {
	c.drop()
	until := c.clock() + time.Until(c.deadline)
	for again := true; ; again = false {
		leg, oe := c.e.Get(upstream.Want{Now: c.clock(), Deadline: until, HTTP2: true})
		if oe != nil {
			return refused(oe)
		}
		if leg.Stream == nil { // the policy has just changed
			c.e.Drop(leg.Conn)
			return health.Result{Cause: health.Local, Detail: "the upstream no longer speaks HTTP/2"}
		}
		res, unsent := c.onStream(leg.Stream, until, head, body, method, answered)
		if !unsent || !again {
			return res
		}
	}
}

func (c *check) onStream(st *http2.Stream, until time.Duration, head, body []byte, method http1.Method,
	answered func(*http2.Stream, *http1.Response) health.Result,
) (res health.Result, unsent bool) {
	expired := make(chan struct{})
	stop := context.AfterFunc(c.ctx, func() {
		defer close(expired)
		st.Expire()
	})
	defer func() {
		if !stop() {
			<-expired // it must not reach whoever gets the stream next
		}
		st.Close()
	}()
	st.SetDeadline(until)
	st.Origin = http2.FromHTTP2
	if err := st.WriteRequest(head, body, http2.End); err != nil {
		return broken(err, "sending"), http2.Unsent(err)
	}
	var resp http1.Response
	for {
		if err := st.ReadHead(); err != nil {
			return broken(err, "waiting for the answer"), http2.Unsent(err)
		}
		if n, err := resp.Parse(st.Head, nil, method); err != nil || n == 0 {
			return protocol("malformed head"), false
		}
		if !resp.Interim {
			return answered(st, &resp), false
		}
	}
}

// http2 asks on a stream of the cluster's own connections.
func (c *check) http2() health.Result {
	return c.stream(c.requestHead(), nil, c.method(), func(st *http2.Stream, resp *http1.Response) health.Result {
		skipStream(st)
		return c.status(resp.Status)
	})
}

// skipStream reads a body to its end, if it is short: a peer may take a client
// that resets all of its streams for an attacker.
func skipStream(st *http2.Stream) {
	for read := 0; !st.Ended && read <= maxBody; {
		b, err := st.Peek()
		if err != nil {
			return
		}
		read += len(b)
		st.Discard(len(b))
	}
}
