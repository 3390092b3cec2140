package retry

import (
	"strings"
	"testing"
	"time"
)

// staleClass stands for a kept connection that had been closed.
const staleClass Class = 9

// TestLayer: where the caller's sidecar repeats requests, this one does so only
// after what no endpoint can have processed, unless it is told otherwise.
func TestLayer(t *testing.T) {
	for _, c := range []struct {
		layer  Layer
		caller bool
		class  Class
		want   Why
	}{
		{Outermost, false, IfIdempotent, Again},
		{Outermost, true, IfIdempotent, CallerRetries},
		{Outermost, true, IfUnsent, Again},
		{Outermost, true, Never, NotRetryable},
		{Outermost, true, staleClass, Again},
		{Every, true, IfIdempotent, Again},
	} {
		cfg := Default()
		cfg.Layer = c.layer
		b := NewBudget(cfg)
		d := cfg.Decide(Question{
			Attempt: 1, Retryable: c.class, Condition: Reset, Idempotent: true, BodyReplayable: true, CallerRetries: c.caller,
		}, b, time.Second, 0)
		if c.class == staleClass {
			d = cfg.Decide(Question{
				Attempt: 1, Retryable: IfIdempotent, Condition: StaleConnection, Idempotent: true, BodyReplayable: true, CallerRetries: c.caller,
			}, b, time.Second, 0)
		}
		if c.class == IfUnsent {
			d = cfg.Decide(Question{
				Attempt: 1, Retryable: c.class, Condition: ConnectFailure, Idempotent: true, BodyReplayable: true, CallerRetries: c.caller,
			}, b, time.Second, 0)
		}
		if d.Why != c.want {
			t.Errorf("%v, the caller retries: %v, %v: %v, want %v", c.layer, c.caller, c.class, d.Why, c.want)
		}
	}
}

func TestLayerWords(t *testing.T) {
	for word, want := range map[string]Layer{"": Outermost, "outermost": Outermost, "every": Every} {
		l := Layer(9)
		if err := l.UnmarshalText([]byte(word)); err != nil || l != want {
			t.Errorf("%q: %v, %v", word, l, err)
		}
		if text, _ := l.MarshalText(); word != "" && string(text) != word {
			t.Errorf("%v is written %s", l, text)
		}
	}
	var l Layer
	if err := l.UnmarshalText([]byte("inner")); err == nil || !strings.Contains(err.Error(), "outermost or every") || Layer(9).String() != "layer(9)" {
		t.Errorf("%v", err)
	}
	cfg, got := Default(), ""
	cfg.Layer = 2
	cfg.Validate(func(field, _ string) { got += field })
	if got != "layer" {
		t.Errorf("mistakes in %q", got)
	}
}
