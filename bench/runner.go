package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/procstat"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// runner is one run of the benchmark.
type runner struct {
	o         *options
	log       io.Writer
	dir       string // everything that the run makes for itself
	spawn     *spawner
	proxyCore int
	loadCore  int
	certs     *certs
	subjects  []subject
	allowed   []int // cores
	// instructions says whether this kernel counts them.
	instructions bool
	started      int // proxies so far
	ports        ports
	report       report.Report
	failed       bool // a subject could not be measured though it is here
}

func (r *runner) say(format string, args ...any) { fmt.Fprintf(r.log, format+"\n", args...) }

// note tells about something left out, now and in the report.
func (r *runner) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.say("!! %s", text)
	line, _, _ := strings.Cut(text, "\n") // logs of processes stay out of the report
	if !slices.Contains(r.report.Notes, line) {
		r.report.Notes = append(r.report.Notes, line)
	}
}

// errFailed says that the results are written but not complete.
var errFailed = errors.New("a subject failed or answered with errors, see above; the rest is measured and written")

// mostForeign is how much of the CPU time, in percent, other processes may take
// before the report warns of it.
const mostForeign = 3

// runBench measures and writes the results. It ends everything it started
// before it returns, also when the context ends; then nothing is written.
func runBench(ctx context.Context, o *options, log io.Writer) error {
	began := time.Now()
	r := &runner{o: o, log: log}
	r.report.Machine = describeMachine(began)
	r.report.Settings = report.Settings{Form: o.form(), Slices: o.slices, SliceSeconds: o.seconds, ResponseSize: o.size, Rate: o.rate, AccessLog: o.accessLog}
	ticks, ticksErr := readTicks()

	err := r.measure(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w; nothing is written", context.Cause(ctx))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		r.note("the time limit of %v was reached; what follows it is missing", o.limit)
		r.failed, err = true, nil
	}
	if err != nil {
		return err
	}
	if now, err := readTicks(); err == nil && ticksErr == nil {
		r.report.Machine.StealPct = stealPercent(ticks, now)
		r.report.Machine.ForeignPct = foreignPercent(ticks, now)
		if r.report.Machine.ForeignPct > mostForeign {
			r.note("other processes took %.0f %% of the CPU time during the run: its figures are noisy, and its latencies not to be relied on", r.report.Machine.ForeignPct)
		}
	}
	r.report.Machine.DurationMS = time.Since(began).Milliseconds()
	if err := r.write(); err != nil {
		return err
	}
	if r.failed || r.report.Errors() > 0 {
		return errFailed
	}
	return nil
}

// measure prepares the ground and runs all scenarios.
func (r *runner) measure(ctx context.Context) error {
	var err error
	if r.dir, err = os.MkdirTemp("", "outrigger-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	if r.certs, err = makeCerts(r.dir, time.Now()); err != nil {
		return err
	}
	allowed, err := cores()
	if err != nil {
		return err
	}
	r.allowed = allowed
	if r.proxyCore, r.loadCore, err = chooseCores(allowed, r.o.proxyCore, r.o.loadCore); err != nil {
		return err
	}
	r.report.Machine.ProxyCore, r.report.Machine.LoadCore = r.proxyCore, r.loadCore
	if err := r.prepare(ctx); err != nil {
		return err
	}
	// Building and fetching may take long the first time; the limit is for
	// what comes after.
	ctx, cancel := context.WithTimeout(ctx, r.o.limit)
	defer cancel()
	if r.proxyCore < 0 {
		r.note("only one core: nothing is pinned, and load generator and origin compete with the proxy")
	} else {
		r.say("proxies on core %d, load generator and origin on core %d", r.proxyCore, r.loadCore)
	}
	if err := pinSelf(r.loadCore); err != nil {
		return err
	}
	defer func() { _ = pinSelf(allowed...) }() // back to where the process was
	if err := procstat.InstructionsOffered(); err != nil {
		r.report.Machine.Instructions = "not counted: " + err.Error()
	} else {
		r.instructions, r.report.Machine.Instructions = true, "counted, user mode"
	}
	r.say("%s", describePlans(r.o.plans(r.subjects)))
	r.spawn = newSpawner()
	go r.spawn.run()
	defer r.spawn.close()
	return r.scenarios(ctx)
}

