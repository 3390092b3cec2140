package rerun

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
)

// there is how far in time an attempt may be from one that was made and still be it.
const there = 100 * time.Millisecond

// slack is how much later than its time an attempt may have been given up: a proxy
// looks at most deadlines ten times a second.
const slack = 150 * time.Millisecond

// recorded returns the attempt of request id at the endpoint at that time, if it
// was made.
func (k *client) recorded(id uint64, number int, name uint32, now time.Duration) *attempt {
	q := &k.r.t.requests[id]
	list := k.r.t.attempts[q.first : q.first+uint32(q.n)]
	// Not one that came before: that has had its end already.
	for i := number - 1; i < len(list); i++ {
		if a := &list[i]; a.endpoint == name && apart(a.begin, now) <= there {
			return a
		}
	}
	return nil
}

func apart(a, b time.Duration) time.Duration { return max(a-b, b-a) }

// Begin implements replay.World.
func (k *client) Begin(now time.Duration, a replay.Attempt) (replay.Fate, bool) {
	t := k.r.t
	name := k.names[a.Endpoint]
	was, source := k.recorded(a.Request.ID, a.Number, name, now), Observed
	if was == nil {
		was, source = t.like(k.c, name, now, k.r.random.Next())
	}
	if was == nil { // nothing was ever tried
		k.out.Ends[Guessed]++
		return replay.Fate{Latency: time.Millisecond, Reason: outcome.OK, Status: 200}, true
	}
	// Under the times that were in force, what was waited for longer than them was so:
	// the proxy could not end it, for want of a processor.
	recorded := source == Observed && k.timed
	if !censored(was.reason) {
		k.out.Ends[source]++
		f := t.fate(was)
		f.Late = recorded
		return f, true
	}
	switch {
	case was.reason == outcome.DownstreamGone && source == Observed && t.requests[a.Request.ID].reason == outcome.DownstreamGone:
		k.out.Ends[source]++
		return replay.Fate{}, false // until the caller goes, or its time is over
	case a.Deadline > 0 && a.Deadline <= now+was.took+slack:
		// It is given up here, too; if for the same reason, then as late as it was.
		k.out.Ends[source]++
		if source == Observed && now+was.took >= a.Deadline && (recorded || now+was.took < a.Deadline+slack) {
			f := t.fate(was)
			f.Late = true
			return f, true
		}
		return replay.Fate{}, false
	}
	// It was given up, and now would be waited for longer.
	d := k.c.byName[was.endpoint].longer(was.took, k.r.random.Next())
	k.out.Ends[Guessed]++
	switch {
	case d > 0:
		return replay.Fate{Latency: d, Reason: outcome.OK, Status: 200}, true
	case a.Deadline > 0:
		return replay.Fate{}, false
	case given(was.reason):
		return replay.Fate{Latency: was.took, Reason: outcome.OK, Status: 200}, true
	}
	return t.fate(was), true
}

// Abandon implements replay.World.
func (k *client) Abandon(time.Duration, replay.Attempt) {}

// Ended implements replay.Caller.
func (k *client) Ended(now time.Duration, r *replay.Request, e replay.End) {
	if k.gone != nil {
		delete(k.gone, r.ID)
	}
	if e.Reason.Row().Source != outcome.SourceLocal || e.Reason == outcome.OK {
		return
	}
	q := &k.r.t.requests[r.ID]
	switch {
	case q.reason == outcome.OK:
		k.out.RefusedGood++
	case q.reason.Row().Source == outcome.SourceLocal:
		if a := k.r.t.draw(&k.c.all, now, nearTime, k.r.random.Next()); a != nil && a.reason == outcome.OK {
			k.out.RefusedProbablyGood++
		}
	}
}

// Endpoint implements replay.Script.
func (k *client) Endpoint(_ time.Duration, r *replay.Request, n int) (int, bool) {
	q := &k.r.t.requests[r.ID]
	if !k.follow || n > int(q.n) {
		k.out.Picks[1]++
		return 0, false
	}
	number, ok := k.numberOf[k.r.t.attempts[q.first+uint32(n-1)].endpoint]
	if ok {
		k.out.Picks[0]++
	} else {
		k.out.Picks[1]++
	}
	return number, ok
}

// Wait implements replay.Script.
func (k *client) Wait(r *replay.Request, n int) (time.Duration, bool) {
	q := &k.r.t.requests[r.ID]
	if n >= int(q.n) {
		if a := k.r.t.attempts[q.first+uint32(q.n)-1:]; n == int(q.n) && q.refused > a[0].begin+a[0].took {
			return q.refused - (a[0].begin + a[0].took), true
		}
		return 0, false
	}
	// What passed between the attempts, the wait that was decided and the rest.
	a, b := &k.r.t.attempts[q.first+uint32(n-1)], &k.r.t.attempts[q.first+uint32(n)]
	if gap := b.begin - (a.begin + a.took); a.waited && gap >= 0 {
		return gap, true
	}
	return a.wait, a.waited
}

// Turns implements replay.Script. Under the configuration of the time the log says
// when a review had its turn and did something: turns, too, come late to a proxy
// that has to wait for a processor.
func (k *client) Turns() bool { return k.r.fixed != nil || k.r.t.Damage.Any() }

// Word implements replay.Script.
func (k *client) Word(now time.Duration) (uint64, bool) {
	w, ok := k.words[now]
	return w, ok
}
