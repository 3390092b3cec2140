package proxy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// written collects what is logged.
type written struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *written) count(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.b.String(), text)
}

// A start that waits for Consul says so at once, and what for, now and then.
func TestSidecarSaysWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log written
		f := &saying{}
		s := newSidecar(nil, f, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := s.First(ctx)
			ended <- err
		}()
		synctest.Wait()
		if log.count("event=sidecar_asking") != 1 || log.count("event=sidecar_waiting") != 0 {
			t.Error("at once: ", log.b.String())
		}
		time.Sleep(remindFirst)
		synctest.Wait()
		if log.count(`event=sidecar_waiting error="no answer yet"`) != 1 {
			t.Error("soon: ", log.b.String())
		}
		f.Follow([]string{"sidecar/registration"})
		f.Fail("sidecar/registration", errors.New("connection refused"))
		time.Sleep(2 * remindStep)
		synctest.Wait()
		if log.count(`event=sidecar_waiting error="sidecar/registration: connection refused"`) != 2 {
			t.Error("now and then: ", log.b.String())
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
