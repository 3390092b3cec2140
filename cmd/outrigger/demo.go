package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/internal/demo"
)

// newDemoCommand returns "outrigger demo".
func newDemoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a mesh at work on this machine, with faults",
		Long: `Start a small mesh on this machine and let it meet with faults.

A service web and three instances of a service api run as processes of their
own, each with a sidecar that is "outrigger run". A steady load calls web's
application; for each request web calls api through its sidecar:

  load -> web -> sidecar == mTLS ==> sidecar -> api (one of three)

One api begins to answer 500 and recovers later; another is killed together
with its sidecar. The terminal shows what the mesh makes of it: who is ejected,
why and for how long, what is retried, and what the caller sees.

Identities come from an embedded authority that serves the SPIFFE Workload API,
endpoints from a file, so that nothing else is needed. With --consul the api
sidecars register themselves with a Consul agent and web's sidecar follows them
there. All listeners are on 127.0.0.1. Ctrl-C ends everything.

With --json nothing but one JSON object is printed, at the end.`,
		Example: `  outrigger demo
  outrigger demo --duration 20s --json
  CONSUL_BIN=/opt/consul outrigger demo --consul
  outrigger demo --consul --consul-addr http://127.0.0.1:8500`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			cmd.SilenceUsage = true
			program, err := os.Executable()
			if err != nil {
				return err
			}
			o.Program, o.Out, o.Err = program, cmd.OutOrStdout(), cmd.ErrOrStderr()
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return demo.Run(ctx, o)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.Duration, "duration", 0, "how long the load runs; 0: until Ctrl-C")
	f.BoolVar(&o.JSON, "json", false, "print one JSON object at the end, and nothing else")
	f.IntVar(&o.Rate, "rate", demo.DefaultRate, "requests a second")
	f.BoolVar(&o.Consul, "consul", false, "discovery by a real Consul agent, which is started from CONSUL_BIN or the PATH")
	f.StringVar(&o.ConsulAddr, "consul-addr", "", "with --consul: a running agent to use instead, such as http://127.0.0.1:8500")
	cmd.AddCommand(newDemoAppCommand())
	return cmd
}

// newDemoAppCommand returns the command that the demo starts its applications with.
func newDemoAppCommand() *cobra.Command {
	var a demo.App
	cmd := &cobra.Command{
		Use:    "app",
		Short:  "An application of the demo; it ends with its standard input",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.Listen == "" {
				return errors.New("--listen is required; this command is for the demo itself")
			}
			cmd.SilenceUsage = true
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return a.Run(ctx, cmd.InOrStdin())
		},
	}
	f := cmd.Flags()
	f.StringVar(&a.Name, "name", "", "the name of the instance")
	f.StringVar(&a.Listen, "listen", "", "the address to listen on")
	f.StringVar(&a.Upstream, "upstream", "", "the URL to call for each request; empty: answer")
	return cmd
}
