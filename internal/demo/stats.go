package demo

import (
	"sync"
	"time"
)

// windowSeconds is how far the recent figures look back.
const windowSeconds = 10

// figures sum up what the caller saw over some time.
type figures struct {
	Requests, Failures, Retries uint64
	Seconds                     float64
	P50, P99                    time.Duration
}

// rate returns requests a second.
func (f figures) rate() float64 {
	if f.Seconds <= 0 {
		return 0
	}
	return float64(f.Requests) / f.Seconds
}

// success returns the share of requests that succeeded in percent, 100 of none.
func (f figures) success() float64 {
	if f.Requests == 0 {
		return 100
	}
	return 100 * float64(f.Requests-f.Failures) / float64(f.Requests)
}

// stats counts requests as the load saw them end, and retries as the sidecar
// of web recorded them, since start and by the second. Times are since the
// load began.
type stats struct {
	mu      sync.Mutex
	all     slot
	recent  [windowSeconds + 1]slot // a ring by second; one is being filled
	notSent uint64
}

type slot struct {
	second                      int64
	requests, failures, retries uint64
	latency                     histogram
}

// at returns the slot of a second, or nil when that has left the ring.
func (s *stats) at(since time.Duration) *slot {
	second := max(int64(since/time.Second), 0)
	sl := &s.recent[second%int64(len(s.recent))]
	if sl.second > second {
		return nil
	}
	if sl.second < second {
		*sl = slot{second: second}
	}
	return sl
}

// request counts one that ended after latency.
func (s *stats) request(since, latency time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.count(latency, ok)
	if sl := s.at(since); sl != nil {
		sl.count(latency, ok)
	}
}

func (sl *slot) count(latency time.Duration, ok bool) {
	sl.requests++
	if !ok {
		sl.failures++
	}
	sl.latency.add(latency)
}

// retried counts attempts beyond a request's first.
func (s *stats) retried(since time.Duration, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.retries += n
	if sl := s.at(since); sl != nil {
		sl.retries += n
	}
}

// skipped counts a request that was not sent because too many were under way.
func (s *stats) skipped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notSent++
}

func (s *stats) unsent() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notSent
}

// total returns the figures since the load began, of a run that lasted so long.
func (s *stats) total(ran time.Duration) figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.figures(ran.Seconds())
}

// window returns the figures of the last complete seconds, windowSeconds at most.
func (s *stats) window(now time.Duration) figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := int64(now / time.Second)
	first := max(current-windowSeconds, 0)
	var sum slot
	for i := range s.recent {
		sl := &s.recent[i]
		if sl.second < first || sl.second >= current {
			continue
		}
		sum.requests += sl.requests
		sum.failures += sl.failures
		sum.retries += sl.retries
		sum.latency.merge(&sl.latency)
	}
	return sum.figures(float64(current - first))
}

func (sl *slot) figures(seconds float64) figures {
	return figures{
		Requests: sl.requests, Failures: sl.failures, Retries: sl.retries, Seconds: seconds,
		P50: sl.latency.percentile(50), P99: sl.latency.percentile(99),
	}
}
