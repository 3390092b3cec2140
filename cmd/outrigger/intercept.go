package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/proxy/intercept"
)

// newInterceptCommand returns "outrigger intercept" with what is below it.
func newInterceptCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "intercept",
		Short: "Bring an application's traffic to the proxy by rules of the kernel",
		Long: `Write, check, show and remove the nftables rules that bring an application's
connections to the proxy, so that the application needs no change. The rules
stand in a table of their own; no other is touched, and no nft or iptables
program is needed. This needs the capability CAP_NET_ADMIN.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newInterceptInstallCommand(), newInterceptVerifyCommand(), newInterceptStatusCommand(), newInterceptRemoveCommand())
	return cmd
}

// interceptFlags are the options that say what the rules should do. Those that
// Consul's redirect-traffic has too have its names.
type interceptFlags struct {
	table, netns, json, mode, beforeReady, dnsIP, proxyID, node string

	proxyUID, proxyGID, proxyCgroup, exInPort, exInCIDR, inInPort, exOutPort, exOutCIDR, exUID, inOutPort, inOutCIDR, inUID, dnsTo, dnsServer []string

	inbound, outbound uint16
	dnsPort           int
}

// place adds the flags that say where the rules are.
func (f *interceptFlags) place(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.table, "table", "", "`name` of the table (default \"outrigger\")")
	cmd.Flags().StringVar(&f.netns, "netns", "", "network namespace, by its `path`, such as /proc/1234/ns/net")
}

// rules adds the flags that say what the rules should do.
func (f *interceptFlags) rules(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.json, "config-json", "", "options as the `JSON` of Consul's tools (default: that in $"+intercept.ConsulEnv+"); flags come on top")
	s.StringVar(&f.proxyID, "proxy-id", "", "take the ports of the proxy that is registered in Consul under this `ID`; the agent as for Consul's own tools (CONSUL_HTTP_ADDR and so on)")
	s.StringVar(&f.node, "node-name", "", "read the registration from the catalog, under this `node`, where no agent has it")
	s.StringSliceVar(&f.proxyUID, "proxy-uid", nil, "`user` of the proxy, whose own traffic is left alone")
	s.StringSliceVar(&f.proxyGID, "proxy-gid", nil, "`group` of the proxy")
	s.StringSliceVar(&f.proxyCgroup, "proxy-cgroup", nil, "control group of the proxy (version 2), by its `path` below the root")
	s.Uint16Var(&f.inbound, "proxy-inbound-port", 0, "`port` to which connections from outside go; without it they are left alone")
	s.Uint16Var(&f.outbound, "proxy-outbound-port", 0, "`port` to which connections of the application go (default 15001)")
	s.StringVar(&f.mode, "mode", "", "how inbound connections come: `redirect or tproxy`, which keeps the packets as they are (default redirect)")
	s.StringVar(&f.beforeReady, "before-ready", "", "while nobody listens on the proxy's port: `refuse, hold or allow` new connections (default refuse)")
	s.StringSliceVar(&f.exInPort, "exclude-inbound-port", nil, "inbound `port` or range that is left alone; may be repeated, as all that follow")
	s.StringSliceVar(&f.exInCIDR, "exclude-inbound-cidr", nil, "callers' `CIDR` that is left alone")
	s.StringSliceVar(&f.inInPort, "include-inbound-port", nil, "only this inbound `port` or range")
	s.StringSliceVar(&f.exOutPort, "exclude-outbound-port", nil, "outbound `port` or range that is left alone")
	s.StringSliceVar(&f.exOutCIDR, "exclude-outbound-cidr", nil, "destinations' `CIDR` that is left alone")
	s.StringSliceVar(&f.exUID, "exclude-uid", nil, "`user` whose connections are left alone")
	s.StringSliceVar(&f.inOutPort, "include-outbound-port", nil, "only this outbound `port` or range")
	s.StringSliceVar(&f.inOutCIDR, "include-outbound-cidr", nil, "only destinations in this `CIDR`")
	s.StringSliceVar(&f.inUID, "include-uid", nil, "only connections of this `user`")
	s.StringVar(&f.dnsIP, "consul-dns-ip", "", "`address` to which DNS goes; with --consul-dns-port, the address whose port 53 goes to that port")
	s.IntVar(&f.dnsPort, "consul-dns-port", 0, "`port` to which DNS goes")
	s.StringSliceVar(&f.dnsTo, "dns-to", nil, "resolver's `ADDR:PORT` to which DNS goes, one for each of IPv4 and IPv6")
	s.StringSliceVar(&f.dnsServer, "dns-server", nil, "only queries to the server with this `address`")
}

// config makes a configuration of the flags. given says whether any of them,
// or the environment, says anything.
func (f *interceptFlags) config(ctx context.Context) (c intercept.Config, given bool, err error) {
	text := f.json
	if text == "" {
		text = os.Getenv(intercept.ConsulEnv)
	}
	if text != "" {
		if c, err = intercept.ParseConsul(text); err != nil {
			return c, true, err
		}
	}
	before := fmt.Sprintf("%+v", c)
	if f.proxyID != "" {
		if err := registered(ctx, &c, f.proxyID, f.node); err != nil {
			return c, true, err
		}
	}
	var errs []error
	users := func(to *[]intercept.Range, list []string) {
		r, err := intercept.ParseUsers(list)
		errs = append(errs, err)
		*to = append(*to, r...)
	}
	ranges := func(to *[]intercept.Range, list []string) { parseAll(to, list, intercept.ParseRange, &errs) }
	cidrs := func(to *[]netip.Prefix, list []string) { parseAll(to, list, intercept.ParseCIDR, &errs) }
	if len(f.proxyUID) > 0 {
		c.ProxyUIDs = nil
	}
	users(&c.ProxyUIDs, f.proxyUID)
	ranges(&c.ProxyGIDs, f.proxyGID)
	c.ProxyCgroups = append(c.ProxyCgroups, f.proxyCgroup...)
	if f.inbound != 0 {
		c.InboundPort = f.inbound
	}
	if f.outbound != 0 {
		c.OutboundPort = f.outbound
	}
	c.Mode, c.BeforeReady = intercept.Mode(f.mode), intercept.BeforeReady(f.beforeReady)
	ranges(&c.ExcludeInboundPorts, f.exInPort)
	cidrs(&c.ExcludeInboundCIDRs, f.exInCIDR)
	ranges(&c.IncludeInboundPorts, f.inInPort)
	ranges(&c.ExcludeOutboundPorts, f.exOutPort)
	cidrs(&c.ExcludeOutboundCIDRs, f.exOutCIDR)
	users(&c.ExcludeUIDs, f.exUID)
	ranges(&c.IncludeOutboundPorts, f.inOutPort)
	cidrs(&c.IncludeOutboundCIDRs, f.inOutCIDR)
	users(&c.IncludeUIDs, f.inUID)
	errs = append(errs, c.ConsulDNS(f.dnsIP, f.dnsPort))
	if len(f.dnsTo) > 0 {
		c.DNSTo = nil
	}
	parseAll(&c.DNSTo, f.dnsTo, netip.ParseAddrPort, &errs)
	parseAll(&c.DNSServers, f.dnsServer, netip.ParseAddr, &errs)
	given = text != "" || fmt.Sprintf("%+v", c) != before
	if f.table != "" {
		c.Table = f.table
	}
	if f.netns != "" {
		c.NetNS = f.netns
	}
	return c, given, errors.Join(errs...)
}

func parseAll[T any](to *[]T, list []string, parse func(string) (T, error), errs *[]error) {
	for _, s := range list {
		v, err := parse(s)
		if err != nil {
			*errs = append(*errs, err)
			continue
		}
		*to = append(*to, v)
	}
}

// onHost runs f with the namespace that a configuration names.
func onHost(c intercept.Config, f func(*intercept.Host) error) error {
	ns, err := intercept.OpenNamespace(c.NetNS)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return f(intercept.NewHost(ns))
}

func newInterceptInstallCommand() *cobra.Command {
	var f interceptFlags
	var dry bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Write the rules",
		Long: `Write the rules in one transaction, in the place of those that are there: to do
