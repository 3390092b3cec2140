package procstat

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const nginxStat = "4242 (nginx) S 4241 4241 4241 0 -1 4194624 1021 0 3 0 1234 5678 0 0 20 0 1 0 99 12345 678 18446744073709551615 1 1 0 0 0 0\n"

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, text string
		want       Stat
		wantErr    string
	}{
		{"plain", nginxStat, Stat{4242, 4241, 'S', 12340 * time.Millisecond, 56780 * time.Millisecond}, ""},
		{"name with blanks and parentheses", strings.Replace(nginxStat, "(nginx)", "(a) S 1 (b c)", 1), Stat{4242, 4241, 'S', 12340 * time.Millisecond, 56780 * time.Millisecond}, ""},
		{"zombie", "7 (x) Z 1 0 0 0 -1 0 0 0 0 0 0 0 0 0", Stat{7, 1, 'Z', 0, 0}, ""},
		{"empty", "", Stat{}, "no command name"},
		{"parentheses the wrong way round", "1 )x( S", Stat{}, "no command name"},
		{"short", "7 (x) S 1 0 0", Stat{}, "too few fields"},
		{"pid", "x (x) S 1 0 0 0 -1 0 0 0 0 0 0 0 0 0", Stat{}, "bad pid"},
		{"parent", "7 (x) S ? 0 0 0 -1 0 0 0 0 0 0 0 0 0", Stat{}, "bad parent"},
		{"time", "7 (x) S 1 0 0 0 -1 0 0 0 0 0 1 -2 0 0", Stat{}, "bad CPU time"},
		{"huge time", "7 (x) S 1 0 0 0 -1 0 0 0 0 0 9223372036854775807 0 0 0", Stat{}, "bad CPU time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseStat([]byte(tt.text))
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Fatalf("error %v, want %q", err, tt.wantErr)
			}
			if got != tt.want {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(nginxStat))
	f.Add([]byte("1 (a) (b) R 0 0 0 0 0 0 0 0 0 0 1 1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := ParseStat(text); err == nil && (s.User < 0 || s.System < 0) {
			t.Fatalf("negative time in %+v", s)
		}
	})
}

func TestParseRollup(t *testing.T) {
	const head = "55d0-7ffd ---p 00000000 00:00 0    [rollup]\n"
	for text, want := range map[string]int64{
		head + "Rss:                1234 kB\nPss:  77 kB\n": 1234 << 10,
		head + "Rss: 0 kB\n":         0,
		head + "Pss:  77 kB\n":       -1,
		head + "Rss: 12 MB\n":        -1,
		head + "Rss: many kB\n":      -1,
		"":                           -1,
		"AnonRss: 3 kB\nRss: 4 kB\n": 4 << 10,
	} {
		got, err := parseRollup([]byte(text))
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestDescend(t *testing.T) {
	alive := map[int]bool{1: true, 10: true, 11: true, 12: true, 20: true}
	children := map[int][]int{1: {10, 20}, 10: {11}, 11: {12, 99}, 20: {20}}
	for _, tt := range []struct{ roots, want []int }{
		{[]int{10}, []int{10, 11, 12}},
		{[]int{20, 11}, []int{11, 12, 20}},
		{[]int{10, 11}, []int{10, 11, 12}}, // a root inside another tree counts once
		{[]int{99}, nil},
		{nil, nil},
	} {
		if got := descend(tt.roots, alive, children); !slices.Equal(got, tt.want) {
			t.Errorf("%v: got %v, want %v", tt.roots, got, tt.want)
		}
	}
}

// TestRealProcess burns CPU time in a shell and finds it in the accounts.
func TestRealProcess(t *testing.T) {
	cmd := exec.Command("sh", "-c", `i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo done; cat`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		cmd.Wait()
	}()
	if _, err := stdout.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	tree, err := Tree(cmd.Process.Pid)
	if err != nil || len(tree) == 0 || tree[0] != cmd.Process.Pid {
		t.Fatalf("tree %v, %v", tree, err)
	}
	cpu, err := CPU(cmd.Process.Pid)
	if err != nil || cpu <= 0 {
		t.Fatalf("CPU %v, %v", cpu, err)
	}
	// Both sources account the same; /proc rounds down to ticks and is read later.
	s, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if low := cpu - 2*time.Second/ticksPerSecond; s.User+s.System < low {
		t.Fatalf("/proc/PID/stat says %v, the CPU clock %v", s.User+s.System, cpu)
	}
	if rss, err := TreeRSS(tree); err != nil || rss < 100<<10 {
		t.Fatalf("RSS %d, %v", rss, err)
	}
	if sum, err := TreeCPU([]int{cmd.Process.Pid, os.Getpid()}); err != nil || sum <= cpu {
		t.Fatalf("sum %v with this process, %v without; %v", sum, cpu, err)
	}
}

func TestNoSuchProcess(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if _, err := CPU(pid); err == nil {
		t.Error("CPU of an ended process")
	}
	if _, err := RSS(pid); err == nil {
		t.Error("RSS of an ended process")
	}
	if tree, err := Tree(pid); err != nil || len(tree) != 0 {
		t.Errorf("tree of an ended process: %v, %v", tree, err)
	}
}
