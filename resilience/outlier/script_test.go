package outlier

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// TestScripts runs testdata/*.txt. A file is a sequence of blocks parted by
// blank lines; a block is its commands, a line "----", and their output.
// Lines that begin with # are comments. See machine.run for the commands.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(string(want))
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; run with -update and look at the change\n--- got\n%s--- want\n%s", file, got, want)
			}
		})
	}
}

// runScript returns the script with the output its commands have now.
func runScript(script string) []byte {
	m := newMachine()
	var out bytes.Buffer
	for i, block := range strings.Split(strings.TrimRight(script, "\n"), "\n\n") {
		if i > 0 {
			out.WriteByte('\n')
		}
		var result strings.Builder
		commands := false
		for line := range strings.Lines(block + "\n") {
			line = strings.TrimSpace(line)
			if line == "----" {
				break
			}
			fmt.Fprintln(&out, line)
			if line == "" || line[0] == '#' {
				continue
			}
			commands = true
			if err := m.run(&result, strings.Fields(line)); err != nil {
				fmt.Fprintf(&result, "error in %q: %v\n", line, err)
			}
		}
		if commands {
			fmt.Fprintf(&out, "----\n%s", result.String())
		}
	}
	return out.Bytes()
}

// machine is a Detector with named endpoints and a clock.
type machine struct {
	cfg       Config
	d         *Detector
	now       time.Duration
	known     map[string]*Endpoint
	present   []string
	endpoints []*Endpoint
}

func newMachine() *machine {
	cfg := Default()
	return &machine{cfg: cfg, d: New(cfg), known: map[string]*Endpoint{}}
}

func (m *machine) name(e *Endpoint) string {
	for name, known := range m.known {
		if known == e {
			return name
		}
	}
	return "?"
}

func (m *machine) run(out *strings.Builder, f []string) error {
	args := f[1:]
	if f[0] == "config" { // config KEY=VALUE...
		for _, arg := range args {
			key, value, _ := strings.Cut(arg, "=")
			if err := setKey(&m.cfg, key, value); err != nil {
				return err
			}
		}
		m.d.SetConfig(m.cfg)
		return nil
	}
	if f[0] == "endpoints" { // endpoints NAME...: those present from now on
		m.present, m.endpoints = args, nil
		for _, name := range args {
			if m.known[name] == nil {
				m.known[name] = &Endpoint{}
			}
			m.endpoints = append(m.endpoints, m.known[name])
		}
		return nil
	}
	if f[0] == "metrics" {
		fmt.Fprintf(out, "out %d, cap reached %d\n", m.d.Out(), m.d.CapReached())
		for _, c := range EjectionCauses() {
			if e, w := m.d.Ejections(c), m.d.WouldEject(c); e+w > 0 {
				fmt.Fprintf(out, "%s: ejected %d, would eject %d\n", c, e, w)
			}
		}
		return nil
	}
	if f[0] == "sweep" { // sweep [max]: with the least (default) or the greatest jitter
		r := uint64(0)
		if len(args) > 0 && args[0] == "max" {
			r = math.MaxUint64
		}
		m.sweep(out, r)
		return nil
	}
	if f[0] == "show" && len(args) == 0 {
		args = m.present
	}
	if len(args) == 0 {
		return fmt.Errorf("needs an argument")
	}
	if f[0] == "advance" || f[0] == "run" { // advance DURATION; run also sweeps every tenth of the window
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		end := m.now + d
		if tick := m.cfg.Window / 10; f[0] == "run" && d/tick < 1000 {
			for m.now+tick <= end {
				m.now += tick
				m.sweep(out, 0)
			}
		}
		m.now = end
		return nil
	}
	if f[0] == "result" { // result NAME STATUS|local|ignored [xN]
		return m.result(out, args)
	}
	for _, name := range args {
		e := m.known[name]
		if e == nil {
			return fmt.Errorf("no endpoint %q", name)
		}
		switch f[0] {
		case "show":
			m.show(out, name, e.Evidence(m.now))
		case "recent":
			fmt.Fprintf(out, "%s:", name)
			for _, o := range e.Evidence(m.now).Recent {
				fmt.Fprintf(out, " %s/%d@%s", o.Result, o.Status, o.Age)
			}
			fmt.Fprintln(out)
		case "probe":
			fmt.Fprintf(out, "%s: %t\n", name, e.TryProbe())
		case "release":
			fmt.Fprintf(out, "%s: %t\n", name, m.d.Release(e))
		default:
			return fmt.Errorf("unknown command")
		}
	}
	return nil
}

