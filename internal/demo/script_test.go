package demo

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// play asks every 50 ms, as the director does.
func play(s script, until time.Duration) string {
	var b strings.Builder
	for now := time.Duration(0); now <= until; now += 50 * time.Millisecond {
		for _, st := range s.due(now) {
			fmt.Fprintf(&b, "%v %s %d\n", now, st.kind, st.target+1)
		}
	}
	return b.String()
}

func TestScript(t *testing.T) {
	got := play(newScript(0), 95*time.Second)
	want := `4s instance_errs 2
9s instance_recovers 2
12s instance_killed 3
24s instance_restarted 3
44s instance_errs 3
49s instance_recovers 3
52s instance_killed 1
1m4s instance_restarted 1
1m24s instance_errs 1
1m29s instance_recovers 1
1m32s instance_killed 2
`
	if got != want {
		t.Errorf("got\n%s", got)
	}
	if got := play(newScript(20*time.Second), 20*time.Second); got != strings.Join(strings.SplitAfter(want, "\n")[:3], "") {
		t.Errorf("20s:\n%s", got)
	}
	got = play(newScript(10*time.Second), 10*time.Second)
	want = "2s instance_errs 2\n4.5s instance_recovers 2\n6s instance_killed 3\n"
	if got != want {
		t.Errorf("10s:\n%s", got)
	}
}

// A director that was held up misses nothing.
func TestScriptLate(t *testing.T) {
	s := newScript(0)
	if n := len(s.due(50 * time.Second)); n != 6 {
		t.Errorf("%d steps are due after 50s", n)
	}
	if n := len(s.due(50 * time.Second)); n != 0 {
		t.Errorf("%d steps are due twice", n)
	}
}
