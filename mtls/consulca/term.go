package consulca

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// authority is a way to certificates.
type authority interface {
	method() Method
	// watch gives what Consul tells by itself, until ctx ends or something fails.
	watch(ctx context.Context, p place, got func(event)) error
	// issue asks for a certificate; nil where watch gives it.
	issue(ctx context.Context, p place, id string) (*leaf, error)
}

// event is what Consul has told: one of the two.
type event struct {
	roots *roots
	leaf  *leaf
}

// follow goes one way after another until ctx ends.
func (s *Source) follow(ctx context.Context) {
	var wait pause
	for ctx.Err() == nil {
		err := s.locate(ctx)
		if err == nil {
			var served bool
			served, err = s.round(ctx)
			if served {
				wait = pause{}
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue
		}
		s.fail(err)
		sleep(ctx, wait.next(s.longest(time.Now())))
	}
}

// round serves one term: by gRPC, or where that is not reachable and need not be, by HTTP.
func (s *Source) round(ctx context.Context) (served bool, err error) {
	if s.signer != nil {
		served, err = s.term(ctx, s.signer, 0)
		if served {
			s.lately = time.Now()
		}
		// A server that is restarted is no reason to take a key from somewhere else.
		waits := s.own != nil && time.Since(s.lately) < grpcAway
		if served || waits || s.cfg.Method == MethodSign || !unreachable(err) || ctx.Err() != nil {
			return served, err
		}
	} else {
		err = s.broken
	}
	short := leafTerm/2 + rand.N(leafTerm/2)
	if s.signer == nil {
		short = 0
	}
	served, other := s.term(ctx, &agent{s.opts.Client}, short)
	if other != nil && !served && err != nil && ctx.Err() == nil {
		other = fmt.Errorf("%w; and by HTTP: %w", err, other)
	}
	return served, other
}

// locate finds the datacenter of the identity, once.
func (s *Source) locate(ctx context.Context) error {
	if s.place.datacenter != "" {
		return nil
	}
	dc, err := datacenter(ctx, s.opts.Client, s.place)
	s.place.datacenter = dc
	return err
}

// term goes one way until it ends, which it does after most, if that is above 0. It reports whether anything came of it.
func (s *Source) term(ctx context.Context, a authority, most time.Duration) (served bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, ended := make(chan event), make(chan error, 1)
	go func() {
		ended <- a.watch(ctx, s.place, func(e event) {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		})
	}()
	over := func() {
		cancel()
		<-ended
	}
	var end <-chan time.Time
	if most > 0 {
		t := time.NewTimer(most)
		defer t.Stop()
		end = t.C
	}
	due := time.NewTimer(lookAgain)
	defer due.Stop()
	current := false // whether the roots are of this term
	var wait pause
	var notBefore time.Time // of the next attempt to have a certificate issued
	for {
		select {
		case err := <-ended:
			return served, err
		case <-end:
			over()
			return served, nil
		case e := <-events:
			switch {
			case e.roots != nil:
				current = true
				s.takeRoots(e.roots)
			case e.leaf != nil:
				s.next = e.leaf
			}
		case <-due.C:
		}
		if !current {
			continue
		}
		if err := s.checkDomain(); err != nil {
			over()
			return false, err
		}
		s.told = s.say(a.method(), s.told)
		now := time.Now()
		if at := s.due(now); !now.Before(at) && !now.Before(notBefore) {
			l, err := a.issue(ctx, s.place, s.place.id(s.roots.domain))
			switch {
			case err != nil:
				if ctx.Err() == nil {
					s.fail(err)
				}
				notBefore = time.Now().Add(wait.next(s.longest(now)))
			case l != nil:
				wait = pause{}
				s.next = l
			default:
				notBefore = now.Add(lookAgain) // watch brings it
			}
		}
		if err := s.publish(); err != nil {
			s.fail(err)
			if notBefore.Before(now) {
				notBefore = now.Add(wait.next(s.longest(now)))
			}
		} else if s.own != nil {
			served = true
		}
		at := s.due(time.Now())
		if at.Before(notBefore) {
			at = notBefore
		}
		due.Reset(min(max(time.Until(at), 0), lookAgain))
	}
}

// takeRoots notes a new list, and when the certificate must be replaced for it.
func (s *Source) takeRoots(r *roots) {
	before := s.roots
	if before != nil && before.activePEM == r.activePEM && slices.Equal(before.pems, r.pems) && before.domain == r.domain {
		return
	}
	s.roots = r
	if s.own == nil || before != nil && before.activePEM == r.activePEM && s.own.leadsTo(r.pool) {
		return
	}
	switch now := time.Now(); {
	case s.own.leadsTo(r.active):
	case !s.own.leadsTo(r.pool):
		s.own.due = now
		s.log.Info("Consul does not trust the root of the own certificate any more; asking for another certificate")
	default:
		if at := now.Add(time.Duration(rand.Float64() * float64(s.jitter))); at.Before(s.own.due) {
			s.own.due = at
		}
		s.log.Info("Consul's CA has another root; both are trusted while Consul lists both", slog.Time("next_certificate", s.own.due))
	}
}

// due is when a certificate is to be asked for: at once when there is none, or none that may still be used.
func (s *Source) due(now time.Time) time.Time {
	switch {
	case s.own == nil, s.own.from == MethodLeaf && s.signer != nil && s.told == MethodSign:
		return now
	}
	return s.own.due
}

// longest is how long the pauses after failures may become.
func (s *Source) longest(now time.Time) time.Duration {
	if s.own == nil {
		return pauseShort
	}
	c := s.own.cert.Leaf
	if c.NotAfter.Sub(now) < c.NotAfter.Sub(c.NotBefore)/10 {
		return pauseShort
	}
	return pauseLong
}

// pause is exponential backoff with jitter over the upper half.
type pause struct{ last time.Duration }

func (p *pause) next(longest time.Duration) time.Duration {
	p.last = min(max(2*p.last, pauseFirst), longest)
	return p.last/2 + rand.N(p.last/2+1)
}

// sleep reports whether d has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
