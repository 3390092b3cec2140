package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/config/lint"
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/discovery/dns"
	"github.com/outrigger-mesh/outrigger/discovery/file"
)

// lintFound is the exit code when there are findings.
const lintFound = 2

// lintFlags are those of "outrigger lint".
type lintFlags struct {
	failOn   string
	replicas []string
	catalogs bool
	wait     time.Duration
	json     bool
}

// newLintCommand returns "outrigger lint".
func newLintCommand() *cobra.Command {
	var f lintFlags
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Say where the configurations of a mesh will hurt each other",
		Long: `Look at the configuration files of a mesh together and say what will hurt, or do
nothing: attempts that multiply along the calls, callers that give up before those
they call, methods tried again that must not be, limits whose sum is above what
the callee takes, ejection that can empty a small pool, guards that can never act,
callers that no rule lets in. Each finding names its place and what to do.

How many instances a service has is asked of the catalogs that the files name,
Consul among them (--catalogs), or told by --replicas; what depends on it is left
out for services of which it is not known.

The exit code is 0 without findings of at least --fail-on, 2 with some, and 1 when
a file is not valid or a catalog does not answer.`,
		Example: `  outrigger lint web.yaml api.yaml --replicas api=3
  outrigger lint --catalogs --fail-on error mesh/*.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			cmd.SilenceUsage = true
			return f.run(cmd.Context(), cmd.OutOrStdout(), files)
		},
	}
	cmd.Flags().StringVar(&f.failOn, "fail-on", "warning", "the least severity that makes the exit code 2: note, warning or error")
	cmd.Flags().StringArrayVar(&f.replicas, "replicas", nil, "SERVICE=N: how many instances a service has")
	cmd.Flags().BoolVar(&f.catalogs, "catalogs", false, "ask the catalogs that the files name how many instances there are")
	cmd.Flags().DurationVar(&f.wait, "wait", 10*time.Second, "how long a catalog may take to answer")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func (f *lintFlags) run(ctx context.Context, out io.Writer, files []string) error {
	least, err := lint.ParseSeverity(f.failOn)
	if err != nil {
		return fmt.Errorf("--fail-on: %w", err)
	}
	m := lint.Mesh{Instances: map[string]int{}}
	for _, file := range files {
		l, err := config.Load(file)
		if err != nil {
			return err
		}
		m.Configs = append(m.Configs, l)
	}
	if f.catalogs {
		for _, l := range m.Configs {
			if err := f.count(ctx, l, m.Instances); err != nil {
				return err
			}
		}
	}
	for _, r := range f.replicas {
		name, number, ok := strings.Cut(r, "=")
		n, err := strconv.Atoi(number)
		if !ok || name == "" || err != nil || n < 0 {
			return fmt.Errorf("--replicas %q: write SERVICE=N", r)
		}
		m.Instances[name] = n
	}
	return report(out, lint.Run(m), least, f.json)
}

// report prints the findings, and returns an error with an exit code of its own if
// one is as severe as least.
func report(out io.Writer, list []lint.Finding, least lint.Severity, asJSON bool) error {
	bad := 0
	for i := range list {
		if list[i].Severity >= least {
			bad++
		}
		if !asJSON {
			fmt.Fprintln(out, list[i].String())
		}
	}
	if asJSON {
		if list == nil {
			list = []lint.Finding{}
		}
		if err := writeJSON(out, list); err != nil {
			return err
		}
	}
	if bad > 0 {
		return &exitCode{lintFound, fmt.Errorf("%s of severity %s or above", count(bad, "finding"), least)}
	}
	return nil
}

// count asks the catalog of one configuration about the services that it calls,
// and about its own.
func (f *lintFlags) count(ctx context.Context, l *config.Loaded, into map[string]int) error {
	var source discovery.Source
	var err error
	switch d := &l.Config.Discovery; {
	case d.Consul != nil:
		source, err = consul.New(*d.Consul)
	case d.File != nil:
		source, err = file.New(*d.File)
	case d.DNS != nil:
		source, err = dns.New(*d.DNS)
	default:
		return nil
	}
	if err != nil {
		return l.Problem("discovery", err.Error())
	}
	names := append(l.Config.Services(), l.Config.Service.Name)
	slices.Sort(names)
	names = slices.Compact(names)
	ctx, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	s := &counting{left: map[string]bool{}, found: map[string]int{}, done: cancel}
	for _, n := range names {
		s.left[n] = true
	}
	if err := source.Run(ctx, names, s); err != nil {
		return l.Problem("discovery", err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(into, s.found)
	if len(s.left) > 0 {
		missing := slices.Sorted(maps.Keys(s.left))
		return l.Problem("discovery", fmt.Sprintf("the catalog did not say within %s how many instances there are of %s: %v; --wait gives it more time", f.wait, strings.Join(missing, ", "), errors.Join(s.errs...)))
	}
	return nil
}

// counting hears each service once.
type counting struct {
	mu    sync.Mutex
	left  map[string]bool
	found map[string]int
	errs  []error
	done  func()
}

// Update implements discovery.Sink.
func (c *counting) Update(svc *discovery.Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found[svc.Name] = len(svc.Endpoints)
	delete(c.left, svc.Name)
	if len(c.left) == 0 {
		c.done()
	}
}

// Fail implements discovery.Sink.
func (c *counting) Fail(service string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) < 10 {
		c.errs = append(c.errs, fmt.Errorf("%s: %w", service, err))
	}
}
