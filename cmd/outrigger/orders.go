package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/resilience/hand"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// newEjectCommand returns "outrigger eject".
func newEjectCommand() *cobra.Command {
	return orderCommand("eject", &cobra.Command{
		Use:   "eject CLUSTER ENDPOINT",
		Short: "Take an endpoint of a running proxy out by hand, for a time",
		Long: `Give an endpoint no more requests and connections until the time is over or it
is released. What is under way ends as it would have.

The endpoint is named by its address or by the catalog's name for the instance.
The order survives reloads, and the endpoint's leaving and returning, but not a
restart of the proxy. The panic rule does not override it: as long as the
cluster has an endpoint that is not ejected by hand, this one is not used. The
last one cannot be ejected.`,
		Example: "  outrigger eject api 10.1.4.22:20000 --for 10m --reason 'bad disk'",
		Args:    cobra.ExactArgs(2),
	})
}

// newPinCommand returns "outrigger pin".
func newPinCommand() *cobra.Command {
	return orderCommand("pin", &cobra.Command{
		Use:   "pin CLUSTER ENDPOINT...",
		Short: "Give all of a cluster's traffic to some endpoints by hand, for a time",
		Long: `Give all new requests and connections of a cluster to the endpoints that are
named, until the time is over or they are released. A later pin of the cluster
replaces an earlier one.

Among those that are pinned ejection and checks hold as ever, but where nothing
is left of them they are all used. When discovery lists none of them any more,
the others are used until one is back.`,
		Example: "  outrigger pin api api-0 api-1 --for 10m",
		Args:    cobra.MinimumNArgs(2),
	})
}

// newReleaseCommand returns "outrigger release".
func newReleaseCommand() *cobra.Command {
	return orderCommand("release", &cobra.Command{
		Use:   "release CLUSTER [ENDPOINT...]",
		Short: "Take back what was ordered by hand, or an ejection",
		Long: `Take back what "outrigger eject" and "outrigger pin" have ordered for the
endpoints; one that outlier detection has ejected is readmitted at once. With no
endpoint named all orders by hand of the cluster are taken back.`,
		Example: "  outrigger release api 10.1.4.22:20000\n  outrigger release api",
		Args:    cobra.MinimumNArgs(1),
	})
}

// orderCommand makes cmd send an order.
func orderCommand(act string, cmd *cobra.Command) *cobra.Command {
	var lasts time.Duration
	var reason string
	var asJSON bool
	if act != "release" {
		cmd.Flags().DurationVar(&lasts, "for", hand.DefaultFor, "how long it holds, from 1s to 24h")
		cmd.Flags().StringVar(&reason, "reason", "", "a line for those who come across the order")
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	adminFlag(cmd)
	cmd.ValidArgsFunction = completeEndpoint
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		c, err := newClient(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		o := admin.Order{Cluster: args[0], Endpoints: args[1:], Reason: reason}
		if act != "release" {
			o.For = lasts.String()
		}
		var v admin.OrderView
		if err := c.post(cmd.Context(), "/endpoints/"+act, &o, &v); err != nil {
			return err
		}
		if asJSON {
			return writeJSON(cmd.OutOrStdout(), v)
		}
		admin.WriteOrder(cmd.OutOrStdout(), v, time.Now())
		return nil
	}
	return cmd
}

// completionTime is how long the shell waits for the proxy.
const completionTime = time.Second

func known(cmd *cobra.Command) []admin.EndpointView {
	c, err := newClient(cmd)
	if err != nil {
		return nil
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), completionTime)
	defer cancel()
	var list []admin.EndpointView
	if c.get(ctx, "/endpoints", &list) != nil {
		return nil
	}
	return list
}

// completeCluster offers the shell the clusters of the running proxy.
func completeCluster(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return beginning(clusterNames(known(cmd)), begun), cobra.ShellCompDirectiveNoFileComp
}

// completeEndpoint offers clusters, then the endpoints of the one named.
func completeEndpoint(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeCluster(cmd, args, begun)
	}
	var names []string
	for _, e := range known(cmd) {
		if e.Cluster == args[0] && !slices.Contains(args[1:], e.Address) {
			names = append(names, e.Address+"\t"+strings.TrimSpace(e.ID+" "+e.Standing.Words()))
		}
	}
	return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
}

// completeFault offers the names of faults.
func completeFault(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	c, err := newClient(cmd)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), completionTime)
	defer cancel()
	var list []admin.FaultView
	_ = c.get(ctx, "/faults", &list) // else nothing is offered
	var names []string
	for i := range list {
		names = append(names, list[i].Name+"\t"+list[i].Does)
	}
	return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
}

func beginning(names []string, begun string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, begun) })
}
