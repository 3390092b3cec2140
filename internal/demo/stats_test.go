package demo

import (
	"testing"
	"time"
)

func TestStatsWindow(t *testing.T) {
	var s stats
	// 10 a second for 30 s, every tenth second one fails; retries in second 25.
	for second := range 30 {
		for i := range 10 {
			at := time.Duration(second)*time.Second + time.Duration(i)*100*time.Millisecond
			s.request(at, 5*time.Millisecond, second%10 != 0 || i != 0)
		}
	}
	s.retried(25*time.Second+10*time.Millisecond, 3)

	got := s.window(30*time.Second + 200*time.Millisecond)
	if got.Requests != 100 || got.Failures != 1 || got.Retries != 3 || got.Seconds != 10 {
		t.Errorf("window: %+v", got)
	}
	if got.rate() != 10 || got.success() != 99 {
		t.Errorf("%v a second, %v%%", got.rate(), got.success())
	}
	if got.P50 < 5*time.Millisecond || got.P50 > 6*time.Millisecond {
		t.Errorf("p50 %v", got.P50)
	}
	total := s.total(30 * time.Second)
	if total.Requests != 300 || total.Failures != 3 || total.Retries != 3 || total.rate() != 10 {
		t.Errorf("total: %+v", total)
	}
	// A long silence leaves nothing in the window.
	if quiet := s.window(2 * time.Minute); quiet.Requests != 0 || quiet.rate() != 0 || quiet.success() != 100 {
		t.Errorf("after a silence: %+v", quiet)
	}
}

func TestStatsBeginning(t *testing.T) {
	var s stats
	s.request(500*time.Millisecond, time.Millisecond, true)
	if w := s.window(900 * time.Millisecond); w.Requests != 0 || w.rate() != 0 {
		t.Errorf("within the first second: %+v", w)
	}
	if w := s.window(1100 * time.Millisecond); w.Requests != 1 || w.rate() != 1 {
		t.Errorf("after it: %+v", w)
	}
}

// What comes too late for the ring counts in the total only, and a time before
// the beginning does no harm.
func TestStatsLate(t *testing.T) {
	var s stats
	s.request(20*time.Second, time.Millisecond, true)
	s.retried(9*time.Second, 7)
	s.retried(-time.Second, 1)
	if w := s.window(21 * time.Second); w.Requests != 1 || w.Retries != 0 {
		t.Errorf("window: %+v", w)
	}
	if got := s.total(21 * time.Second); got.Retries != 8 {
		t.Errorf("total: %+v", got)
	}
	s.skipped()
	if s.unsent() != 1 {
		t.Errorf("%d not sent", s.unsent())
	}
}
