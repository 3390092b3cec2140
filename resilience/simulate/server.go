package simulate

import (
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/resilience/scenario"
)

// server is a modelled endpoint: slots in which requests are worked on, and a
// queue before them.
type server struct {
	run     *run
	service *service
	number  int // from 0
	id      replay.ActorID
	slots   int
	time    scenario.Distribution
	clients []*replay.Client // one for each of the service's calls
	random  replay.Random

	busy    int
	waiting fifo
	jobs    []*job
	spare   []uint32
	faults  []scenario.Fault // in force
	fault   weather
}

// weather is what the faults in force come to.
type weather struct {
	slow                 float64
	delay                time.Duration
	stalled              bool
	down, unreachable    bool
	errors, grays, lossy float64
}

// job is a request at a server.
type job struct {
	generation uint32
	state      state
	client     *replay.Client // whom to answer
	ref        replay.Ref
	gone       bool // nobody waits for the answer
	overall    time.Duration
	idempotent bool
	repeated   bool       // a proxy before the calls repeats the request
	call       int        // the next of the service's calls
	called     replay.Ref // the one under way
	fate       replay.Fate
}

type state uint8

const (
	idle state = iota
	queued
	working
	calling
	answering
)

// handle names a job in an event or a request: generation<<32 | index.
func (s *server) handle(i uint32) uint64 { return uint64(s.jobs[i].generation)<<32 | uint64(i) }

func (s *server) job(handle uint64) (*job, uint32) {
	i := uint32(handle)
	if int(i) >= len(s.jobs) || s.jobs[i].generation != uint32(handle>>32) {
		return nil, 0
	}
	return s.jobs[i], i
}

func (s *server) newJob() (*job, uint32) {
	if n := len(s.spare); n > 0 {
		i := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return s.jobs[i], i
	}
	s.jobs = append(s.jobs, &job{generation: 1})
	return s.jobs[len(s.jobs)-1], uint32(len(s.jobs) - 1)
}

func (s *server) freeJob(j *job, i uint32) {
	*j = job{generation: (j.generation + 1) & (1<<28 - 1)}
	s.spare = append(s.spare, i)
}

// never stands for an answer that does not come.
const never = 1000 * time.Hour

// begin takes a request that an attempt of c carries.
func (s *server) begin(now time.Duration, c *replay.Client, a *replay.Attempt) (replay.Fate, bool) {
	f, p := &s.fault, c.Policy()
	network := s.service.spec.Network
	s.service.Arrived++
	switch {
	case f.unreachable:
		return replay.Fate{Latency: p.ConnectTimeout, Reason: outcome.ConnectTimeout}, true
	case f.down:
		return replay.Fate{Latency: network, Reason: outcome.ConnectFailed}, true
	case f.lossy > 0 && s.random.Fraction() < f.lossy:
		idle := p.StreamIdle
		if idle <= 0 {
			idle = never
		}
		return replay.Fate{Latency: idle, Reason: outcome.StreamIdle}, true
	case f.errors > 0 && s.random.Fraction() < f.errors:
		return replay.Fate{Latency: network + f.delay, Reason: outcome.UpstreamError, Status: 503}, true
	case s.full():
		s.service.Overflowed++
		return replay.Fate{Latency: network + f.delay, Reason: outcome.UpstreamError, Status: 503}, true
	}
	j, i := s.newJob()
	j.client, j.ref, j.overall, j.idempotent = c, a.Ref, a.Overall, a.Request.Idempotent
	j.repeated = a.Repeated && s.service.spec.PassesRetries
	*a.Note = s.handle(i)
	if s.free() {
		s.work(now, j, i)
	} else {
		j.state = queued
		s.waiting.push(s.handle(i))
		s.service.MostWaiting = max(s.service.MostWaiting, s.waiting.len)
	}
	return replay.Fate{}, false
}

// free reports whether a request can be worked on at once.
func (s *server) free() bool { return !s.fault.stalled && (s.slots == 0 || s.busy < s.slots) }

func (s *server) full() bool { return !s.free() && s.waiting.len >= s.service.spec.Queue }

func (s *server) work(now time.Duration, j *job, i uint32) {
	s.busy++
	j.state = working
	took := s.time.Draw(s.random.Fraction(), s.random.Fraction())
	if s.fault.slow != 1 {
		took = time.Duration(min(float64(took)*s.fault.slow, float64(never)))
	}
	s.run.engine.At(now+took, s.id, s.handle(i))
}

// Fire implements replay.Actor: the work on a request is done, or its answer
// has arrived.
func (s *server) Fire(now time.Duration, arg uint64) {
	j, i := s.job(arg)
	switch {
	case j == nil:
	case j.state == answering:
		c, ref, f := j.client, j.ref, j.fate
		s.freeJob(j, i)
		c.Answer(ref, f)
	default:
		s.proceed(now, j, i)
	}
}

