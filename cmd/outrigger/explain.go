package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/explain"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// explainFlags are those of "outrigger explain".
type explainFlags struct {
	question admin.Question
	admins   []string
	files    []string
	json     bool
}

// newExplainCommand returns "outrigger explain".
func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --to SERVICE [METHOD] [TARGET]",
		Short: "Tell what would become of a request that nobody has sent",
		Long: `Tell what would become of a request: whether rules let it in, which route it
takes and why, how a split divides it, which endpoints could get it and how they
stand, the times, retries and limits in force, each with its place in the
configuration, and the worst case in time and attempts. Nothing is sent, and
nothing is taken from rate limits or budgets.

A running proxy is asked (--admin), or configuration files are read (--config);
each may be given several times, such as for the caller's and the callee's
proxy. Those that the request does not concern are passed over. --from is who
calls: the name of a service or a SPIFFE ID.`,
		Example: `  outrigger explain --to api POST /pay -H 'X-Tenant: blue'
  outrigger explain --from web --to api GET /orders --config web.yaml --config api.yaml`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			for _, a := range args {
				if strings.HasPrefix(a, "/") || strings.Contains(a, "://") || a == "*" {
					f.question.Target = a
				} else {
					f.question.Method = a
				}
			}
			return f.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&f.question.From, "from", "", "who calls: a service's name or a SPIFFE ID")
	cmd.Flags().StringVar(&f.question.To, "to", "", "the service that is called, or an address, IP or IP:PORT")
	cmd.Flags().StringArrayVarP(&f.question.Fields, "header", "H", nil, "a header field, \"Name: value\"")
	cmd.Flags().StringArrayVar(&f.admins, "admin", nil, "the admin API of a proxy, ADDR:PORT or URL (default "+adminDefault+"; "+adminEnv+" sets the default)")
	cmd.Flags().StringArrayVar(&f.files, "config", nil, "read this configuration instead of asking a proxy")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("to")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "json")
	return cmd
}

// run asks everybody and prints what those answer whom the request concerns.
func (f *explainFlags) run(ctx context.Context, out io.Writer) error {
	if len(f.files) == 0 && len(f.admins) == 0 {
		f.admins = []string{adminAddress()}
	}
	legs := []*admin.LegView{}
	var passed []error
	hear := func(leg *admin.LegView, err error) error {
		switch {
		case err == nil:
			legs = append(legs, leg)
		case errors.Is(err, admin.ErrNotHere) || strings.HasPrefix(err.Error(), admin.ErrNotHere.Error()):
			passed = append(passed, err)
		default:
			return err
		}
		return nil
	}
	for _, file := range f.files {
		loaded, err := config.Load(file)
		if err != nil {
			return err
		}
		leg, err := explain.File(&f.question, loaded)
		if err := hear(leg, err); err != nil {
			return err
		}
	}
	for _, at := range f.admins {
		if err := hear(f.ask(ctx, at)); err != nil {
			return err
		}
	}
	if len(legs) == 0 {
		return errors.Join(passed...)
	}
	if f.json {
		return writeJSON(out, legs)
	}
	for i, leg := range legs {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := leg.WriteText(out); err != nil {
			return err
		}
	}
	return nil
}

func (f *explainFlags) ask(ctx context.Context, at string) (*admin.LegView, error) {
	c, err := clientAt(at)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	leg := &admin.LegView{}
	return leg, c.get(ctx, "/explain?"+f.question.Values().Encode(), leg)
}
