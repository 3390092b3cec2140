package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// newFaultCommand returns "outrigger fault".
func newFaultCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Make failures on purpose in a running proxy, for a time",
		Long: `Have a share of the requests to a service, or of those that others make, delayed,
answered with an error, reset or slowed down, to see what becomes of them. The
proxy's configuration must allow it: faults: {allow: true}.

A fault ends at its time at the latest, and before that when too much else goes
wrong: see --stop-errors and the others. "outrigger fault report" compares what
was before, under and after it.`,
	}
	cmd.AddCommand(newFaultStartCommand(), newFaultStopCommand(), newFaultStatusCommand(), newFaultReportCommand())
	return cmd
}

// faultFlags are what "outrigger fault start" is told.
type faultFlags struct {
	inbound                                                                                  bool
	name, delay, abort, responseRate, requestRate, path, pathPrefix, route, endpoint, reason string
	reset, count, observe, asJSON                                                            bool
	methods, headers, from                                                                   []string
	percent                                                                                  float64
	seed                                                                                     uint64
	lasts                                                                                    time.Duration
	stop                                                                                     fault.Stop
}

func newFaultStartCommand() *cobra.Command {
	var f faultFlags
	cmd := &cobra.Command{
		Use:   "start {SERVICE | --inbound}",
		Short: "Begin a fault",
		Long: `Begin a fault. With SERVICE that upstream seems to fail, behind the retries of this
proxy: the application sees what it would see. With --inbound the own application
seems to fail to those who call it. At least one of --delay, --abort, --reset,
--response-rate and --request-rate says how.

Endpoints keep their good name: no fault counts for outlier detection and the
breaker, unless --count is given.`,
		Example: `  outrigger fault start payments --delay 300ms --percent 20 --for 5m
  outrigger fault start payments --abort 503 --path-prefix /pay --header 'x-test: 1'
  outrigger fault start --inbound --abort UNAVAILABLE --from spiffe://example.org/web --percent 5 --stop-success 90`,
		Args: cobra.MaximumNArgs(1),
	}
	fl, d := cmd.Flags(), fault.DefaultStop()
	fl.BoolVar(&f.inbound, "inbound", false, "the own application seems to fail to its callers")
	fl.StringVar(&f.name, "name", "", "its name in logs and reports (default: fault-N)")
	fl.StringVar(&f.delay, "delay", "", "hold requests: 200ms, 100ms..500ms, or 'exp 200ms' for a mean")
	fl.StringVar(&f.abort, "abort", "", "answer with a status such as 503, or a gRPC code such as UNAVAILABLE")
	fl.BoolVar(&f.reset, "reset", false, "reset the connection, or seem to")
	fl.StringVar(&f.responseRate, "response-rate", "", "pass answers on at a rate such as 64KiB/s")
	fl.StringVar(&f.requestRate, "request-rate", "", "pass requests on at a rate")
	fl.Float64Var(&f.percent, "percent", 100, "the share of requests that meet it")
	fl.Uint64Var(&f.seed, "seed", 0, "draw the same ones each time (0: by chance)")
	fl.StringVar(&f.path, "path", "", "only requests with this path")
	fl.StringVar(&f.pathPrefix, "path-prefix", "", "only requests whose path begins so")
	fl.StringSliceVar(&f.methods, "method", nil, "only requests with this method (may be repeated)")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "only requests with this field, 'name: value', or 'name' for any value (may be repeated)")
	fl.StringSliceVar(&f.from, "from", nil, "only callers with this SPIFFE ID; with * at its end all that begin so; with --inbound")
	fl.StringVar(&f.route, "route", "", "only requests on this route")
	fl.StringVar(&f.endpoint, "endpoint", "", "only attempts at the endpoint with this address")
	fl.DurationVar(&f.lasts, "for", fault.DefaultFor, "how long it lasts, from 1s to 24h")
	fl.BoolVar(&f.count, "count", false, "let it count against endpoints: outlier detection, breaker, balancing")
	fl.StringVar(&f.reason, "reason", "", "a line for those who come across it")
	fl.Float64Var(&f.stop.ErrorsPercent, "stop-errors", d.ErrorsPercent, "stop when more of the requests that met no fault fail, in percent (0: never)")
	fl.Float64Var(&f.stop.SuccessPercent, "stop-success", d.SuccessPercent, "stop when fewer of all requests end well, in percent (0: never)")
	fl.DurationVar(&f.stop.P99, "stop-p99", d.P99, "stop when more than one request in a hundred takes longer (0: never)")
	fl.IntVar(&f.stop.Ejections, "stop-ejections", d.Ejections, "stop when as many endpoints are ejected (0: never)")
	fl.BoolVar(&f.stop.Breaker, "stop-breaker", d.Breaker, "stop when the breaker opens")
	fl.BoolVar(&f.stop.Panic, "stop-panic", d.Panic, "stop when so few endpoints are available that all are used")
	fl.DurationVar(&f.stop.Window, "stop-window", d.Window, "over which time that is looked at")
	fl.Uint64Var(&f.stop.MinRequests, "stop-min-requests", d.MinRequests, "how many requests a share must rest on")
	fl.BoolVar(&f.observe, "observe", false, "only say that it would have been stopped")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON")
	adminFlag(cmd)
	cmd.ValidArgsFunction = completeCluster
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		if (len(args) == 1) == f.inbound {
			return errors.New("give the service that is to seem to fail, or --inbound")
		}
		o, err := f.order(args)
		if err != nil {
			return err
		}
		var v admin.FaultView
		return askFault(cmd, f.asJSON, "/faults/start", o, &v, func() { admin.WriteFaults(cmd.OutOrStdout(), []admin.FaultView{v}, time.Now()) })
	}
	return cmd
}

