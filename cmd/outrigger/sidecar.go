package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/lifecycle"
	"github.com/outrigger-mesh/outrigger/proxy"
)

// runFlags are those of "outrigger run".
type runFlags struct {
	file, budget               string
	sidecarFor, proxyID, node  string
	admin, snapshot, tokenFile string
	asked                      []config.Layer // by the command line of another program
	processors                 int            // as that command line has it; 0 is not said
}

// layers are what the flags say of the configuration.
func (f *runFlags) layers() []config.Layer {
	var list []config.Layer
	for _, l := range []struct{ flag, value, path string }{
		{"--consul-sidecar-for", f.sidecarFor, "discovery consul sidecar for"},
		{"--proxy-id", f.proxyID, "discovery consul sidecar proxy_id"},
		{"--node-name", f.node, "discovery consul sidecar node"},
		{"--consul-token-file", f.tokenFile, "discovery consul token_file"},
		{"--admin", f.admin, "admin listen"},
		{"--snapshot", f.snapshot, "discovery snapshot"},
	} {
		if l.value == "" {
			continue
		}
		data, err := json.Marshal(l.value)
		if err == nil {
			list = append(list, config.Layer{From: l.flag, Path: strings.Fields(l.path), Data: data})
		}
	}
	return append(list, f.asked...)
}

func (f *runFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "config", "c", "", "the configuration file; for a sidecar of Consul's mesh, what lies below Consul's")
	flags.StringVar(&f.budget, "memory", "", `the most memory to take, such as 48MiB (default: memory.budget of the configuration)`)
	flags.StringVar(&f.sidecarFor, "consul-sidecar-for", "", "be the sidecar that is registered in Consul for the service with this `ID`")
	flags.StringVar(&f.proxyID, "proxy-id", "", "be the sidecar that is registered in Consul under this `ID`")
	flags.StringVar(&f.node, "node-name", "", "read the registration from the catalog, under this `node`, where no agent has it")
	flags.StringVar(&f.tokenFile, "consul-token-file", "", "the `file` with the ACL token; else as Consul's own tools: CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN")
	flags.StringVar(&f.admin, "admin", "", "the `address` of the admin API (default: admin.listen of the configuration)")
	flags.StringVar(&f.snapshot, "snapshot", "", "the `file` that keeps what discovery knows for a start without it (default: discovery.snapshot of the configuration)")
}

// settings reads what the proxy is told. Of a sidecar of Consul's mesh it is the
// base below what Consul says; of any other proxy loaded is all there is.
func (f *runFlags) settings() (base *config.Base, loaded *config.Loaded, err error) {
	layers := f.layers()
	if f.file != "" {
		if base, err = config.LoadBase(f.file); err != nil {
			return nil, nil, err
		}
	}
	if base, err = base.Over(layers...); err != nil {
		return nil, nil, err
	}
	m, err := base.Make()
	if err != nil {
		return nil, nil, err
	}
	if d := m.Config.Discovery.Consul; d != nil && d.Sidecar != nil {
		return base, nil, nil
	}
	switch {
	case f.file == "":
		return nil, nil, errors.New("there is nothing to run: give --config FILE, or --consul-sidecar-for SERVICE for a sidecar of Consul's mesh")
	case len(layers) > 0:
		return nil, nil, fmt.Errorf("%s is for sidecars of Consul's mesh; write %s in the file", layers[0].From, strings.Join(layers[0].Path, "."))
	}
	loaded, err = config.Load(f.file)
	return nil, loaded, err
}

// startSidecar follows Consul until its group is stopped, and returns what the
// proxy is made from as soon as Consul has said enough.
func (f *runFlags) startSidecar(ctx context.Context, base *config.Base, o proxy.Options) (s *proxy.Sidecar, loaded *config.Loaded, following *lifecycle.Group, err error) {
	if s, err = proxy.NewSidecar(base, f.layers(), o); err != nil {
		return nil, nil, nil, err
	}
	following = lifecycle.New(context.WithoutCancel(ctx))
	following.Go("consul", s.Run)
	if loaded, err = s.First(ctx); err != nil {
		following.Stop()
		return nil, nil, nil, errors.Join(err, following.Wait())
	}
	return s, loaded, following, nil
}

// newConsulCommand returns "outrigger consul status|show".
func newConsulCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consul",
		Short: "Show what Consul's mesh says of a running sidecar",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newConsulStatusCommand(), newConsulShowCommand())
	return cmd
}

func newConsulStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a sidecar has read in Consul and what it made of it",
		Long: `Show what a running sidecar of Consul's mesh has read there: its registration,
the upstreams with their discovery chains, the intentions for its service, how old
each of this is, and the findings: what is not done as it is asked for in Consul.

A finding is one of
  refused  it is not done, and somebody who relies on it must know
  differs  it is done in another manner than Envoy does it
  ignored  it means nothing to this proxy, and nothing is lost by that

With --json it is what the admin API says at /consul.`,
		Example: "  outrigger consul status --admin 127.0.0.1:15000",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return printPage(cmd, "/consul", asJSON) },
	}
	adminFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newConsulShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the configuration that a sidecar made of what Consul says",
		Long: `Print the configuration that is in force in a running sidecar of Consul's mesh, as
YAML with the origin of each value in a comment: the entry in Consul, the file
beside it, or default. The plan made from it stands below.`,
		Example: "  outrigger consul show | grep policies.api -A20",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return printPage(cmd, "/config", false) },
	}
	adminFlag(cmd)
	return cmd
}

// printPage prints a page of the admin API.
func printPage(cmd *cobra.Command, path string, asJSON bool) error {
	cmd.SilenceUsage = true
	c, err := newClient(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	if !asJSON {
		return c.text(cmd.Context(), path, cmd.OutOrStdout())
	}
	var v json.RawMessage
	if err := c.get(cmd.Context(), path, &v); err != nil {
		return err
	}
	return writeJSON(cmd.OutOrStdout(), v)
}

// fail is an error that ends "outrigger run".
func fail(err error) error { return &exitCode{exitFailed, err} }

// waitedFor says that the start was called off.
func waitedFor(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return fail(fmt.Errorf("sidecar: %w", err))
}
