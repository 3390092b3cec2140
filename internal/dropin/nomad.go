package dropin

import (
	"path/filepath"
	"strings"
	"time"
)

// nomadGrace is within what Nomad gives a task between the signal and its end
// where kill_timeout is not set: five seconds. The group's services are
// deregistered before, and its applications have ended.
const nomadGrace = 4 * time.Second

// inAllocation completes what a bootstrap file of Nomad's leaves open. Its paths
// begin at the root of the allocation, which is the root of a container and of a
// task with driver exec, and is elsewhere with raw_exec; NOMAD_ALLOC_DIR says
// where. And it has no listener for readiness, whose address only the task's
// environment has.
func (in *Invocation) inAllocation(service string, sys System) {
	if path, ok := strings.CutPrefix(in.GRPC, "unix://"); ok && !filepath.IsAbs(path) {
		below, shared := strings.CutPrefix(path, "alloc/")
		if dir := sys.Getenv("NOMAD_ALLOC_DIR"); shared && filepath.IsAbs(dir) {
			path = filepath.Join(dir, below)
		} else if abs, err := filepath.Abs(path); err == nil {
			path = abs // as Envoy has it
		}
		in.GRPC = "unix://" + path
	}
	if in.Ready == "" && service != "" {
		in.Ready = sys.Getenv(nomadVariable("NOMAD_ENVOY_READY_ADDR_" + service))
	}
}

// nomadVariable is a name as Nomad makes one of a variable of the environment.
func nomadVariable(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case c == '_', c == '.', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		default:
			b[i] = '_'
		}
	}
	return string(b)
}
