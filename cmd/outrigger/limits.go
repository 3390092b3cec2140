package main

import (
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/internal/cgroup"
)

// ofCgroup is how much of the control group's memory the runtime may plan with:
// the rest is for what it does not count, such as the program itself.
const ofCgroup = 90 // percent

// limits are what the runtime goes by, and why.
type limits struct {
	memory    int64 // bytes; 0 none
	memoryWhy string
	procs     int
	procsWhy  string
	budget    int64 // the memory budget; 0 none
}

// setLimits tells the runtime how much memory it may take: the environment's
// GOMEMLIMIT, else the control group's limit, else what Nomad says of it. A budget
// that is beyond this limit is made that. For processors the runtime looks at the
// control group itself, since Go 1.25.
func setLimits(budget int64) limits {
	group, file := cgroup.MemoryLimit(os.DirFS("/"))
	if group == 0 {
		group, file = nomadLimit(os.Getenv)
	}
	l := chooseLimits(budget, group, file, os.Getenv("GOMEMLIMIT"), os.Getenv("GOMAXPROCS"), runtime.GOMAXPROCS(0), runtime.NumCPU())
	if l.memory > 0 && os.Getenv("GOMEMLIMIT") == "" && l.budget == 0 {
		debug.SetMemoryLimit(l.memory)
	}
	if l.memory == 0 {
		if n := debug.SetMemoryLimit(-1); n < math.MaxInt64 {
			l.memory = n // as the environment says
		}
	}
	return l
}

// nomadLimit is the limit of a task of Nomad's and the variable that says so: a
// task with driver exec has a control group, but does not see it.
func nomadLimit(getenv func(string) string) (limit int64, from string) {
	for _, name := range []string{"NOMAD_MEMORY_MAX_LIMIT", "NOMAD_MEMORY_LIMIT"} {
		if n, err := strconv.ParseInt(getenv(name), 10, 32); err == nil && n > 0 {
			return n << 20, name
		}
	}
	return 0, ""
}

func chooseLimits(budget, group int64, file, envMemory, envProcs string, procs, cpus int) limits {
	l := limits{budget: budget, procs: procs}
	if group > 0 && budget > group {
		l.budget = group
	}
	share := group / 100 * ofCgroup
	switch {
	case l.budget > 0 && l.budget < budget:
		l.memory, l.memoryWhy = l.budget, "memory budget, lowered to "+file
	case l.budget > 0:
		l.memory, l.memoryWhy = l.budget, "memory budget"
	case envMemory != "":
		l.memoryWhy = "GOMEMLIMIT"
	case group > 0:
		l.memory, l.memoryWhy = share, file
	default:
		l.memoryWhy = "no limit found"
	}
	switch {
	case envProcs != "":
		l.procsWhy = "GOMAXPROCS"
	case procs < cpus:
		l.procsWhy = "CPU quota of the control group"
	default:
		l.procsWhy = "processors of the machine"
	}
	return l
}

func (l limits) log(log *slog.Logger) {
	args := []any{"event", "limits", "memory_limit", l.memory, "memory_from", l.memoryWhy, "processors", l.procs, "processors_from", l.procsWhy}
	if strings.HasPrefix(l.memoryWhy, "memory budget,") {
		log.Warn("the memory budget is more than the control group allows", args...)
		return
	}
	log.Info("limits", args...)
}
