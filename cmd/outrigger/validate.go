package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
)

// newValidateCommand returns "outrigger validate FILE...".
func newValidateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check configuration files and name every mistake",
		Long: `Check configuration files without starting anything.

Every mistake of every file is written to standard output, one a line, as
FILE:LINE:COL: path: what is wrong and how to put it right. The exit code is 0
when all files are valid and 1 when one is not.`,
		Example: "  outrigger validate web.yaml api.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE:    validate,
	}
	cmd.Flags().BoolP("quiet", "q", false, "write nothing about files that are valid")
	return cmd
}

func validate(cmd *cobra.Command, files []string) error {
	quiet, err := cmd.Flags().GetBool("quiet")
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	mistakes, bad := 0, 0
	for _, file := range files {
		_, err := config.Load(file)
		var problems config.Problems
		switch {
		case errors.As(err, &problems):
			mistakes += len(problems)
			bad++
			fmt.Fprintln(out, problems.Error())
		case err != nil:
			return err
		case !quiet:
			fmt.Fprintf(out, "%s: valid\n", file)
		}
	}
	if bad == 0 {
		return nil
	}
	cmd.SilenceUsage = true
	return fmt.Errorf("%s in %s", count(mistakes, "mistake"), count(bad, "file"))
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
