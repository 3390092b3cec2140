// Package procstat reads what the operating system accounts to processes: CPU time and resident memory of a whole process tree.
package procstat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is USER_HZ, the unit of utime and stime in /proc/PID/stat:
// 100 on every Linux port that Go supports.
const ticksPerSecond = 100

// Stat is the part of /proc/PID/stat (proc(5)) that accounting needs.
type Stat struct {
	PID, Parent  int
	State        byte          // 'Z' is a zombie
	User, System time.Duration // of all threads, ended ones too; in steps of 10 ms
}

// ParseStat reads the text of /proc/PID/stat. The command name may hold
// blanks and parentheses; it ends at the last closing one.
func ParseStat(text []byte) (Stat, error) {
	bad := func(what string) (Stat, error) {
		return Stat{}, fmt.Errorf("/proc/PID/stat: %s in %q", what, text)
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return bad("no command name")
	}
	var s Stat
	var err error
	if s.PID, err = strconv.Atoi(string(bytes.TrimSpace(text[:open]))); err != nil {
		return bad("bad pid")
	}
	fields := bytes.Fields(text[end+1:]) // from field 3, state, on
	if len(fields) < 13 || len(fields[0]) != 1 {
		return bad("too few fields")
	}
	s.State = fields[0][0]
	if s.Parent, err = strconv.Atoi(string(fields[1])); err != nil {
		return bad("bad parent pid")
	}
	for _, f := range []struct {
		text []byte
		to   *time.Duration
	}{{fields[11], &s.User}, {fields[12], &s.System}} {
		ticks, err := strconv.ParseInt(string(f.text), 10, 64)
		if err != nil || ticks < 0 || ticks > int64(1<<62)/int64(time.Second) {
			return bad("bad CPU time")
		}
		*f.to = time.Duration(ticks) * (time.Second / ticksPerSecond)
	}
	return s, nil
}

func readStat(pid int) (Stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(text)
}

// CPU is the user and system time that a process has used with all its
// threads, ended ones too. It is read from the process's CPU clock in
// nanoseconds (clock_getcpuclockid(3)) and, where the kernel refuses that,
// from /proc/PID/stat in steps of 10 ms.
func CPU(pid int) (time.Duration, error) {
	// The clock's number, as glibc makes it: the inverted pid above three
	// bits, of which 2 (CPUCLOCK_SCHED) asks for time run.
	clock := int32(^pid<<3 | 2)
	var ts unix.Timespec
	err := unix.ClockGettime(clock, &ts)
	if err == nil {
		return time.Duration(ts.Nano()), nil
	}
	s, statErr := readStat(pid)
	if statErr != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, errors.Join(err, statErr))
	}
	return s.User + s.System, nil
}

// TreeCPU is the sum of CPU over the processes.
func TreeCPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		d, err := CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// Tree lists the processes and all their living descendants, in order.
func Tree(roots ...int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := make(map[int][]int)
	alive := make(map[int]bool)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if err != nil || s.State == 'Z' || s.State == 'X' {
			continue // it ended since the directory was read
		}
		alive[pid] = true
		children[s.Parent] = append(children[s.Parent], pid)
	}
	return descend(roots, alive, children), nil
}

func descend(roots []int, alive map[int]bool, children map[int][]int) []int {
	var tree []int
	seen := make(map[int]bool)
	todo := slices.Clone(roots)
	for len(todo) > 0 {
		pid := todo[0]
		todo = todo[1:]
		if seen[pid] || !alive[pid] {
			continue
		}
		seen[pid] = true
		tree = append(tree, pid)
		todo = append(todo, children[pid]...)
	}
	slices.Sort(tree)
	return tree
}

// RSS is the resident memory of a process in bytes: exact from
// /proc/PID/smaps_rollup, or from /proc/PID/statm, which may lag behind by
// some pages a thread, where the kernel has no such file.
func RSS(pid int) (int64, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	if text, err := os.ReadFile(dir + "/smaps_rollup"); err == nil {
		return parseRollup(text)
	}
	text, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return 0, fmt.Errorf("resident memory of process %d: %w", pid, err)
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm: too few fields in %q", pid, text)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/%d/statm: %w", pid, err)
	}
	return pages * int64(os.Getpagesize()), nil
}

func parseRollup(text []byte) (int64, error) {
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(line, []byte("Rss:"))
		if !ok {
			continue
		}
		number, ok := bytes.CutSuffix(bytes.TrimSpace(rest), []byte(" kB"))
		if !ok {
			break
		}
		kb, err := strconv.ParseInt(string(bytes.TrimSpace(number)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("smaps_rollup: %w", err)
		}
		return kb << 10, nil
	}
	return 0, errors.New("smaps_rollup: no line `Rss: N kB`")
}

// TreeRSS is the sum of RSS over the processes. Pages that they share count
// once for each.
func TreeRSS(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		n, err := RSS(pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
