package limiter

import (
	"context"
	"crypto/tls"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

// Limit is a limit that is counted for several proxies.
type Limit struct {
	Name    string // unique among those of its limiter
	Rate    *ratelimit.Config
	Entries []string // the names of the values that requests are told apart by
	Hits    uint32   // as how many requests each counts; 0 one
	Lease   int      // how many are taken at a time, in Redis
	Keys    int      // of how many keys something is kept here, in Redis
}

// Limiter counts requests for several proxies.
type Limiter interface {
	// Take asks for one request, which values tell apart: one for each of the
	// limit's entries. It takes no longer than within, or with 0 than the limiter
	// may take.
	Take(now, within time.Duration, values [][]byte) ratelimit.Answer
}

// Spec is what a plan wants of the limiters. A nil Config is one that it does
// not want.
type Spec struct {
	GRPC    *GRPC
	GRPCTLS *tls.Config
	// GRPCKey is equal for two specs exactly when their TLS configurations do the same.
	GRPCKey  string
	Redis    *Redis
	RedisTLS *tls.Config
	RedisKey string // as GRPCKey
}

// Set holds the limiters of a process. They outlive plans.
type Set struct {
	now func() time.Duration
	log *slog.Logger

	mu      sync.Mutex
	spec    Spec
	grpc    *service
	redis   *redis
	retired []retired
	wake    chan struct{} // capacity 1
}

// retired is a limiter that no plan wants any more, but some exchange may
// still be asking.
type retired struct {
	close func()
	after time.Duration
}

// NewSet returns a set without limiters. now is the clock of the exchanges.
func NewSet(now func() time.Duration, log *slog.Logger) *Set {
	return &Set{now: now, log: log, wake: make(chan struct{}, 1)}
}

// Use makes spec what is wanted. A limiter that stays as it was keeps its
// connections.
func (s *Set) Use(spec Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !reflect.DeepEqual(s.spec.GRPC, spec.GRPC) || s.spec.GRPCKey != spec.GRPCKey {
		if s.grpc != nil {
			s.retire(s.grpc.close, s.grpc.timeout)
		}
		if s.grpc = nil; spec.GRPC != nil {
			s.grpc = newService(spec.GRPC, spec.GRPCTLS, s.now, s.log)
		}
	}
	if !reflect.DeepEqual(s.spec.Redis, spec.Redis) || s.spec.RedisKey != spec.RedisKey {
		if s.redis != nil {
			s.retire(s.redis.close, s.redis.timeout)
		}
		if s.redis = nil; spec.Redis != nil {
			s.redis = newRedis(spec.Redis, spec.RedisTLS, s.now, s.log)
		}
	}
	s.spec = spec
}

// retire has close called when all that may use the limiter have ended.
func (s *Set) retire(closing func(), timeout time.Duration) {
	s.retired = append(s.retired, retired{closing, s.now() + 2*timeout + time.Second})
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// GRPC returns what counts l in the rate limit service, which must be wanted.
func (s *Set) GRPC(l *Limit) Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &remote{s: s.grpc, l: l}
	if l.Rate != nil {
		r.o, _ = overrideOf(l.Rate)
	}
	return r
}

// Redis returns what counts l, which has a rate, in Redis, which must be wanted.
func (s *Set) Redis(l *Limit) Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return newBucket(s.redis, l)
}

// Run closes limiters that are not wanted any more, and at the end of ctx all.
func (s *Set) Run(ctx context.Context) error {
	for {
		wait := s.closeRetired()
		var due <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			s.Close()
			return nil
		}
	}
}

// closeRetired closes those whose time has come, and returns when the next
// one's comes; 0 when there is none.
func (s *Set) closeRetired() (wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for len(s.retired) > 0 {
		if r := s.retired[0]; r.after > now {
			return r.after - now
		}
		s.retired[0].close()
		s.retired = s.retired[1:]
	}
	return 0
}

// Close closes all limiters. Run does it at its end.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.retired {
		r.close()
	}
	s.retired = nil
	if s.grpc != nil {
		s.grpc.close()
	}
	if s.redis != nil {
		s.redis.close()
	}
}

var _ Limiter = (*remote)(nil)

// CanOverride says what keeps the rate from being told to a rate limit service;
// "" if nothing does.
func CanOverride(c *ratelimit.Config) string {
	if _, ok := overrideOf(c); !ok {
		return "cannot be told to the service: its units are 1s, 1m and 1h, and it knows no burst"
	}
	return ""
}
