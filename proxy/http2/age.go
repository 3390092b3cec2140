package http2

import (
	"math/rand/v2"
	"time"
)

// ageJitter is how far from its mean the age may lie at which a connection is
// drained, in percent, so that connections that were made together do not end
// together (as gRPC's MaxConnectionAge).
const ageJitter = 10

// aged is when a connection that began then has its age; 0 never.
func (c *conn) aged(began time.Duration) time.Duration {
	age := c.cfg.MaxAge
	if age <= 0 {
		return 0
	}
	return began + age - age*ageJitter/100 + rand.N(age*2*ageJitter/100+1)
}

// sweepAge drains a connection that has its age and ends one whose streams go on
// for too long after that. The lock is held.
func (c *conn) sweepAge(now time.Duration) {
	k := &c.watch
	switch {
	case k.agedAt == 0 || now < k.agedAt:
	case c.drain == drainNone:
		c.startDrainLocked()
	case c.cfg.AgeGrace > 0 && now >= k.agedAt+c.cfg.AgeGrace:
		c.closeLocked(&Error{Code: NoError, Reason: "the connection has been open for its longest time"})
	}
}