// proceed makes the next call for a request, or answers it.
func (s *server) proceed(now time.Duration, j *job, i uint32) {
	calls := s.service.spec.Calls
	for j.call < len(calls) {
		k := j.call
		j.call++
		if p := calls[k].Percent; p < 100 && s.random.Fraction()*100 >= p {
			continue
		}
		j.state = calling
		handle := s.handle(i)
		ref := s.clients[k].Offer(replay.Request{ID: handle, Deadline: j.overall, Idempotent: j.idempotent, Replayable: true, CallerRetries: j.repeated})
		if again, _ := s.job(handle); again == j && j.state == calling && j.call == k+1 {
			j.called = ref
		}
		return
	}
	f := replay.Fate{Status: 200}
	if g := s.fault.grays; g > 0 && s.random.Fraction() < g {
		f = replay.Fate{Reason: outcome.UpstreamError, Status: 500}
	}
	s.answer(now, j, i, f)
}

// Ended implements replay.Caller: a call for a request is over.
func (s *server) Ended(now time.Duration, r *replay.Request, e replay.End) {
	j, i := s.job(r.ID)
	if j == nil || j.state != calling {
		return
	}
	j.called = 0
	if e.Reason != outcome.OK {
		s.answer(now, j, i, replay.Fate{Reason: outcome.UpstreamError, Status: 503})
		return
	}
	s.proceed(now, j, i)
}

// answer ends the work on a request.
func (s *server) answer(now time.Duration, j *job, i uint32, f replay.Fate) {
	s.service.Served++
	if j.gone {
		s.service.Wasted++
	}
	s.busy--
	if j.gone {
		s.freeJob(j, i)
	} else {
		j.state, j.fate = answering, f
		s.run.engine.At(now+s.service.spec.Network+s.fault.delay, s.id, s.handle(i))
	}
	s.next(now)
}

// next begins the requests that wait, as far as there are slots.
func (s *server) next(now time.Duration) {
	for s.waiting.len > 0 && s.free() {
		j, i := s.job(s.waiting.pop(s.service.spec.LIFO))
		if j != nil && j.state == queued {
			s.work(now, j, i)
		}
	}
}

// abandon is told that nobody waits for the answer to a request any more.
func (s *server) abandon(now time.Duration, note uint64) {
	j, i := s.job(note)
	if j == nil || note == 0 {
		return
	}
	switch {
	case j.state == answering:
		s.freeJob(j, i)
	case !s.service.spec.Cancels:
		j.gone = true
	default:
		s.drop(j, i)
		s.next(now)
	}
}

// drop ends a request without an answer.
func (s *server) drop(j *job, i uint32) {
	before, called, k := j.state, j.called, j.call-1
	handle := s.handle(i)
	s.freeJob(j, i)
	switch before {
	case queued:
		s.waiting.remove(handle)
	case working, calling:
		s.busy--
	}
	if before == calling && called != 0 {
		s.clients[k].Cancel(called)
	}
}

// change begins a fault, or ends it.
func (s *server) change(now time.Duration, f scenario.Fault, begins bool) {
	if begins {
		s.faults = append(s.faults, f)
	} else {
		for i := range s.faults {
			if s.faults[i] == f {
				s.faults = append(s.faults[:i], s.faults[i+1:]...)
				break
			}
		}
	}
	s.fault = weatherOf(s.faults)
	if s.fault.down {
		s.breakAll(now)
	}
	s.next(now)
}

func weatherOf(faults []scenario.Fault) weather {
	w := weather{slow: 1}
	for _, f := range faults {
		switch f.Kind {
		case scenario.Slow:
			w.slow *= f.Factor
		case scenario.Delay:
			w.delay += f.Delay
		case scenario.Stall:
			w.stalled = true
		case scenario.Down:
			w.down = true
		case scenario.Unreachable:
			w.unreachable = true
		case scenario.Error:
			w.errors = 1 - (1-w.errors)*(1-f.Share)
		case scenario.Gray:
			w.grays = 1 - (1-w.grays)*(1-f.Share)
		case scenario.Lossy:
			w.lossy = 1 - (1-w.lossy)*(1-f.Share)
		}
	}
	return w
}

// breakAll ends all requests at a server that has gone down.
func (s *server) breakAll(time.Duration) {
	for i, j := range s.jobs {
		if j.state == idle {
			continue
		}
		c, ref, gone := j.client, j.ref, j.gone
		s.drop(j, uint32(i))
		if !gone {
			c.Answer(ref, replay.Fate{Reason: outcome.UpstreamReset})
		}
	}
}

// fifo is a queue of handles from which any can be taken.
type fifo struct {
	ring []uint64
	head int
	used int // places between head and the end, removed ones among them
	len  int
}

func (q *fifo) push(h uint64) {
	if q.used == len(q.ring) {
		ring := make([]uint64, max(2*len(q.ring), 16))
		for i := range q.used {
			ring[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.used)%len(q.ring)] = h
	q.used++
	q.len++
}

// pop takes the first handle, or the last one.
func (q *fifo) pop(last bool) uint64 {
	for q.used > 0 {
		at := q.head
		if last {
			at = (q.head + q.used - 1) % len(q.ring)
		} else {
			q.head = (q.head + 1) % len(q.ring)
		}
		q.used--
		if h := q.ring[at]; h != 0 {
			q.len--
			return h
		}
	}
	return 0
}

// remove takes out a handle, which is there, wherever it is.
func (q *fifo) remove(h uint64) {
	for i := range q.used {
		if at := (q.head + i) % len(q.ring); q.ring[at] == h {
			q.ring[at] = 0
			q.len--
			return
		}
	}
}
