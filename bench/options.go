package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/report"
)

// options are the flags of a run.
type options struct {
	quick       bool
	scenarios   []string
	subjects    []string
	connections []int
	slices      int
	seconds     float64
	rate        float64
	idle        int // connections in the idle scenario
	size        int // bytes of a response
	accessLog   bool
	profile     bool // of Outrigger, after each scenario
	plan        bool // only say how long it takes
	fetch       bool // peers that are no Debian packages
	proxyCore   int
	loadCore    int
	outrigger   string // its binary; empty: build it
	out         string
	root        string // of the repository
	limit       time.Duration
}

var scenarioNames = []string{
	report.H1Plain, report.MeshHop, report.H2, report.GRPCUnary, report.GRPCStream, report.WebSocket, report.TCP,
	report.MeshGRPC, report.MeshTCP, bodies, endpoints, cores2, guards, report.Latency, report.Idle, report.IdleH2, report.Handshake,
}

// fullOnly are the scenarios that the quick form leaves out unless they are
// asked for.
var fullOnly = []string{cores2, report.MeshTCP, report.IdleH2}

// quickSubjects are those of the quick form: the peers that goals are set
// against.
var quickSubjects = []string{"outrigger", report.Bare, "haproxy", "haproxy-h2", "nginx", "envoy", "nghttpx"}

func parseOptions(args []string, output io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(output)
	fs.Usage = func() {
		fmt.Fprint(output, `Measures Outrigger and its peers in turns on this machine and writes
docs/BENCHMARKS.md, docs/benchmarks-*.svg and bench/results/latest.json.

  go run ./bench [flags]            the full form, about half an hour
  go run ./bench -quick             the quick form, under 5 minutes
  go run ./bench -plan              how long each scenario takes; measures nothing
  go run ./bench load -h            only make load
  go run ./bench origin -h          only serve an origin
  go run ./bench fetch envoy        only fetch a peer, and print its path

`)
		fs.PrintDefaults()
	}
	fs.BoolVar(&o.quick, "quick", false, "fewer and shorter slices, fewer scenarios and subjects, 16 and 64 connections, 1000 idle ones")
	scenarios := fs.String("scenarios", strings.Join(scenarioNames, ","), "which `scenarios` to run")
	subjects := fs.String("subjects", "", "which `subjects` to measure (default: all; quick: "+strings.Join(quickSubjects, ",")+")")
	connections := fs.String("connections", "", "`numbers` of connections in h1-plain and mesh-hop (default 1,16,64,256; quick 16,64)")
	fs.IntVar(&o.slices, "slices", 0, "`number` of slices for each figure (default 5; quick 3)")
	fs.Float64Var(&o.seconds, "seconds", 0, "measured `seconds` of a slice (default 0.75; quick 0.4)")
	fs.Float64Var(&o.rate, "rate", 2000, "`requests` a second in the latency scenario")
	fs.IntVar(&o.idle, "idle", 0, "`number` of idle connections (default 5000; quick 1000)")
	fs.IntVar(&o.size, "size", 1024, "`bytes` of a response's body")
	fs.BoolVar(&o.accessLog, "access-log", false, "switch the access logs of all subjects on, each into a file")
	fs.BoolVar(&o.profile, "profile", false, "take a CPU profile of outrigger in each scenario, after its measured slices; needs Go (default true; quick false)")
	fs.BoolVar(&o.plan, "plan", false, "only print how long the scenarios take")
	fs.BoolVar(&o.fetch, "fetch", true, "fetch or build peers that are no Debian packages, once, into .cache/bench")
	fs.IntVar(&o.proxyCore, "proxy-core", -1, "`core` for the proxies (default: the last allowed one)")
	fs.IntVar(&o.loadCore, "load-core", -1, "`core` for load generator and origin (default: the first allowed one)")
	fs.StringVar(&o.outrigger, "outrigger", "", "`path` of an outrigger binary (default: build ./cmd/outrigger)")
	fs.StringVar(&o.out, "out", "", "`directory` below which the results are written (default: the repository)")
	fs.DurationVar(&o.limit, "limit", 0, "end the run after this `time` with what it has (default 50m; quick 5m)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q: flags only, see -h", fs.Arg(0))
	}
	set := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
	o.defaults(set)

	var errs []error
	o.scenarios = list(*scenarios)
	for _, s := range o.scenarios {
		if !slices.Contains(scenarioNames, s) {
			errs = append(errs, fmt.Errorf("-scenarios: no scenario %q; there are %s", s, strings.Join(scenarioNames, ", ")))
		}
	}
	if *connections != "" {
		o.connections = nil
		for _, text := range list(*connections) {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > 4096 {
				errs = append(errs, fmt.Errorf("-connections: %q is not a number from 1 to 4096", text))
			}
			o.connections = append(o.connections, n)
		}
	}
	if o.subjects = list(*subjects); len(o.subjects) == 0 && o.quick {
		o.subjects = quickSubjects
	}
	if o.quick && !set["scenarios"] {
		o.scenarios = slices.DeleteFunc(o.scenarios, func(s string) bool { return slices.Contains(fullOnly, s) })
	}
	for _, bound := range []struct {
		flag      string
		v, lo, hi float64
	}{
		{"slices", float64(o.slices), 1, 100},
		{"seconds", o.seconds, 0.05, 60},
		{"rate", o.rate, 1, 100000},
		{"idle", float64(o.idle), 1, 7500},
		{"size", float64(o.size), 0, 1 << 24},
		{"limit", o.limit.Minutes(), 0.01, 60},
	} {
		if !(bound.v >= bound.lo && bound.v <= bound.hi) {
			errs = append(errs, fmt.Errorf("-%s: %v is not between %v and %v", bound.flag, bound.v, bound.lo, bound.hi))
		}
	}
	if o.outrigger != "" {
		path, err := filepath.Abs(o.outrigger)
		if err != nil {
			errs = append(errs, err)
		}
		o.outrigger = path
	}
	root, err := findRoot()
	if err != nil {
		errs = append(errs, err)
	}
	o.root = root
	if o.out == "" {
		o.out = root
	}
	return o, errors.Join(errs...)
}

