package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/rerun"
)

// newReplayCommand returns "outrigger replay".
func newReplayCommand() *cobra.Command {
	var log, file, chart, cluster string
	var asJSON bool
	var last time.Duration
	cmd := &cobra.Command{
		Use:   "replay --outcomes FILE [--config NEW.yaml]",
		Short: "Tell what another configuration would have made of recorded traffic",
		Long: `Run the machines of a proxy (balancing, ejection, breaker, retries, limits) again,
on a virtual clock, over an outcome log (telemetry.outcomes): once with the
configurations of the time, to see that what happened is reproduced, and once with
the one given. It compares failures, refusals, load, ejections and latency.

An attempt that was made ends as it did. One that never was, such as a retry that
the other configuration makes, ends as attempts at that endpoint did within five
seconds, else as those of its peers; how many of them there are is said.

Policies under policies.<service>, inbound and routes are obeyed as far as they set
timeout, retry, hedge, outlier, breaker, limits.max_requests and balance. Everything else
ends as it did.`,
		Example: "  outrigger replay --outcomes /var/lib/outrigger/outcomes --config new.yaml --last 1h",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if log == "" {
				return errors.New("say which log: --outcomes FILE")
			}
			cmd.SilenceUsage = true
			var next *config.Loaded
			if file != "" {
				var err error
				if next, err = config.Load(file); err != nil {
					return err
				}
			}
			return replayLog(cmd.OutOrStdout(), log, last, next, replayOptions{json: asJSON, chart: chart, cluster: cluster})
		},
	}
	cmd.Flags().StringVar(&log, "outcomes", "", "the outcome log: the `FILE` of telemetry.outcomes.path")
	cmd.Flags().StringVar(&file, "config", "", "the other configuration; without it only the recorded one is replayed")
	cmd.Flags().StringVar(&cluster, "cluster", "", "tell of this cluster only")
	cmd.Flags().StringVar(&chart, "chart", "", "write a chart of both runs over time to this `FILE.svg`")
	cmd.Flags().DurationVar(&last, "last", 0, "leave out what came longer before the end of the log, such as 1h; 0: nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

type replayOptions struct {
	json           bool
	chart, cluster string
}

// replayLog replays the log at path and writes what comes of it.
func replayLog(out io.Writer, path string, last time.Duration, next *config.Loaded, o replayOptions) error {
	t, err := rerun.Load(path, last)
	if err != nil {
		return err
	}
	begun := time.Now()
	same, err := t.Recorded()
	if err != nil {
		return err
	}
	runs := 1
	var other *rerun.Result
	if next != nil {
		if other, err = t.Under(next); err != nil {
			return err
		}
		runs++
	}
	took := time.Since(begun)
	v := t.Compare(same, other)
	v.TookMs = float64(took) / float64(time.Millisecond)
	v.PerSecond = float64(runs*t.Outcomes()) / took.Seconds()
	if o.cluster != "" {
		kept := v.Clusters[:0]
		for _, c := range v.Clusters {
			if c.Name == o.cluster {
				kept = append(kept, c)
			}
		}
		if v.Clusters = kept; len(kept) == 0 {
			return fmt.Errorf("the log has no requests to a cluster %q", o.cluster)
		}
	}
	if o.chart != "" {
		if err := os.WriteFile(o.chart, t.Chart(same, other, o.cluster), 0o644); err != nil {
			return err
		}
	}
	if o.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return writeReplay(out, t, v)
}

// writeReplay writes a report as text.
func writeReplay(out io.Writer, t *rerun.Trace, v *rerun.Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests in %s from %s; replayed in %s\n", v.Requests, t.Span.Round(time.Millisecond), v.From.Format(time.RFC3339), time.Duration(v.TookMs*float64(time.Millisecond)).Round(time.Millisecond))
	if v.Outside > 0 {
		fmt.Fprintf(&b, "%d more ended by what is not replayed: rules, rate limits, routes, callers\n", v.Outside)
	}
	if t.Damage.Any() {
		fmt.Fprintf(&b, "not all is there: %s\n", t.Damage)
	}
	for i := range v.Clusters {
		c := &v.Clusters[i]
		fmt.Fprintf(&b, "\n%s (%s)\n", c.Name, c.Direction)
		if err := writeTable(&b, replayRows(c), 0, false); err != nil {
			return err
		}
		fmt.Fprintf(&b, "The replay of what was in force differs by %.2f %% of the requests from what happened.\n", c.Off)
		if c.New == nil {
			continue
		}
		n := &c.New.Confidence
		fmt.Fprintf(&b, "Confidence in the new configuration's figures: %s. %.1f %% of the attempts were really made so, %.1f %% end as others at\nthat endpoint did at the time, %.1f %% as others of the cluster did, and %.1f %% are guessed.\n",
			n.Word(), n.Observed, n.Endpoint, n.Peers, n.Guessed)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// replayRows is the table of a cluster.
func replayRows(c *rerun.ClusterReport) [][]cell {
	rows := [][]cell{head("FIGURE -RECORDED -REPLAYED")}
	if c.New != nil {
		rows[0] = append(rows[0], head("-NEW -CHANGE")...)
	}
	var empty rerun.Figures
	next := &empty
	if c.New != nil {
		next = &c.New.Figures
	}
	row := func(name, format string, get func(*rerun.Figures) (float64, bool)) {
		line := []cell{left(name)}
		values := [3]float64{}
		for i, f := range []*rerun.Figures{&c.Recorded, &c.Replayed, next} {
			v, ok := get(f)
			values[i] = v
			switch {
			case i == 2 && c.New == nil:
			case !ok:
				line = append(line, cell{text: "-", right: true})
			default:
				line = append(line, number(format, v))
			}
		}
		if c.New != nil {
			line = append(line, number("%s", difference(values[1], values[2], format)))
		}
		rows = append(rows, line)
	}
	count := func(name string, get func(*rerun.Figures) uint64) {
		row(name, "%.0f", func(f *rerun.Figures) (float64, bool) { return float64(get(f)), true })
	}
	millis := func(name string, get func(*rerun.Figures) float64) {
		row(name, "%.1f", func(f *rerun.Figures) (float64, bool) { return get(f), true })
	}
	count("requests", func(f *rerun.Figures) uint64 { return f.Requests })
	count("answered well", func(f *rerun.Figures) uint64 { return f.Good })
	count("failed for the caller", func(f *rerun.Figures) uint64 { return f.Bad })
	row("  in percent", "%.2f", func(f *rerun.Figures) (float64, bool) { return f.BadPercent(), true })
	count("  refused by the proxy", func(f *rerun.Figures) uint64 { return f.Refused })
	row("  refused though good", "%.0f", func(f *rerun.Figures) (float64, bool) {
		if f.RefusedGood == nil {
			return 0, false
		}
		return float64(*f.RefusedGood), true
	})
	count("attempts", func(f *rerun.Figures) uint64 { return f.Attempts })
	count("  retries", func(f *rerun.Figures) uint64 { return f.Retries })
	count("  hedges", func(f *rerun.Figures) uint64 { return f.Hedges })
	row("  extra load in percent", "%.2f", func(f *rerun.Figures) (float64, bool) { return f.ExtraLoad, true })
	count("ejections", func(f *rerun.Figures) uint64 { return f.Ejections })
	count("  only observed", func(f *rerun.Figures) uint64 { return f.WouldEject })
	count("readmissions", func(f *rerun.Figures) uint64 { return f.Readmissions })
	count("breaker openings", func(f *rerun.Figures) uint64 { return f.BreakerOpened })
	millis("p50 of the good, ms", func(f *rerun.Figures) float64 { return f.P50 })
	millis("p90", func(f *rerun.Figures) float64 { return f.P90 })
	millis("p99", func(f *rerun.Figures) float64 { return f.P99 })
	millis("p99.9", func(f *rerun.Figures) float64 { return f.P999 })
	millis("longest", func(f *rerun.Figures) float64 { return f.Max })
	return rows
}

// difference says how b differs from a, nothing where it does not.
func difference(a, b float64, format string) string {
	if s := fmt.Sprintf(format, b-a); s != fmt.Sprintf(format, 0.0) && s != "-"+fmt.Sprintf(format, 0.0) {
		if b > a {
			s = "+" + s
		}
		return s
	}
	return "="
}
