package jwks

import (
	"time"

	"github.com/outrigger-mesh/outrigger/mtls/jwt"
)

// pauses are those after failures in a row.
type pauses struct {
	upTo, most time.Duration // the next one, and the longest
	growing    int           // how many there are before the longest; less than 0: until they are that long
}

func pausesOf(k *jwt.Keys) pauses {
	base, most := k.RetryPauses()
	p := pauses{upTo: base, most: most, growing: k.RetryTimes}
	if k.RetryTimes == 0 {
		p.growing = -1
	}
	return p
}

// next returns the next pause, from half of what it may be, so that many proxies
// do not ask at one moment. r is a random number from 0 to 1.
func (p *pauses) next(r float64) time.Duration {
	if p.growing == 0 {
		p.upTo = p.most
	}
	now := p.upTo
	p.upTo = min(2*p.upTo, p.most)
	p.growing = max(p.growing-1, -1)
	return now/2 + time.Duration(r*float64(now/2))
}