// defaults fills in what was not set, by the form of the run.
func (o *options) defaults(set map[string]bool) {
	form := options{connections: []int{1, 16, 64, 256}, slices: 5, seconds: 0.75, idle: 5000, limit: 50 * time.Minute, profile: true}
	if o.quick {
		form = options{connections: []int{16, 64}, slices: 3, seconds: 0.4, idle: 1000, limit: 5 * time.Minute}
	}
	o.connections = form.connections
	if !set["slices"] {
		o.slices = form.slices
	}
	if !set["seconds"] {
		o.seconds = form.seconds
	}
	if !set["idle"] {
		o.idle = form.idle
	}
	if !set["profile"] {
		o.profile = form.profile
	}
	if !set["limit"] {
		o.limit = form.limit
	}
}

// form is what the report calls this run.
func (o *options) form() string {
	if o.quick {
		return "quick"
	}
	return "full"
}

func (o *options) sliceTime() time.Duration { return time.Duration(o.seconds * float64(time.Second)) }

// latencyTime is the length of a slice in the latency scenario: some of the
// others, since few requests are beyond the last quantile.
func (o *options) latencyTime() time.Duration {
	if o.quick {
		return 2 * o.sliceTime()
	}
	return 4 * o.sliceTime()
}

// warmup comes before the measured time of each slice: connections open,
// handshakes done, pools filled.
func (o *options) warmup() time.Duration {
	return min(o.sliceTime()/5, 300*time.Millisecond)
}

func list(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" && !slices.Contains(items, item) {
			items = append(items, item)
		}
	}
	return items
}

// findRoot walks up to the directory of go.mod.
func findRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod in %s or above it: run the benchmark inside the repository", start)
		}
	}
}
