package health

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

const middle = 1 << 63 // the random word for half of everything

// causes are results as one character each.
var causes = map[rune]Result{
	'+': {}, '-': {Cause: Connect, Detail: "refused"}, '0': {Cause: NotServing}, '?': {Cause: Local},
}

// TestStates: results as they come, and after each what the endpoint is and
// how long it is to the next check.
func TestStates(t *testing.T) {
	cfg := Default()
	cfg.Jitter = 0
	for name, c := range map[string]struct{ results, states, pauses string }{
		"first decides":                 {"+", "H", "5s"},
		"first decides against":         {"-", "U", "1s"},
		"own shortage decides nothing":  {"??+", "??H", "1s 1s 5s"},
		"one failure is no verdict":     {"+-+-+", "HHHHH", "5s 1s 5s 1s 5s"},
		"three in a row are":            {"+---", "HHHU", "5s 1s 1s 1s"},
		"two of three are not":          {"+--+--", "HHHHHH", "5s 1s 1s 5s 1s 1s"},
		"its own word at once":          {"+0", "HU", "5s 1s"},
		"two passes bring it back":      {"-++", "UUH", "1s 1s 5s"},
		"one does not":                  {"-+-+-", "UUUUU", "1s 1s 2s 1s 2s"},
		"ever later while it is down":   {"-----", "UUUUU", "1s 2s 4s 5s 5s"},
		"own shortage does not disturb": {"+--?-", "HHHHU", "5s 1s 1s 1s 1s"},
		"nor bring it back":             {"-+?+", "UUUH", "1s 1s 1s 5s"},
		"not serving while down":        {"-00", "UUU", "1s 2s 4s"},
	} {
		var e Endpoint
		e.Start(&cfg, 0, 0)
		var states, pauses []string
		now := time.Duration(0)
		for _, r := range c.results {
			before := e.State()
			if changed := e.Observe(&cfg, now, middle, causes[r]); changed != (e.State() != before) {
				t.Errorf("%s: changed is %t from %s to %s", name, changed, before, e.State())
			}
			states = append(states, map[State]string{Unknown: "?", Healthy: "H", Unhealthy: "U"}[e.State()])
			pauses = append(pauses, (e.Due() - now).String())
			now = e.Due()
		}
		if got := strings.Join(states, ""); got != c.states {
			t.Errorf("%s: %s gives %s, want %s", name, c.results, got, c.states)
		}
		if got := strings.Join(pauses, " "); got != c.pauses {
			t.Errorf("%s: %s is checked after %s, want %s", name, c.results, got, c.pauses)
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		initial Initial
		mode    guard.Mode
		results string
		want    bool
	}{
		{InitialHealthy, guard.Enforce, "", true},
		{InitialUnhealthy, guard.Enforce, "", false},
		{InitialUnhealthy, guard.Observe, "", true},
		{InitialUnhealthy, guard.Enforce, "?", false},
		{InitialUnhealthy, guard.Enforce, "+", true},
		{InitialHealthy, guard.Enforce, "-", false},
		{InitialHealthy, guard.Observe, "---", true},
	} {
		cfg := Default()
		cfg.Initial, cfg.Mode = c.initial, c.mode
		var e Endpoint
		e.Start(&cfg, 0, 0)
		for _, r := range c.results {
			e.Observe(&cfg, 0, 0, causes[r])
		}
		if got := e.Fit(&cfg); got != c.want {
			t.Errorf("%+v: fit is %t", c, got)
		}
	}
}

// TestSpread: random words move the first check over the fast interval, and
// each pause by up to its jitter.
func TestSpread(t *testing.T) {
	cfg := Default()
	for r, want := range map[uint64][2]time.Duration{0: {0, 5 * time.Second}, middle: {500 * time.Millisecond, 5500 * time.Millisecond}} {
		var e Endpoint
		e.Start(&cfg, time.Minute, r)
		if got := e.Due() - time.Minute; got != want[0] {
			t.Errorf("first check after %s, want %s", got, want[0])
		}
		e.Observe(&cfg, time.Minute, r, Result{})
		if got := e.Due() - time.Minute; got != want[1] {
			t.Errorf("next check after %s, want %s", got, want[1])
		}
	}
	var e Endpoint
	e.Start(&cfg, 0, math.MaxUint64)
	if e.Due() >= cfg.FastInterval {
		t.Errorf("first check after %s", e.Due())
	}
	e.Observe(&cfg, math.MaxInt64-1, math.MaxUint64, Result{})
	if e.Due() != math.MaxInt64 {
		t.Errorf("due at %d", e.Due())
	}
}

// TestRestart: a check that is made in another way starts its rows anew, but
// not the endpoint.
func TestRestart(t *testing.T) {
	cfg := Default()
	var e Endpoint
	e.Start(&cfg, 0, 0)
	for _, r := range "+--" {
		e.Observe(&cfg, 0, 0, causes[r])
	}
	e.Restart(&cfg, time.Hour, middle)
	if s := e.Snapshot(); s.State != Healthy || s.Against != 0 || s.Due != time.Hour+500*time.Millisecond {
		t.Errorf("%+v", s)
	}
	e.Observe(&cfg, 0, 0, causes['-'])
	if e.State() != Healthy {
		t.Error("rows of the old check count")
	}
	e.Start(&cfg, 0, 0)
	if e.State() != Unknown {
		t.Error("not started anew")
	}
}

func TestSnapshot(t *testing.T) {
	cfg := Default()
	cfg.Jitter = 0
	var e Endpoint
	e.Start(&cfg, 0, 0)
	for i, r := range "+---+?" {
		e.Observe(&cfg, time.Duration(i)*time.Second, 0, causes[r])
	}
	want := Snapshot{
		State: Unhealthy, Since: 3 * time.Second, Cause: causes['-'], Last: causes['?'], At: 5 * time.Second, Due: 6 * time.Second,
		Against: 1, Checks: 6, Changes: 2,
	}
	if got := e.Snapshot(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
