package testkit

import (
	"testing"
	"time"
)

// Patience is how long tests wait for what should take no time at all on a machine
// with nothing else to do.
const Patience = 20 * time.Second

// Eventually waits until holds reports true. It is for what tells nobody that it has
// come to be: another process, the kernel, a counter.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	EventuallyWithin(t, Patience, what, func() (bool, string) { return holds(), "" })
}

// EventuallyWithin is Eventually with a bound of its own. The text that check returns
// tells how things stand, for the failure.
func EventuallyWithin(t testing.TB, d time.Duration, what string, check func() (bool, string)) {
	t.Helper()
	pause := 100 * time.Microsecond
	for end := time.Now().Add(d); ; {
		// What comes to be while the test has no processor is no failure.
		late := time.Now().After(end)
		ok, state := check()
		switch {
		case ok:
			return
		case late && state != "":
			t.Fatalf("not within %v: %s; %s", d, what, state)
		case late:
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(pause)
		pause = min(2*pause, 20*time.Millisecond)
	}
}
