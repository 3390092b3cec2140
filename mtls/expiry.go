package mtls

import (
	"context"
	"log/slog"
	"time"
)

// Watch warns through logger when the source's certificate has less than a third
// of its life left without having been renewed, again at a tenth, and logs an
// error when it has ended: each once for a certificate, and only the latest of
// those that passed together. It returns ctx's error when ctx ends.
func Watch(ctx context.Context, src Source, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var watched *Material
	var told int
	for {
		changed := src.Changed()
		m := src.Material()
		if m != watched {
			watched, told = m, 0
		}
		var wake <-chan time.Time
		if m != nil {
			now := time.Now()
			thresholds := expiryThresholds(m)
			passed := 0
			for passed < len(thresholds) && !now.Before(thresholds[passed]) {
				passed++
			}
			if passed > told {
				told = passed
				logExpiry(logger, src.Status(), m, now, passed == len(thresholds))
			}
			if passed < len(thresholds) {
				timer.Reset(thresholds[passed].Sub(now))
				wake = timer.C
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-wake:
		}
	}
}

// expiryThresholds are the moments of alarm, in order: a third and a tenth of
// the life left, and the first instant at which Expired is true.
func expiryThresholds(m *Material) [3]time.Time {
	life := m.NotAfter.Sub(m.NotBefore)
	return [3]time.Time{m.NotAfter.Add(-life / 3), m.NotAfter.Add(-life / 10), m.NotAfter.Add(1)}
}

func logExpiry(logger *slog.Logger, s Status, m *Material, now time.Time, ended bool) {
	attrs := []any{
		slog.String("id", m.ID.String()),
		slog.String("source", s.Kind),
		slog.Time("not_after", m.NotAfter),
	}
	if s.LastError != nil {
		attrs = append(attrs, slog.Any("last_error", s.LastError), slog.Time("last_error_at", s.LastErrorAt))
	}
	if ended {
		logger.Error("own certificate has expired; peers refuse new connections until it is renewed", attrs...)
		return
	}
	attrs = append(attrs, slog.Duration("remaining", m.NotAfter.Sub(now)))
	logger.Warn("own certificate nears its end and has not been renewed", attrs...)
}
