package config

import (
	"github.com/outrigger-mesh/outrigger/resilience/adaptive"
	"github.com/outrigger-mesh/outrigger/resilience/limit"
)

// limits refuses what can never act: a queue in which nobody ever waits, and a
// limit that follows times which are not measured. path is that of the section
// around the two.
func (v *validator) limits(path string, l *limit.Config, a *adaptive.Config, proto Protocol) {
	if l.Queue != nil && l.MaxRequests == 0 && a == nil {
		v.say(path+".limits.queue", "is never used: max_requests is 0 and adaptive is off, so nobody has to wait; give the number that may be active")
	}
	if a != nil && proto == ProtocolTCP {
		v.say(path+".adaptive", "cannot measure anything: tcp is spoken, which has no answers; use limits.max_requests")
	}
}
