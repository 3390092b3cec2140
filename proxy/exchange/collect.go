package exchange

import (
	"encoding/binary"
	"io"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/memory"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
)

// most is how much of a body is kept to be sent with the head.
func (x *exchange) most() int {
	n, pol := keptBody, x.policy()
	if pol.Retry != nil {
		n = pol.Retry.MaxBodyBytes
	}
	if x.s.srv.Memory.At(memory.Narrow) {
		n = min(n, wire.Small)
	}
	if !pol.HTTP2 {
		// One write to an HTTP/1.1 connection takes head and body.
		return min(n, wire.Large-http1.DefaultHeadBytes/4)
	}
	return min(n, wire.Large)
}

// collectStream takes over a body that is short enough to be sent again: one
// that has come whole, or whose length is known. It reports false when the body
// must be passed on as it comes, or has failed.
func (x *exchange) collectStream() bool {
	most := x.most()
	n, whole := x.st.Readable()
	switch {
	case whole && n > most:
		return false
	case whole:
	case x.req.Framing == http1.FramingLength && !x.req.ExpectContinue && x.req.Length <= int64(most):
		n = int(x.req.Length)
	default:
		return x.collectMessage(most)
	}
	if (!whole || n > wire.Small) && !x.keepsBodies() {
		return false
	}
	pol := x.policy()
	var end time.Duration // of the exchange: this is part of it
	if pol.Timeout > 0 {
		end = x.start + pol.Timeout
	}
	x.spool = buffer(n)
	for at := 0; ; {
		if !whole {
			x.st.SetDeadline(sooner(end, x.idleBy()))
		}
		p, err := x.st.Peek()
		if err != nil {
			x.st.SetDeadline(0)
			if err != io.EOF {
				x.cause, x.failed = err, reasonOfRead(err)
				return false
			}
			x.body = x.spool[:at]
			return true
		}
		at += copy(x.spool[at:], p)
		x.st.Discard(len(p))
	}
}

// buffer is one that n bytes fit into, at most wire.Large.
func buffer(n int) []byte {
	if n <= wire.Small {
		return wire.GetSmall()
	}
	return wire.GetLarge()
}

// messageTime is how long a call whose first message has begun is held up for
// the rest of that. An endpoint can do nothing with a part of a message.
const messageTime = 5 * time.Millisecond

// messageHead is how a gRPC message begins: a flag and its length.
const messageHead = 5

// collectMessage waits a moment for the first message of a gRPC call of which a
// part has come: with many clients it is the only one, and the request is sent in
// one write then. Nothing else holds up what may be a stream.
func (x *exchange) collectMessage(most int) bool {
	if n, whole := x.st.Readable(); n == 0 || whole || !plan.IsGRPC(&x.req, x.raw) {
		return false
	}
	x.stream = true
	var expired <-chan time.Time
	for {
		x.takeUpTo(most)
		if !x.stream {
			return true
		}
		if n, _ := x.st.Readable(); n > 0 {
			return false // too much to keep, or here just now
		}
		b := x.uploader.kept
		need := messageHead
		if len(b) >= messageHead {
			need += int(binary.BigEndian.Uint32(b[1:]))
		}
		if len(b) >= need || need > most {
			return false
		}
		if expired == nil {
			t := time.NewTimer(messageTime)
			defer t.Stop()
			expired = t.C
		}
		if !x.st.Await(expired) {
			return false
		}
	}
}

// takeReady takes what has come of the body since the head, so that it is sent
// with it, unless a fault has it go at a rate.
func (x *exchange) takeReady() {
	if !x.stream || x.st == nil || x.upload != uploadNone || !x.hasBody() || x.uploader.slow.Load() != nil {
		return
	}
	x.takeUpTo(x.most())
	if !x.stream {
		if x.attemptEnd = x.tryEnd(x.sent); x.attemptEnd > 0 {
			x.setUpstreamDeadline()
		}
	}
}

// takeUpTo keeps what can be read of the body without waiting, if with what is
// kept already it is at most so much. A body that is whole by then is no longer
// passed on as it comes.
func (x *exchange) takeUpTo(most int) {
	u := &x.uploader
	n, whole := x.st.Readable()
	if n == 0 && !whole || len(u.kept)+n > most {
		return
	}
	u.keep = most
	for n > 0 {
		p, err := x.st.Peek()
		if err != nil {
			return
		}
		p = p[:min(len(p), n)]
		u.remember(p)
		x.st.Discard(len(p))
		u.bytes.Add(uint64(len(p)))
		n -= len(p)
	}
	if whole {
		x.spool, u.kept = u.kept, nil
		x.body, x.stream = x.spool, false
		u.bytes.Store(0) // counted with the body
	}
}
