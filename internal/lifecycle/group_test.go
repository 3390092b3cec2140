package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// waits is a part that ends with its context.
func waits(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestFirstFailureEndsAll(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		err  error
	}{
		{"plain", broken},
		// A part may fail because a time of its own was over.
		{"deadline", fmt.Errorf("no answer: %w", context.DeadlineExceeded)},
		{"cancelled", fmt.Errorf("gave up: %w", context.Canceled)},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := New(t.Context())
			g.Go("waiting", waits)
			g.Go("failing", func(context.Context) error { return c.err })
			err := g.Wait()
			if !errors.Is(err, c.err) || err.Error() != "failing: "+c.err.Error() {
				t.Errorf("Wait returned %v", err)
			}
			if got := g.Err(); !errors.Is(got, c.err) {
				t.Errorf("Err returned %v", got)
			}
		})
	}
}

func TestOnlyTheFirstFailureIsTold(t *testing.T) {
	g := New(t.Context())
	first := errors.New("first")
	g.Go("a", func(context.Context) error { return first })
	g.Go("b", func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("second")
	})
	if err := g.Wait(); !errors.Is(err, first) {
		t.Errorf("Wait returned %v", err)
	}
}

func TestEndIsNoFailure(t *testing.T) {
	outer, cancel := context.WithCancelCause(t.Context())
	for name, end := range map[string]func(*Group){
		"stopped":      (*Group).Stop,
		"from outside": func(*Group) { cancel(errors.New("the caller has had enough")) },
	} {
		t.Run(name, func(t *testing.T) {
			g := New(outer)
			g.Go("waiting", waits)
			if err := g.Err(); err != nil {
				t.Errorf("while it runs: %v", err)
			}
			end(g)
			if err := g.Wait(); err != nil {
				t.Errorf("Wait returned %v", err)
			}
			if g.Context().Err() == nil {
				t.Error("the group's context goes on")
			}
		})
	}
}

func TestPartThatEndsWellEndsNothing(t *testing.T) {
	g := New(t.Context())
	done := make(chan struct{})
	g.Go("short", func(context.Context) error {
		defer close(done)
		return nil
	})
	<-done
	if err := g.Context().Err(); err != nil {
		t.Errorf("the group has ended: %v", err)
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