// prepare finds the wanted subjects and their versions.
func (r *runner) prepare(ctx context.Context) error {
	all := allSubjects(r.o, r.say)
	for _, name := range r.o.subjects {
		if !slices.ContainsFunc(all, func(s subject) bool { return s.name() == name }) {
			return fmt.Errorf("-subjects: no subject %q", name)
		}
	}
	for _, s := range all {
		if len(r.o.subjects) > 0 && !slices.Contains(r.o.subjects, s.name()) {
			continue
		}
		version, err := s.prepare(ctx, r.dir)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.failed = r.failed || !errors.Is(err, errMissing)
			r.note("%s is left out: %v", s.name(), err)
			continue
		}
		r.report.Machine.Versions[s.name()] = version
		r.subjects = append(r.subjects, s)
	}
	if len(r.subjects) == 0 {
		return errors.New("no subject is left to measure")
	}
	return nil
}

// proxyCores are the cores for a proxy that gets n of them: its own first, and
// then others, the load generator's last.
func (r *runner) proxyCores(n int) []int {
	list := []int{r.proxyCore}
	for i := len(r.allowed) - 1; i >= 0 && len(list) < n && r.proxyCore >= 0; i-- {
		if core := r.allowed[i]; core != r.proxyCore && core != r.loadCore {
			list = append(list, core)
		}
	}
	if len(list) < n && r.proxyCore >= 0 {
		list = append(list, r.loadCore)
	}
	return list
}

// startOrigin starts what is behind the proxies of a course.
func (r *runner) startOrigin(ctx context.Context, c *course) (*bed, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	port, err := r.ports.free()
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	p, err := r.spawn.start("origin", r.dir, []string{
		self, "origin", "-listen", at.String(), "-kind", string(c.kind),
		"-size", strconv.Itoa(c.size), "-everywhere=" + strconv.FormatBool(c.endpoints > 1),
	}, r.loadCore)
	if err != nil {
		return nil, err
	}
	b := &bed{name: direct, entry: at, procs: []*process{p}}
	if err := poll(ctx, b.alive, func() error { return r.once(ctx, at, c.config(level{1, 1}), p) }); err != nil {
		b.tearDown()
		return nil, fmt.Errorf("origin: %w", err)
	}
	return b, nil
}

// write puts the results below the output directory.
func (r *runner) write() error {
	text, err := r.report.JSON()
	if err != nil {
		return err
	}
	results := filepath.Join(r.o.out, "bench", "results", "latest.json")
	page := filepath.Join(r.o.out, "docs", "BENCHMARKS.md")
	old, err := os.ReadFile(page)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tables := r.report.Markdown()
	// The results are on disk before anything can be wrong with the page.
	if err := report.WriteFile(results, text); err != nil {
		return err
	}
	profiles := filepath.Join(filepath.Dir(results), "profiles")
	if err := os.RemoveAll(profiles); err != nil { // those of another run
		return err
	}
	for _, p := range r.report.Profiles {
		if err := report.WriteFile(filepath.Join(profiles, p.Scenario+".txt"), p.Text()); err != nil {
			return err
		}
	}
	for _, m := range r.report.Memory {
		if err := report.WriteFile(filepath.Join(profiles, m.Scenario+".txt"), m.Text()); err != nil {
			return err
		}
	}
	charts := r.report.Charts()
	for _, c := range charts {
		if err := report.WriteFile(filepath.Join(filepath.Dir(page), c.File), c.SVG); err != nil {
			return err
		}
	}
	r.say("\n%s", tables)
	spliced, err := report.Splice(old, tables)
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	if err := report.WriteFile(page, spliced); err != nil {
		return err
	}
	r.say("written: %s\n         %s with %d charts beside it", results, page, len(charts))
	return nil
}
