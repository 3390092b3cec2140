package main

import (
	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
)

// newConfigCommand returns "outrigger config effective|schema".
func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration in force, or its schema",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newConfigEffectiveCommand(), newConfigSchemaCommand())
	return cmd
}

func newConfigEffectiveCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "effective FILE",
		Short: "Print every value in force with where it came from",
		Long: `Print every value that a configuration file means, defaults included, as YAML
with the origin of each value in a comment: default, FILE:LINE:COL, and what it
came through, such as the policy "*". Tokens are hidden.

With --json it is a list of {"path", "value", "origin"}.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			loaded, err := config.Load(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return loaded.WriteEffectiveJSON(cmd.OutOrStdout())
			}
			return loaded.WriteEffective(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newConfigSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of configuration files, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of configuration files. Editors with a YAML
language server complete and check with it when a file begins with

  # yaml-language-server: $schema=outrigger.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			schema, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}