it twice is to do it once, and a table that somebody has half removed is whole
again. The proxy's own traffic is known by --proxy-uid, --proxy-gid or
--proxy-cgroup, of which one is required.

With --before-ready allow it waits until the proxy listens, and writes the rules
then.`,
		Example: `  outrigger intercept install --proxy-uid 5995 --proxy-inbound-port 20000
  outrigger intercept install --proxy-uid outrigger --exclude-outbound-port 5432 --dns-to 127.0.0.1:8600 --before-ready hold
  CONSUL_REDIRECT_TRAFFIC_CONFIG='{"ProxyUserID":"5995","ProxyInboundPort":20000}' outrigger intercept install`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			c, _, err := f.config(cmd.Context())
			if err = errors.Join(err, c.Complete()); err != nil {
				return err
			}
			if dry {
				for _, t := range intercept.Build(c, nil, intercept.Support{Inet: true, Fib: true}) {
					if _, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(t.Lines(true), "\n")); err != nil {
						return err
					}
				}
				return nil
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			return onHost(c, func(h *intercept.Host) error {
				if err := h.Install(ctx, c); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "table %s: %s\n", c.Table, interceptSummary(c))
				return err
			})
		},
	}
	f.place(cmd)
	f.rules(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the rules and write nothing")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "with --before-ready allow, wait no longer than this for the proxy")
	return cmd
}

// interceptSummary says what a configuration does in a few words.
func interceptSummary(c intercept.Config) string {
	s := fmt.Sprintf("outbound TCP goes to port %d", c.OutboundPort)
	if c.InboundPort != 0 {
		s += fmt.Sprintf(", inbound TCP to port %d (%s)", c.InboundPort, c.Mode)
	}
	for _, a := range c.DNSTo {
		s += ", DNS to " + a.String()
	}
	return s + "; before the proxy is ready: " + string(c.BeforeReady)
}

func newInterceptRemoveCommand() *cobra.Command {
	var f interceptFlags
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Take the rules away",
		Long: `Take our table away, with its routing rules; other tables are not touched. Where
there is none, nothing is done. Connections that were brought to the proxy go on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			name := interceptTable(f.table)
			return onHost(intercept.Config{NetNS: f.netns}, func(h *intercept.Host) error {
				was, err := h.Remove(name)
				if err != nil {
					return err
				}
				word := "there was none"
				if was {
					word = "removed"
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "table %s: %s\n", name, word)
				return err
			})
		},
	}
	f.place(cmd)
	return cmd
}

func interceptTable(name string) string {
	if name == "" {
		return intercept.DefaultTable
	}
	return name
}

func printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