// order is what is sent: a fault as the configuration has it.
func (f *faultFlags) order(args []string) (*admin.FaultOrder, error) {
	match := map[string]any{}
	put := func(m map[string]any, key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	put(match, "path", f.path)
	put(match, "path_prefix", f.pathPrefix)
	if len(f.methods) > 0 {
		match["methods"] = f.methods
	}
	var headers []map[string]any
	for _, h := range f.headers {
		m, err := headerMatch(h)
		if err != nil {
			return nil, err
		}
		headers = append(headers, m)
	}
	if headers != nil {
		match["headers"] = headers
	}
	inject := map[string]any{"percent": f.percent, "seed": f.seed, "reset": f.reset, "count": f.count}
	put(inject, "delay", f.delay)
	switch a, err := fault.ParseAbort(f.abort); {
	case err != nil:
		return nil, fmt.Errorf("--abort %w", err)
	case a.Status != 0:
		inject["abort"] = a.Status
	default:
		put(inject, "abort_grpc", f.abort)
	}
	put(inject, "response_rate", f.responseRate)
	put(inject, "request_rate", f.requestRate)
	s := &f.stop
	mode := "enforce"
	if f.observe {
		mode = "observe"
	}
	m := map[string]any{
		"match": match, "inject": inject, "for": f.lasts.String(), "inbound": f.inbound,
		"stop": map[string]any{
			"mode": mode, "errors_percent": s.ErrorsPercent, "success_percent": s.SuccessPercent, "p99": s.P99.String(),
			"ejections": s.Ejections, "breaker": s.Breaker, "panic": s.Panic, "window": s.Window.String(), "min_requests": s.MinRequests,
		},
	}
	if len(args) == 1 {
		m["to"] = args[0]
	}
	put(m, "name", f.name)
	put(m, "route", f.route)
	put(m, "endpoint", f.endpoint)
	if len(f.from) > 0 {
		m["from"] = f.from
	}
	b, err := json.Marshal(m)
	return &admin.FaultOrder{Fault: b, Reason: f.reason}, err
}

// headerMatch reads "name: value", or "name" for any value.
func headerMatch(s string) (map[string]any, error) {
	name, value, exact := strings.Cut(s, ":")
	if name = strings.TrimSpace(name); name == "" {
		return nil, fmt.Errorf("--header %q: write 'name: value', or 'name' for any value", s)
	}
	if value = strings.TrimSpace(value); exact && value != "" {
		return map[string]any{"name": name, "exact": value}, nil
	}
	return map[string]any{"name": name, "present": true}, nil
}

func newFaultStopCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:     "stop {NAME | --all}",
		Short:   "End a fault",
		Long:    "End a fault at once. Requests that it holds go on.",
		Example: "  outrigger fault stop fault-1\n  outrigger fault stop --all",
		Args:    cobra.MaximumNArgs(1),
	}
	cmd.Flags().BoolVar(&all, "all", false, "end all that run")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	adminFlag(cmd)
	cmd.ValidArgsFunction = completeFault
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		if (len(args) == 1) == all {
			return errors.New("give the name of a fault, or --all")
		}
		o := admin.FaultStop{All: all}
		if len(args) == 1 {
			o.Name = args[0]
		}
		var list []admin.FaultView
		return askFault(cmd, asJSON, "/faults/stop", &o, &list, func() { admin.WriteFaults(cmd.OutOrStdout(), list, time.Now()) })
	}
	return cmd
}

func newFaultStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List the faults that run, and those that have",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	adminFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var list []admin.FaultView
		return askFault(cmd, asJSON, "/faults", nil, &list, func() { admin.WriteFaults(cmd.OutOrStdout(), list, time.Now()) })
	}
	return cmd
}

func newFaultReportCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "report NAME",
		Short: "Compare what was before, under and after a fault",
		Long: `Compare the minute before a fault with the time of the fault and the minute after
it: requests, success, latencies, retries, ejections and openings of the breaker,
of the cluster that it was made in and of the own service, whose callers may have
felt it.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	adminFlag(cmd)
	cmd.ValidArgsFunction = completeFault
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var v admin.FaultView
		path := "/faults?" + url.Values{"name": {args[0]}}.Encode()
		return askFault(cmd, asJSON, path, nil, &v, func() { admin.WriteFault(cmd.OutOrStdout(), &v, time.Now()) })
	}
	return cmd
}

// askFault sends order, or asks where that is nil, and writes the answer, which
// is read into v.
func askFault(cmd *cobra.Command, asJSON bool, path string, order, v any, write func()) error {
	cmd.SilenceUsage = true
	c, err := newClient(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	if order == nil {
		err = c.get(cmd.Context(), path, v)
	} else {
		err = c.post(cmd.Context(), path, order, v)
	}
	switch {
	case err != nil:
		return err
	case asJSON:
		return writeJSON(cmd.OutOrStdout(), v)
	}
	write()
	return nil
}
