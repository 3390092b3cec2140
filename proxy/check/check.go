package check

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/resilience/health"
)

// UserAgent is what the checks call themselves.
const UserAgent = "outrigger-health/1"

// check is one check under way.
type check struct {
	ctx      context.Context
	e        *upstream.Endpoint
	cfg      *health.Config
	clock    func() time.Duration
	deadline time.Time
	kept     *wire.Conn // from the last check, then for the next
}

// run makes one check.
func run(ctx context.Context, d upstream.DueCheck, clock func() time.Duration) upstream.CheckResult {
	c := &check{ctx: ctx, e: d.Endpoint, cfg: d.Config, clock: clock, deadline: time.Now().Add(d.Config.Timeout), kept: d.Conn}
	var res health.Result
	switch {
	case c.cfg.GRPC != nil:
		res = c.grpc()
	case c.cfg.HTTP != nil && c.e.HTTP2():
		res = c.http2()
	case c.cfg.HTTP != nil:
		res = c.http1()
	default:
		res = c.tcp()
	}
	return upstream.CheckResult{Check: d, Result: res, Void: ctx.Err() != nil, Keep: c.kept}
}

// dial makes a connection that ends with the check's context and deadline.
// release takes both off it and reports whether it may be kept.
func (c *check) dial(protos []string) (conn *wire.Conn, release func() bool, res health.Result) {
	conn, oe := c.e.Dial(c.ctx, c.deadline, protos)
	if oe != nil {
		return nil, nil, refused(oe)
	}
	return conn, c.bind(conn), health.Result{}
}

func (c *check) bind(conn *wire.Conn) (release func() bool) {
	conn.SetExact(c.deadline)
	stop := context.AfterFunc(c.ctx, conn.Expire)
	return func() bool {
		if !stop() {
			return false
		}
		conn.SetExact(time.Time{})
		return true
	}
}

// refused is the result of a connection that could not be made.
func refused(oe *outcome.Error) health.Result {
	res := health.Result{Cause: health.Connect, Detail: detail(oe)}
	switch oe.Reason {
	case outcome.ConnectTimeout, outcome.RequestTimeout:
		res.Cause = health.Timeout
	case outcome.PeerIdentity, outcome.HandshakeFailed:
		res.Cause = health.Identity
	case outcome.NoIdentity, outcome.Internal, outcome.Draining, outcome.LimitPending, outcome.LimitConnections:
		res.Cause = health.Local
	}
	return res
}

// broken is the result of a connection or stream that ended too early.
func broken(err error, doing string) health.Result {
	if errors.Is(err, wire.ErrExpired) {
		return health.Result{Cause: health.Timeout, Detail: doing}
	}
	return health.Result{Cause: health.Closed, Detail: clip(doing + ": " + err.Error())}
}

func protocol(what string) health.Result {
	return health.Result{Cause: health.Protocol, Detail: clip(what)}
}

func detail(oe *outcome.Error) string {
	if oe.Err != nil {
		return clip(oe.Err.Error())
	}
	return oe.Error()
}

// clip bounds what a peer may put into a log line.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// tcp makes a connection and, where it is told so, speaks and listens. It makes
// a new one each time: that there can be one is what it asks.
func (c *check) tcp() health.Result {
	c.drop()
	conn, release, res := c.dial(nil)
	if conn == nil {
		return res
	}
	defer func() {
		release()
		_ = conn.Close()
	}()
	if b := c.cfg.TCP.SendBytes(); len(b) > 0 {
		if _, err := conn.Write(b); err != nil {
			return broken(err, "sending")
		}
	}
	want := c.cfg.TCP.ExpectBytes()
	for {
		got := conn.Buffered()
		switch n := min(len(got), len(want)); {
		case !bytes.Equal(got[:n], want[:n]):
			return health.Result{Cause: health.Unexpected, Detail: "the answer does not begin as expected"}
		case n == len(want):
			return health.Result{}
		}
		if err := conn.Fill(); err != nil {
			return broken(err, "waiting for the expected bytes")
		}
	}
}

// drop closes the connection of an earlier check of another kind.
func (c *check) drop() {
	if c.kept != nil {
		_ = c.kept.Close()
		c.kept = nil
	}
}
