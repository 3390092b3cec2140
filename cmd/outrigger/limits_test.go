package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
)

func TestChooseLimits(t *testing.T) {
	const file = "/sys/fs/cgroup/memory.max"
	for name, c := range map[string]struct {
		budget, group         int64
		envMemory, envProcs   string
		procs                 int
		memory, budgetInForce int64
		memoryWhy, procsWhy   string
	}{
		"nothing":                 {procs: 8, memoryWhy: "no limit found", procsWhy: "processors of the machine"},
		"cgroup":                  {group: 100 << 20, procs: 8, memory: 90 << 20, memoryWhy: file, procsWhy: "processors of the machine"},
		"CPU quota":               {procs: 2, memoryWhy: "no limit found", procsWhy: "CPU quota of the control group"},
		"environment":             {group: 100 << 20, envMemory: "64MiB", envProcs: "3", procs: 3, memoryWhy: "GOMEMLIMIT", procsWhy: "GOMAXPROCS"},
		"budget":                  {budget: 48 << 20, group: 100 << 20, envMemory: "64MiB", procs: 8, memory: 48 << 20, budgetInForce: 48 << 20, memoryWhy: "memory budget", procsWhy: "processors of the machine"},
		"budget beyond the group": {budget: 200 << 20, group: 100 << 20, procs: 8, memory: 100 << 20, budgetInForce: 100 << 20, memoryWhy: "memory budget, lowered to " + file, procsWhy: "processors of the machine"},
	} {
		t.Run(name, func(t *testing.T) {
			f := ""
			if c.group > 0 {
				f = file
			}
			want := limits{memory: c.memory, memoryWhy: c.memoryWhy, procs: c.procs, procsWhy: c.procsWhy, budget: c.budgetInForce}
			if got := chooseLimits(c.budget, c.group, f, c.envMemory, c.envProcs, c.procs, 8); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// A task of Nomad's that cannot see its control group has its limits in variables.
func TestLimitOfATaskOfNomads(t *testing.T) {
	for _, c := range []struct {
		limit, most string
		want        string
	}{
		{"", "", "0 "},
		{"64", "", "67108864 NOMAD_MEMORY_LIMIT"},
		{"64", "128", "134217728 NOMAD_MEMORY_MAX_LIMIT"}, // the limit is a reservation then
		{"64", "-1", "67108864 NOMAD_MEMORY_LIMIT"},       // any amount is allowed: at least plan with what is reserved
		{"64MB", "99999999999", "0 "},
	} {
		env := map[string]string{"NOMAD_MEMORY_LIMIT": c.limit, "NOMAD_MEMORY_MAX_LIMIT": c.most}
		n, from := nomadLimit(func(name string) string { return env[name] })
		if got := fmt.Sprint(n, " ", from); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// The runtime looks at the CPU quota of the control group itself unless it is
// told not to; go.mod could.
func TestTheRuntimeFollowsTheCPUQuota(t *testing.T) {
	if n, most := runtime.GOMAXPROCS(0), runtime.NumCPU(); n > most {
		t.Errorf("%d processors of %d", n, most)
	}
}

func TestLimitsAreLogged(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	chooseLimits(0, 100<<20, "/sys/fs/cgroup/memory.max", "", "", 2, 8).log(log)
	chooseLimits(200<<20, 100<<20, "/sys/fs/cgroup/memory.max", "", "", 2, 8).log(log)
	for _, part := range []string{
		"level=INFO", "memory_limit=94371840 memory_from=/sys/fs/cgroup/memory.max processors=2", `processors_from="CPU quota of the control group"`,
		"level=WARN", "memory_limit=104857600",
	} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("%q is missing from\n%s", part, b.String())
		}
	}
}
