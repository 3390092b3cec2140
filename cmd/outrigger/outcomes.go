package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/telemetry/outcomes"
)

// newOutcomesCommand returns "outrigger outcomes".
func newOutcomesCommand() *cobra.Command {
	var asJSON bool
	var last time.Duration
	cmd := &cobra.Command{
		Use:   "outcomes FILE",
		Short: "Print what an outcome log holds",
		Long: `Print the records of an outcome log (telemetry.outcomes), a line each: exchanges
with their attempts, and marked by * what changed meanwhile. FILE is the path of
the configuration, and then the older files beside it are read first; or one of
those, and then that one alone. A file may be written at the same time.

What is damaged or cut off is skipped and counted on standard error.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			damage, err := eachOutcome(args[0], last, func(r *outcomes.Record) error {
				if asJSON {
					return r.JSON(out)
				}
				_, err := fmt.Fprintln(out, r)
				return err
			})
			if err == nil {
				err = out.Flush()
			}
			if err != nil {
				return err
			}
			if damage.Any() {
				fmt.Fprintln(cmd.ErrOrStderr(), "outrigger: not all is there:", damage)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	cmd.Flags().DurationVar(&last, "last", 0, "leave out what ended longer before the newest record, such as 10m; 0: nothing")
	return cmd
}

// eachOutcome calls do for the records of the log at path.
func eachOutcome(path string, last time.Duration, do func(*outcomes.Record) error) (outcomes.Damage, error) {
	names, err := outcomes.Files(path)
	if err != nil {
		return outcomes.Damage{}, err
	}
	var from time.Time
	if last > 0 {
		newest, _, err := readOutcomes(names[len(names)-1:], nil)
		if err != nil {
			return outcomes.Damage{}, err
		}
		from = newest.Add(-last)
	}
	_, damage, err := readOutcomes(names, func(r *outcomes.Record) error {
		if r.Exchange != nil && r.Wall.Add(r.Exchange.Duration).Before(from) {
			return nil
		}
		return do(r)
	})
	return damage, err
}

// readOutcomes reads files in order and returns when the newest record is from.
func readOutcomes(names []string, do func(*outcomes.Record) error) (newest time.Time, damage outcomes.Damage, err error) {
	rd := outcomes.NewReader(nil)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // rotated away since
		}
		if err != nil {
			return newest, rd.Damage(), err
		}
		rd.Open(b)
		for {
			r, err := rd.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return newest, rd.Damage(), fmt.Errorf("%s: %w", name, err)
			}
			if r.Wall.After(newest) {
				newest = r.Wall
			}
			if do == nil {
				continue
			}
			if err := do(&r); err != nil {
				return newest, rd.Damage(), err
			}
		}
	}
	return newest, rd.Damage(), nil
}
