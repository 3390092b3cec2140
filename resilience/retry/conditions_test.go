package retry

import (
	"testing"
	"time"
)

// TestAnswers: which answers are followed by another attempt, by conditions and
// statuses, and for which methods.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name string
		on   []Condition
		list []int
		q    Question
		want Why
	}{
		{"listed, POST", []Condition{ConnectFailure}, []int{503, 404}, Question{Retryable: IfIdempotent, Status: 404}, Again},
		{"listed, seen by the caller's sidecar", nil, []int{404}, Question{Retryable: IfIdempotent, Status: 404, CallerRetries: true}, CallerRetries},
		{"not listed", []Condition{ConnectFailure}, []int{503}, Question{Retryable: IfIdempotent, Status: 404, Idempotent: true}, NotConfigured},
		{"no answer", nil, []int{503}, Question{Retryable: IfIdempotent, Condition: Reset, Idempotent: true}, NotConfigured},
		{"refused stream, POST", []Condition{RefusedStream}, nil, Question{Retryable: IfUnsent, Condition: Reset, Refused: true}, Again},
		{"reset is no refusal", []Condition{RefusedStream}, nil, Question{Retryable: IfIdempotent, Condition: Reset, Idempotent: true}, NotConfigured},
		{"rate limited, POST", []Condition{RateLimited}, nil, Question{Retryable: IfIdempotent, Status: 429, Limited: true}, Again},
		{"a limit that nobody listens to", []Condition{ServerError}, nil, Question{Retryable: IfIdempotent, Status: 429, Limited: true, Idempotent: true}, NotConfigured},
		{"429 without the field", []Condition{RateLimited}, nil, Question{Retryable: IfIdempotent, Status: 429, Idempotent: true}, NotConfigured},
	} {
		cfg := Default()
		cfg.On, cfg.Statuses = c.on, c.list
		c.q.Attempt, c.q.BodyReplayable = 1, true
		if got := cfg.Decide(c.q, nil, time.Second, 7).Why; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestStatusList: what is no failure, and what is there twice, is refused.
func TestStatusList(t *testing.T) {
	cfg := Default()
	cfg.Statuses = []int{503, 200, 600, 503, 400, 599}
	got := map[string]string{}
	cfg.Validate(func(field, problem string) { got[field] = problem })
	if len(got) != 3 || got["statuses[1]"] == "" || got["statuses[2]"] == "" || got["statuses[3]"] == "" {
		t.Errorf("%v", got)
	}
	if !cfg.Asks(400, false) || cfg.Asks(404, true) {
		t.Error("other statuses are asked for")
	}
}
