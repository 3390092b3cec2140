package config

import "github.com/outrigger-mesh/outrigger/resilience/limit"

// limits refuses a queue in which nobody can ever wait.
func (v *validator) limits(path string, l *limit.Config) {
	if l.Queue != nil && l.MaxRequests == 0 {
		v.say(path+".queue", "is never used: max_requests is 0, so nobody has to wait; give the number that may be active")
	}
}
