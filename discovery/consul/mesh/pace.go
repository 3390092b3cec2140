package mesh

import "time"

const (
	turnShare  = 4                      // a round is followed by so many times its length without one ...
	turnCredit = 30 * time.Second       // ... but so much of that may be put off
	turnPause  = 200 * time.Millisecond // the least between two rounds
	turnRest   = 2 * time.Second        // the most
)

// pace says how long to rest after a round. In the long run rounds have their share
// of the time; a change now and then is followed at once, because the rest after the
// rounds for it may be made up for later.
type pace struct {
	owed time.Duration // of rest
	at   time.Duration // when that was so
}

// rest returns how long there shall be no round after one that took so long and has
// ended at now.
func (p *pace) rest(now, took time.Duration) time.Duration {
	p.owed = max(0, p.owed-(now-p.at)) + (turnShare+1)*took // the round itself was no rest
	p.owed, p.at = min(p.owed, turnCredit+turnRest), now
	return min(max(turnPause, p.owed-turnCredit), turnRest)
}
