package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/bench/report"
)

func goVersion() string { return runtime.Version() }

// describeMachine reads what the report says about this machine.
func describeMachine(now time.Time) report.Machine {
	m := report.Machine{Cores: runtime.NumCPU(), Arch: runtime.GOARCH, Go: goVersion(), Versions: make(map[string]string), Date: now.UTC().Truncate(time.Second)}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = procField(text, "model name")
	}
	if m.CPU == "" {
		m.CPU = "unknown CPU"
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if kb, err := strconv.Atoi(strings.TrimSuffix(procField(text, "MemTotal"), " kB")); err == nil {
			m.MemoryMB = kb >> 10
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if first, _, ok := strings.Cut(string(text), " "); ok {
			m.Load1, _ = strconv.ParseFloat(first, 64) // 0 when it cannot be read
		}
	}
	return m
}

// procField is the value of the first `name: value` line.
func procField(text []byte, name string) string {
	for line := range bytes.Lines(text) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if ok && string(bytes.TrimSpace(key)) == name {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

// cpuTicks are the ticks of all cores together: in all, spent by processes in
// user and system mode, and stolen by the hypervisor. Interrupts are left out:
// some kernels account them to the process that they interrupt, some do not.
// own is what this process and the children that it has waited for have used.
type cpuTicks struct {
	all, busy, steal uint64
	own              time.Duration
}

// parseTicks reads the first line of /proc/stat (proc(5)): user nice system
// idle iowait irq softirq steal, and guest times that user already contains.
func parseTicks(text []byte) (cpuTicks, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 9 || fields[0] != "cpu" {
		return cpuTicks{}, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var t cpuTicks
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return cpuTicks{}, fmt.Errorf("/proc/stat: %w", err)
		}
		t.all += n
		switch i {
		case 0, 1, 2:
			t.busy += n
		case 7:
			t.steal = n
		}
	}
	return t, nil
}

func readTicks() (cpuTicks, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTicks{}, err
	}
	t, err := parseTicks(text)
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		err = errors.Join(err, unix.Getrusage(who, &u))
		t.own += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return t, err
}

// foreignPercent is the share of all CPU time between two readings that went
// to processes other than the benchmark's.
func foreignPercent(from, to cpuTicks) float64 {
	if to.all <= from.all {
		return 0
	}
	const ticksPerSecond = 100 // USER_HZ, on every Linux port that Go supports
	busy := float64(to.busy-from.busy) / ticksPerSecond
	return max(0, 100*(busy-(to.own-from.own).Seconds())*ticksPerSecond/float64(to.all-from.all))
}

// stealPercent is the stolen share between two readings.
func stealPercent(from, to cpuTicks) float64 {
	if to.all <= from.all || to.steal < from.steal {
		return 0
	}
	return 100 * float64(to.steal-from.steal) / float64(to.all-from.all)
}
