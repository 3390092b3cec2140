package procstat

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCounter counts an event that every kernel has: there may be no counter
// of instructions here.
func TestCounter(t *testing.T) {
	c, err := count([]int{os.Getpid()}, unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_TASK_CLOCK)
	if err != nil {
		t.Skipf("this kernel lets nobody count: %v", err)
	}
	defer c.Close()
	first, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for i := range 20_000_000 {
		sum += i & 7
	}
	second, err := c.Read()
	if err != nil || second <= first || sum == 0 {
		t.Fatalf("%d, then %d, %v", first, second, err)
	}
	c.Close()
	if n, err := c.Read(); n != 0 || err != nil {
		t.Fatalf("a closed counter reads %d, %v", n, err)
	}
}

func TestCountOfNobody(t *testing.T) {
	if _, err := CountInstructions([]int{1 << 30}); err == nil {
		t.Error("a process that does not exist was counted")
	}
	var none *Counter
	none.Close()
	if n, err := none.Read(); n != 0 || err != nil {
		t.Errorf("nil reads %d, %v", n, err)
	}
}

// TestInstructions counts some work where the machine can.
func TestInstructions(t *testing.T) {
	if err := InstructionsOffered(); err != nil {
		t.Skip(err)
	}
	c, err := CountInstructions([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum := 0
	for i := range 1_000_000 {
		sum += i & 7
	}
	if n, err := c.Read(); err != nil || n < 1_000_000 || sum == 0 {
		t.Fatalf("%d instructions, %v", n, err)
	}
}
