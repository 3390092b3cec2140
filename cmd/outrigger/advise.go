package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/advise"
	"github.com/outrigger-mesh/outrigger/internal/rerun"
)

// newAdviseCommand returns "outrigger advise".
func newAdviseCommand() *cobra.Command {
	var log, file string
	var asJSON, asYAML bool
	var last time.Duration
	cmd := &cobra.Command{
		Use:   "advise --outcomes FILE [--config CURRENT.yaml]",
		Short: "Propose timeouts, retries, limits and ejection from recorded traffic",
		Long: `Propose for each service that is called a timeout, a per-try timeout, attempts and
their budget, a limit on active requests, and when endpoints are ejected, from what an
outcome log (telemetry.outcomes) says: each with its evidence.

Nothing is proposed that a replay of the log shows to be worse than what is in force;
what was tried and found worse is told, with the reason. It starts from the last
configuration in the log, or from the one given.`,
		Example: "  outrigger advise --outcomes /var/lib/outrigger/outcomes --last 24h\n  outrigger advise --outcomes /var/lib/outrigger/outcomes --yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case log == "":
				return errors.New("say which log: --outcomes FILE")
			case asJSON && asYAML:
				return errors.New("give one of --json and --yaml")
			}
			cmd.SilenceUsage = true
			t, err := rerun.Load(log, last)
			if err != nil {
				return err
			}
			var loaded *config.Loaded
			if file != "" {
				loaded, err = config.Load(file)
			} else {
				loaded, err = t.Config()
			}
			if err != nil {
				return err
			}
			v, err := advise.Make(t, loaded)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				enc.SetEscapeHTML(false)
				return enc.Encode(v)
			case asYAML:
				_, err = io.WriteString(out, v.YAML())
				return err
			}
			return writeAdvice(out, t, v)
		},
	}
	cmd.Flags().StringVar(&log, "outcomes", "", "the outcome log: the `FILE` of telemetry.outcomes.path")
	cmd.Flags().StringVar(&file, "config", "", "the configuration to start from; default: the last one in the log")
	cmd.Flags().DurationVar(&last, "last", 0, "leave out what came longer before the end of the log, such as 24h; 0: nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asYAML, "yaml", false, "print only what is proposed, as a part of a configuration")
	return cmd
}

// writeAdvice writes advice as text.
func writeAdvice(out io.Writer, t *rerun.Trace, v *advise.Report) error {
	var b strings.Builder
	if t.Damage.Any() {
		fmt.Fprintf(&b, "not all is there: %s\n\n", t.Damage)
	}
	for _, c := range v.Clusters {
		fmt.Fprintf(&b, "%s: %d requests in %s\n\n", c.Cluster, c.Requests, t.Span.Round(time.Millisecond))
		rows := [][]cell{head("SETTING NOW PROPOSED VERDICT")}
		for i := range c.Advice {
			a := &c.Advice[i]
			tone := ""
			if a.Verdict == advise.Accepted {
				tone = toneGood
			}
			proposed := a.Proposed
			if proposed == "" {
				proposed = "-"
			}
			rows = append(rows, []cell{left(a.Setting), left(a.Now), toned(tone, proposed), left(string(a.Verdict))})
		}
		if err := writeTable(&b, rows, 0, false); err != nil {
			return err
		}
		b.WriteByte('\n')
		for i := range c.Advice {
			a := &c.Advice[i]
			fmt.Fprintf(&b, "%s: %s.", a.Setting, a.Evidence)
			if a.Why != "" {
				fmt.Fprintf(&b, " Rejected: in the replay %s.", a.Why)
			}
			b.WriteByte('\n')
		}
		if err := writeProof(&b, c); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	for _, s := range v.Skipped {
		fmt.Fprintf(&b, "Not enough data: %s.\n", s)
	}
	if len(v.Clusters)+len(v.Skipped) == 0 {
		b.WriteString("Not enough data: the log has no requests to other services.\n")
	}
	if y := v.YAML(); strings.HasPrefix(y, "policies:") {
		b.WriteString("What is proposed, as a part of a configuration:\n\n" + y)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// writeProof writes what the replay made of all that is proposed together.
func writeProof(b *strings.Builder, c *advise.ClusterAdvice) error {
	if c.After == nil {
		b.WriteString("\nNothing is proposed.\n")
		return nil
	}
	rows := [][]cell{head("REPLAYED -BEFORE -AFTER -CHANGE")}
	row := func(name, format string, x, y float64) {
		rows = append(rows, []cell{left(name), number(format, x), number(format, y), number("%s", difference(x, y, format))})
	}
	x, y := c.Before, c.After
	row("failed for the caller", "%.0f", float64(x.Bad), float64(y.Bad))
	row("  in percent", "%.3f", x.BadPercent(), y.BadPercent())
	row("refused though good", "%.0f", float64(*x.RefusedGood), float64(*y.RefusedGood))
	row("attempts", "%.0f", float64(x.Attempts), float64(y.Attempts))
	row("  extra load in percent", "%.2f", x.ExtraLoad, y.ExtraLoad)
	row("ejections", "%.0f", float64(x.Ejections), float64(y.Ejections))
	row("p50 of the good, ms", "%.1f", x.P50, y.P50)
	row("p99", "%.1f", x.P99, y.P99)
	row("p99.9", "%.1f", x.P999, y.P999)
	row("longest", "%.1f", x.Max, y.Max)
	b.WriteByte('\n')
	if err := writeTable(b, rows, 0, false); err != nil {
		return err
	}
	n := c.Confidence
	fmt.Fprintf(b, "Confidence: %s; %.1f %% of the attempts were really made so, %.1f %% are guessed.\n", n.Word(), n.Observed, n.Guessed)
	return nil
}
