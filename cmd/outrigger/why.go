package main

import (
	"errors"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

// newWhyCommand returns "outrigger why".
func newWhyCommand() *cobra.Command {
	var asJSON bool
	var failures int
	cmd := &cobra.Command{
		Use:   "why [REQUEST-ID]",
		Short: "Tell why a request ended as it did",
		Long: `Ask a running proxy what it decided for a request: which route it took and why,
who was tried and by which scores, what came of each attempt and why no other
followed, the times in force, and the settings that would change it, each with
its place in the configuration. The id is that of x-request-id, which the
proxy's own replies carry too.

What failed, was refused, was slow or tried again is kept always, and a sample of
the rest (telemetry.ledger), until newer ones take its place.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("last-failures") {
				if len(args) == 1 { // "--last-failures 3" as well as "--last-failures=3"
					return cmd.Flags().Set("last-failures", args[0])
				}
				return cobra.NoArgs(cmd, args)
			}
			if len(args) != 1 {
				return errors.New("give one request id, or --last-failures")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			path, q := "/ledger", url.Values{}
			if cmd.Flags().Changed("last-failures") {
				q.Set("failures", strconv.Itoa(failures))
			} else {
				path = "/why"
				q.Set("id", args[0])
			}
			if asJSON {
				q.Set("format", "json")
			}
			c, err := newClient(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			return c.text(cmd.Context(), path+"?"+q.Encode(), cmd.OutOrStdout())
		},
	}
	adminFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&failures, "last-failures", 0, "tell the last `N` exchanges that failed instead (10 without a number)")
	cmd.Flags().Lookup("last-failures").NoOptDefVal = "10"
	return cmd
}
