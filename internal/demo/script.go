package demo

import "time"

// step is something that the demo does to an instance of api.
type step struct {
	at     time.Duration // since the load began
	kind   string
	target int // index in mesh.API
}

// The course of events, which comes again and again with other instances.
// Ejections (3s at first, then 6s) fit in between: in the first seconds of an
// erring instance it is ejected, fails its probe, is ejected again, and passes.
const (
	cycle     = 40 * time.Second
	atErrs    = 4 * time.Second
	atRecover = 9 * time.Second
	atKill    = 12 * time.Second
	atRestart = 24 * time.Second

	// fullScript is how long a demo must run for both faults and what follows
	// from them at full pace; a shorter one runs faster.
	fullScript = 20 * time.Second
)

// script says when what happens.
type script struct {
	scale float64
	done  time.Duration // steps up to here have been returned
}

func newScript(duration time.Duration) script {
	s := script{scale: 1}
	if duration > 0 && duration < fullScript {
		s.scale = float64(duration) / float64(fullScript)
	}
	return s
}

func (s *script) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * s.scale).Round(time.Millisecond)
}

// due returns the steps that have become due since the last call, in order.
func (s *script) due(now time.Duration) []step {
	var list []step
	for n := int(s.done / s.scaled(cycle)); ; n++ {
		begin := time.Duration(n) * s.scaled(cycle)
		if begin > now {
			break
		}
		bad, dead := (n+1)%instances, (n+2)%instances
		for _, st := range []step{
			{atErrs, kindErrs, bad},
			{atRecover, kindRecovers, bad},
			{atKill, kindKilled, dead},
			{atRestart, kindRestarted, dead},
		} {
			st.at = begin + s.scaled(st.at)
			if st.at > s.done && st.at <= now {
				list = append(list, st)
			}
		}
	}
	s.done = now
	return list
}
