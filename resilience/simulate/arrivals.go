package simulate

import (
	"math"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/balance"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/resilience/scenario"
)

// stream is one of the scenario's streams of requests.
type stream struct {
	run     *run
	spec    *scenario.Arrival
	id      replay.ActorID
	clients []*replay.Client // one a proxy
	random  replay.Random
	rate    profile
	offered uint64
	end     time.Duration
}

func newStream(r *run, spec *scenario.Arrival) *stream {
	s := &stream{run: r, spec: spec, random: r.engine.Fork(), end: r.spec.Duration}
	s.id = r.engine.Add(s)
	for range spec.Proxies {
		s.clients = append(s.clients, r.client(spec.To, s))
	}
	if spec.Users > 0 {
		for u := range spec.Users {
			r.engine.At(spec.Think.Draw(s.random.Fraction(), s.random.Fraction()), s.id, uint64(u))
		}
		return s
	}
	s.rate = newProfile(spec)
	s.next(0)
	return s
}

// next schedules the arrival behind the one at now.
func (s *stream) next(now time.Duration) {
	area := 1.0
	if s.spec.Process == scenario.Poisson {
		area = -math.Log(1 - s.random.Fraction())
	}
	if at := s.rate.after(now, area); at < s.end {
		s.run.engine.At(at, s.id, 0)
	}
}

// Fire implements replay.Actor: a request arrives.
func (s *stream) Fire(now time.Duration, user uint64) {
	if now >= s.end {
		return
	}
	r := replay.Request{ID: user, Idempotent: true, Replayable: true}
	if p := s.spec.NonIdempotentPercent; p > 0 && s.random.Fraction()*100 < p {
		r.Idempotent = false
	}
	if s.spec.Keys > 0 {
		r.Key, r.Keyed = balance.KeyOf(key(s.random.Next()%uint64(s.spec.Keys))), true
	}
	c := s.clients[0]
	if n := len(s.clients); n > 1 {
		c = s.clients[s.random.Next()%uint64(n)]
		if s.spec.Users > 0 {
			c = s.clients[user%uint64(n)]
		}
	}
	s.offered++
	if s.spec.Users == 0 {
		s.next(now)
	}
	c.Offer(r)
}

// key is a number as eight letters.
func key(n uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = 'a' + byte(n%16)
		n /= 16
	}
	return string(b[:])
}

// Ended implements replay.Caller: a user thinks and comes back.
func (s *stream) Ended(now time.Duration, r *replay.Request, _ replay.End) {
	if s.spec.Users == 0 {
		return
	}
	think := s.spec.Think.Draw(s.random.Fraction(), s.random.Fraction())
	// A refusal at once must not keep the clock from moving on.
	s.run.engine.At(now+max(think, time.Microsecond), s.id, r.ID)
}

// profile is a rate over time: pieces in each of which it is linear.
type profile []piece

type piece struct {
	from, to   time.Duration
	rate, grow float64 // a second, and a second a second
}

const forever = time.Duration(math.MaxInt64)

func newProfile(a *scenario.Arrival) profile {
	var p profile
	at, rate := time.Duration(0), a.Rate
	for _, st := range a.Steps {
		if st.At > at {
			p = append(p, piece{from: at, to: st.At, rate: rate})
		}
		at = st.At
		if st.Over > 0 {
			p = append(p, piece{from: at, to: at + st.Over, rate: rate, grow: (st.Rate - rate) / st.Over.Seconds()})
			at += st.Over
		}
		rate = st.Rate
	}
	return append(p, piece{from: at, to: forever, rate: rate})
}

// after returns when the rate, summed up from now on, has come to area: the time
// of the next arrival of a process in which area is 1 or drawn.
func (p profile) after(now time.Duration, area float64) time.Duration {
	for i := range p {
		s := &p[i]
		if now >= s.to {
			continue
		}
		from := max(now, s.from)
		rate := s.rate + s.grow*(from-s.from).Seconds()
		var left float64 // seconds of the piece
		if left = (s.to - from).Seconds(); s.to == forever {
			left = math.Inf(1)
		}
		t := seconds(rate, s.grow, area)
		if t <= left {
			if t > 1e9 {
				return forever
			}
			return from + max(time.Duration(t*float64(time.Second)), 1)
		}
		area -= rate*left + s.grow*left*left/2
	}
	return forever
}

// seconds solves rate t + grow t^2/2 = area; +Inf where there is no solution.
func seconds(rate, grow, area float64) float64 {
	if grow == 0 {
		if rate <= 0 {
			return math.Inf(1)
		}
		return area / rate
	}
	root := rate*rate + 2*grow*area
	if root < 0 {
		return math.Inf(1)
	}
	// In the form that does not subtract numbers that are nearly equal.
	if d := rate + math.Sqrt(root); d > 0 {
		return 2 * area / d
	}
	return math.Inf(1)
}
