package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/resilience/scenario"
	"github.com/outrigger-mesh/outrigger/resilience/simulate"
)

// exitUnmet is the exit code of a simulation that ran but missed an expectation.
const exitUnmet = 2

// newSimulateCommand returns "outrigger simulate".
func newSimulateCommand() *cobra.Command {
	var policies []string
	var seed uint64
	var asJSON bool
	var chartFile string
	cmd := &cobra.Command{
		Use:   "simulate SCENARIO",
		Short: "Run the machines of a proxy on a described workload",
		Long: `Run the balancing, ejection, breaking, retrying and limiting of a proxy on a
virtual clock against modelled servers: a scenario describes services with their
capacity, the requests that arrive, what goes wrong and when, the policies in the
language of a proxy's configuration, and what is expected (docs/simulate.md).

The policies can be compared with those of other files, each a proxy's
configuration or a file with nothing but policies. The same seed gives the same
result. Nothing is sent anywhere.

The exit code is 0 when all that the scenario expects holds, 2 when something
does not, and 1 when the scenario is wrong.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			s, err := scenario.Load(args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("seed") {
				s.Seed = seed
			}
			if err := addPolicies(s, policies); err != nil {
				return err
			}
			began := time.Now()
			res := simulate.Simulate(s)
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(res)
			} else {
				err = printResult(cmd.OutOrStdout(), res, time.Since(began))
			}
			if err == nil && chartFile != "" {
				err = os.WriteFile(chartFile, res.Chart(), 0o644)
			}
			if err == nil && !res.Met() {
				return &exitCode{exitUnmet, errors.New("not all that was expected came out")}
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&policies, "policy", nil, "compare with the policies in `FILE`; may be repeated")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "the seed, in place of the scenario's")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&chartFile, "chart", "", "write a chart to `FILE`, as SVG")
	return cmd
}

// addPolicies adds a variant for each file.
func addPolicies(s *scenario.Scenario, files []string) error {
	if len(files) > 0 && len(s.Variants) == 0 {
		s.Variants = []scenario.Variant{{Name: "scenario", Policies: s.Policies}}
	}
	for _, file := range files {
		p, err := config.LoadPolicies(file)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		if slices.ContainsFunc(s.Variants, func(v scenario.Variant) bool { return v.Name == name }) {
			return fmt.Errorf("%s: there is a variant %q already; rename the file", file, name)
		}
		named := false
		for service := range p {
			_, ok := s.Services[service]
			named = named || ok || service == config.AnyService
		}
		if !named {
			return fmt.Errorf("%s: has no policy for one of the scenario's services, nor for \"*\"", file)
		}
		s.Variants = append(s.Variants, scenario.Variant{Name: name, Policies: p})
	}
	return nil
}

// printResult writes a table for every service and what was expected.
func printResult(w io.Writer, res *simulate.Result, took time.Duration) error {
	var events, arrived uint64
	for _, r := range res.Runs {
		events, arrived = events+r.Events, arrived+r.Arrived
	}
	if res.Title != "" {
		fmt.Fprintln(w, res.Title)
	}
	fmt.Fprintf(w, "%v simulated, seed %d: %d requests and %d events in %v\n", res.Duration, res.Seed, arrived, events, took.Round(time.Millisecond))
	for i := range res.Runs[0].Services {
		fmt.Fprintln(w)
		if err := printService(w, res, i); err != nil {
			return err
		}
	}
	return printChecks(w, res)
}

func printService(w io.Writer, res *simulate.Result, i int) error {
	rows := [][]cell{head("x -REQUESTS -GOOD -REFUSED -FAILED -ATTEMPTS -MEAN -P50 -P99 -P99.9 -EJECTED -OPENED -WASTED")}
	rows[0][0].text = strings.ToUpper(res.Runs[0].Services[i].Name)
	for _, r := range res.Runs {
		s := &r.Services[i]
		n := &s.Summary
		share := func(k uint64) cell {
			if n.Began == 0 {
				return number("-")
			}
			return number("%.2f%%", float64(k)*100/float64(n.Began))
		}
		name := r.Name
		if name == "" {
			name = "policies"
		}
		attempts := number("-")
		if n.Began > 0 {
			attempts = number("%.2f", float64(n.Attempts)/float64(n.Began))
		}
		rows = append(rows, []cell{
			left(name), number("%d", n.Began), share(n.Good), share(n.Refused), share(n.Failed), attempts,
			latencyCell(n.Mean), latencyCell(n.P50), latencyCell(n.P99), latencyCell(n.P999),
			number("%d", s.Counts.Ejections), number("%d", s.Counts.BreakerOpened), number("%d", s.Work.Wasted),
		})
	}
	return writeTable(w, rows, 0, false)
}

func latencyCell(d time.Duration) cell {
	if d == 0 {
		return number("-")
	}
	return number("%s", millis(float64(d)/float64(time.Millisecond)))
}

func printChecks(w io.Writer, res *simulate.Result) error {
	var rows [][]cell
	for _, r := range res.Runs {
		for _, c := range r.Checks {
			word := "ok"
			if !c.Held {
				word = "NOT MET"
			}
			expected, _, _ := strings.Cut(c.Expected, " in ")
			rows = append(rows, []cell{left(word), left(r.Name), left(expected), left("found " + c.Found)})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return writeTable(w, rows, 0, false)
}
