package limiter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/resilience/ratelimit"
)

const shouldRateLimit = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// service asks a rate limit service.
type service struct {
	gate
	conn   *grpc.ClientConn // nil if broken says why
	broken error
	domain string
}

// A service that was away is called again after these pauses.
const (
	firstPause  = 100 * time.Millisecond
	longPause   = 2 * time.Second
	connectTime = time.Second
)

func newService(c *GRPC, t *tls.Config, now func() time.Duration, log *slog.Logger) *service {
	s := &service{gate: newGate("grpc", c.Address, c.Timeout, c.MaxInFlight, c.Breaker, now, log), domain: c.Domain}
	creds := insecure.NewCredentials()
	if t != nil {
		creds = credentials.NewTLS(t)
	}
	pauses := backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longPause}
	s.conn, s.broken = grpc.NewClient("dns:///"+c.Address,
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: connectTime}),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(maxReply)),
	)
	if s.broken == nil {
		s.conn.Connect() // so that the first request need not wait for it
	}
	return s
}

func (s *service) close() {
	if s.broken == nil {
		_ = s.conn.Close()
	}
}

// remote is one limit that the service counts.
type remote struct {
	s *service
	l *Limit
	o override
}

// Take implements Limiter.
func (r *remote) Take(now, within time.Duration, values [][]byte) ratelimit.Answer {
	p, refused, ok := r.s.enter(now, within)
	if !ok {
		return refused
	}
	a := r.s.ask(p.within, &question{domain: r.s.domain, keys: r.l.Entries, values: values, rate: r.o, hits: r.l.Hits})
	r.s.leave(p, a.Failure)
	return a
}

func (s *service) ask(within time.Duration, q *question) ratelimit.Answer {
	if s.broken != nil {
		return s.fail(ratelimit.Unreachable, s.broken)
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var res reply
	err := s.conn.Invoke(ctx, shouldRateLimit, q, &res)
	if err == nil {
		var a ratelimit.Answer
		if a, err = res.answer(); err == nil {
			return a
		}
		return s.fail(ratelimit.Malformed, err)
	}
	if res.bad != nil {
		return s.fail(ratelimit.Malformed, res.bad)
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return s.fail(ratelimit.Timeout, fmt.Errorf("no answer within %s", within))
	case codes.Unavailable, codes.Canceled:
		return s.fail(ratelimit.Unreachable, err)
	}
	return s.fail(ratelimit.Refused, err)
}

// codec writes and reads the two messages.
type codec struct{}

var errNotOurs = errors.New("limiter: a message of another service")

// Marshal implements encoding.Codec.
func (codec) Marshal(v any) ([]byte, error) {
	if q, ok := v.(*question); ok {
		return q.append(nil), nil
	}
	return nil, errNotOurs
}

// Unmarshal implements encoding.Codec.
func (codec) Unmarshal(b []byte, v any) error {
	r, ok := v.(*reply)
	if !ok {
		return errNotOurs
	}
	err := r.parse(b)
	r.bad = err
	return err
}

// Name implements encoding.Codec.
func (codec) Name() string { return "proto" }
