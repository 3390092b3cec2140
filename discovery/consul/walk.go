package consul

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// mark is how far a reader of a query has come: by the index of most queries,
// or by the hash of those on one service of an agent.
type mark struct {
	index uint64
	hash  string
}

func (m mark) none() bool { return m.index == 0 && m.hash == "" }

// next is the mark to wait on after got was returned to a query with m. An
// index that goes backwards, as after a cluster was rebuilt, or that is 0
// starts from the beginning.
func (m mark) next(got mark) mark { return mark{nextIndex(m.index, got.index), got.hash} }

// walk asks a query again and again by Consul's rules for blocking queries. The
// zero value with a client starts from the beginning.
type walk struct {
	client    *client
	at        mark
	answered  time.Time // the last answer
	rechecked bool      // since the last answer to a query that waited
	backoff   discovery.Backoff
}

func newWalk(c *client) walk {
	return walk{client: c, backoff: discovery.Backoff{Base: backoffBase, Max: backoffMax}}
}

// asking is one question of a walk: it waits for what is newer than at, ends
// with token, and refuses connections made later than after. It returns the
// next mark and how many instances there are.
type asking func(ctx, token context.Context, at mark, after time.Time) (mark, int, error)

// step asks once and returns how long to pause before the next step; the pause
// ends early with the returned token. A failure that counts is told to fail.
func (w *walk) step(ctx context.Context, ask asking, fail func(error)) (time.Duration, context.Context) {
	token := w.client.tokens.valid()
	var after time.Time
	if !w.rechecked {
		after = w.answered
	}
	next, size, err := ask(ctx, token, w.at, after)
	switch {
	case ctx.Err() != nil:
		return 0, token
	case err != nil && errors.Is(context.Cause(token), errTokenChanged):
		// Ended because of the new token; what that may see is asked for at once.
		w.at = mark{}
		return 0, token
	case errors.Is(err, errNewConn):
		// The agent may have been replaced, and the mark may mean nothing to
		// it: an index that is too large would wait in vain.
		w.at, w.rechecked = mark{}, true
		return 0, token
	case err != nil:
		fail(err)
		// From the beginning, so that the first good answer comes at once and
		// ends the trouble.
		w.at = mark{}
		return max(minPause, w.backoff.Next(rand.Uint64())), token
	}
	w.backoff.Reset()
	w.answered, w.rechecked = time.Now(), w.rechecked && w.at.none()
	w.at = w.at.next(next)
	pause := min(minPause+time.Duration(size)*perInstance, maxPause)
	if next.none() {
		pause = pollPause
	}
	return discovery.Jitter(pause, 0.1, rand.Uint64()), token
}

// run steps until ctx ends.
func (w *walk) run(ctx context.Context, ask asking, fail func(error)) {
	for ctx.Err() == nil {
		pause, token := w.step(ctx, ask, fail)
		if pause > 0 {
			discovery.Sleep(ctx, pause, token.Done())
		}
	}
}
