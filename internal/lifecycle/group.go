// Package lifecycle runs the long-lived parts of a process and waits for them: the first that fails ends the others.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Group runs named parts under one context.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// failure is the cause of a group's end that a part gave. It tells such an
// error from the end of a context, which a part's own error may well wrap.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

// New returns a group whose parts end with ctx.
func New(ctx context.Context) *Group {
	g := &Group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Context ends when the group is stopped or one of its parts has failed.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs a part. An error that it returns while the group runs stops the
// group; the end of the group's context is not an error.
func (g *Group) Go(name string, run func(context.Context) error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		if err := run(g.ctx); err != nil && g.ctx.Err() == nil {
			g.cancel(&failure{fmt.Errorf("%s: %w", name, err)})
		}
	}()
}

// Stop ends the group's context.
func (g *Group) Stop() { g.cancel(nil) }

// Wait returns when every part has ended: the error of the first that failed.
func (g *Group) Wait() error {
	g.wg.Wait()
	return g.Err()
}

// Err returns why the group's context ended: the error of the part that
// failed, or nil when it was stopped from outside.
func (g *Group) Err() error {
	var f *failure
	if errors.As(context.Cause(g.ctx), &f) {
		return f.err
	}
	return nil
}
