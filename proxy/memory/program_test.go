package memory

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// fileBacked is how much of this process the system has from files, in kB.
func fileBacked(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no proc file system: ", err)
	}
	_, rest, _ := strings.Cut(string(b), "RssFile:")
	rest, _, _ = strings.Cut(rest, "kB")
	n, err := strconv.Atoi(strings.TrimSpace(rest))
	if err != nil {
		t.Skip("the system does not say: ", err)
	}
	return n
}

// The program goes on without the code that it was asked to let go of, and is
// smaller by what it does not need.
func TestUnload(t *testing.T) {
	before := fileBacked(t)
	for range 3 {
		unload()
	}
	if after := fileBacked(t); after >= before {
		t.Errorf("%d kB from files, %d before", after, before)
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		line string
		from uintptr
		size uintptr
		ok   bool
	}{
		{"00400000-00e52000 r-xp 00000000 fe:00 12 /opt/out rigger", 0x400000, 0xa52000, true},
		{"00400000-00e52000 r-xp 00000000 fe:00 12 /opt/other", 0, 0, false},
		{"00e52000-01e52000 r--p 00a52000 fe:00 12 /opt/out rigger", 0, 0, false}, // it may have been written to
		{"01e52000-02e52000 rw-p 01a52000 fe:00 12 /opt/out rigger", 0, 0, false},
		{"00400000-00e52000 r-xs 00000000 fe:00 12 /opt/out rigger", 0, 0, false},
		{"7ffc-7fff r-xp 00000000 00:00 0", 0, 0, false},
		{"zz-00e52000 r-xp 00000000 fe:00 12 /opt/out rigger", 0, 0, false},
		{"00e52000-00400000 r-xp 00000000 fe:00 12 /opt/out rigger", 0, 0, false},
		{"", 0, 0, false},
	} {
		if from, size, ok := codeOf(c.line, "/opt/out rigger"); from != c.from || size != c.size || ok != c.ok {
			t.Errorf("%q: %x %x %v", c.line, from, size, ok)
		}
	}
}

// Code is let go of from trim on, and not at every look.
func TestCodeIsLetGoFromTrimOn(t *testing.T) {
	b := newBed()
	b.use(50)
	if b.unloaded != 0 {
		t.Errorf("%d times with room", b.unloaded)
	}
	for range int(2 * unloadEvery / readEvery) {
		b.use(80)
	}
	if b.unloaded != 2 {
		t.Errorf("%d times in %s", b.unloaded, 2*unloadEvery)
	}
}