func (m *machine) result(out *strings.Builder, args []string) error {
	if len(args) < 2 || m.known[args[0]] == nil {
		return fmt.Errorf("needs an endpoint and a result")
	}
	res, status := Success, 0
	switch args[1] {
	case "local":
		res = LocalFailure
	case "ignored":
		res = Ignored
	default:
		var err error
		if status, err = strconv.Atoi(args[1]); err != nil || status < 0 || status > 999 {
			return fmt.Errorf("bad status")
		}
		if status >= 500 {
			res = Failure
		}
	}
	times := 1
	if len(args) > 2 {
		var err error
		if times, err = strconv.Atoi(strings.TrimPrefix(args[2], "x")); err != nil || times > 10_000 {
			return fmt.Errorf("bad count")
		}
	}
	for i := range times {
		if m.d.Observe(m.known[args[0]], m.now, res, uint16(status)) {
			fmt.Fprintf(out, "%s asks for a sweep at result %d\n", args[0], i+1)
		}
	}
	return nil
}

func (m *machine) sweep(out *strings.Builder, r uint64) {
	for _, ev := range m.d.Sweep(m.now, r, m.endpoints) {
		fmt.Fprintf(out, "%s %s %s (%s)", ev.At, m.name(ev.Endpoint), ev.Kind, ev.Cause)
		if ev.Until != 0 {
			fmt.Fprintf(out, " until %s", ev.Until)
		}
		fmt.Fprintln(out)
	}
}

func (m *machine) show(out *strings.Builder, name string, v Evidence) {
	fmt.Fprintf(out, "%s %s (%s) since %s", name, v.State, v.Cause, v.Since)
	if v.Until != 0 {
		fmt.Fprintf(out, " until %s", v.Until)
	}
	fmt.Fprintf(out, ", level %d, ejections %d, window %d/%d, in a row %d+%d", v.Level, v.Ejections, v.Failures, v.Requests, v.Consecutive, v.ConsecutiveLocal)
	for _, mark := range []struct {
		on   bool
		word string
	}{{v.Capped, "capped"}, {v.Probing, "probing"}, {v.Shadow, "shadow"}} {
		if mark.on {
			fmt.Fprintf(out, ", %s", mark.word)
		}
	}
	if v.WouldEject > 0 {
		fmt.Fprintf(out, ", would eject %d", v.WouldEject)
	}
	fmt.Fprintln(out)
}

func setKey(c *Config, key, value string) error {
	n, numErr := strconv.ParseFloat(value, 64)
	d, durErr := time.ParseDuration(value)
	err := numErr
	switch key {
	case "mode":
		return c.Mode.UnmarshalText([]byte(value))
	case "consecutive_failures":
		c.ConsecutiveFailures = uint32(n)
	case "split_origins":
		c.SplitOrigins, err = value == "true", nil
	case "consecutive_local_failures":
		c.ConsecutiveLocalFailures = uint32(n)
	case "window":
		c.Window, err = d, durErr
	case "minimum_requests":
		c.MinimumRequests = uint32(n)
	case "failure_percent":
		c.FailurePercent = n
	case "success_rate_stdev":
		c.SuccessRateStdev = n
	case "success_rate_minimum_endpoints":
		c.SuccessRateMinimumEndpoints = uint32(n)
	case "base_ejection":
		c.BaseEjection, err = d, durErr
	case "max_ejection":
		c.MaxEjection, err = d, durErr
	case "jitter":
		c.Jitter = n
	case "max_ejected_percent":
		c.MaxEjectedPercent = n
	case "keep_endpoints":
		c.KeepEndpoints = uint32(n)
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return err
}

// FuzzScript looks for a sequence of commands that panics or lets out more
// endpoints than the caps allow.
func FuzzScript(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			f.Add(string(b))
		}
	}
	f.Fuzz(func(t *testing.T, script string) {
		if len(script) > 4096 || strings.Count(script, "\n") > 60 {
			return
		}
		m := newMachine()
		var out strings.Builder
		for line := range strings.Lines(script) {
			fields := strings.Fields(line)
			if len(fields) == 0 || len(fields) > 30 {
				continue
			}
			_ = m.run(&out, fields) // an unknown command is no finding
			if fields[0] != "sweep" || m.cfg.Mode == guard.Observe || dupes(m.present) {
				continue
			}
			if n, keep := len(m.present), int(m.cfg.KeepEndpoints); m.d.Out() > max(n-keep, 0) {
				t.Fatalf("%d of %d are out, %d must stay", m.d.Out(), n, keep)
			}
		}
	})
}

func dupes(names []string) bool {
	seen := map[string]bool{}
	for _, n := range names {
		if seen[n] {
			return true
		}
		seen[n] = true
	}
	return false
}
