package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// newEndpointsCommand returns "outrigger endpoints".
func newEndpointsCommand() *cobra.Command {
	var cluster string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "Show where every endpoint of a running proxy stands, and why",
		Long: `Show where every endpoint of a running proxy stands, why, since when, and what
will be heard of it next.

STATE is one of
  healthy               nothing speaks against it
  pinned                by hand: it takes the traffic, others do not
  probation             back from an ejection; one request decides
  ejected               by outlier detection
  breaker open          its own circuit breaker lets nothing pass
  unhealthy by check    by its active checks
  unhealthy by catalog  by what discovery says
  suspect               worse than its peers: for the time being it gets less traffic
  draining              by what discovery says: it ends what it has, and gets nothing new
  ejected by hand       "outrigger eject"
  passed over           others are pinned
  needed                ejected by hand and used, as all of the cluster are
  absent                discovery does not list it; its order waits

PLACE is region/zone where discovery knows them, and #N where the endpoint is of
priority N above 0.

LOAD is what the load that an endpoint reports makes of its weight, where the
policy asks for reports (balance.orca): 100% is the mean, which an endpoint has of
which there is no report, or not for long enough, and of which the last is too old.

LAST are its last outcomes, oldest first: . success, x failure, ! connect, reset
or timeout, o ignored. With --json it is what the admin API says.`,
		Example: "  outrigger endpoints --cluster api",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			c, err := newClient(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			list := []admin.EndpointView{}
			if err := c.get(cmd.Context(), "/endpoints", &list); err != nil {
				return err
			}
			if list, err = ofCluster(list, cluster); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), list)
			}
			return writeEndpoints(cmd.OutOrStdout(), list, time.Now(), isTerminal(cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "only this cluster's")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	adminFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeCluster)
	return cmd
}

// ofCluster returns the endpoints of a cluster, all for an empty name.
func ofCluster(list []admin.EndpointView, cluster string) ([]admin.EndpointView, error) {
	if cluster == "" {
		return list, nil
	}
	of := []admin.EndpointView{}
	for i := range list {
		if list[i].Cluster == cluster {
			of = append(of, list[i])
		}
	}
	if len(of) == 0 {
		return nil, fmt.Errorf("no endpoint of a cluster %q; there are endpoints of: %s", cluster, orNone(clusterNames(list)))
	}
	return of, nil
}

// clusterNames returns the clusters of the endpoints, each once.
func clusterNames(list []admin.EndpointView) (names []string) {
	for i := range list {
		if n := list[i].Cluster; len(names) == 0 || names[len(names)-1] != n {
			names = append(names, n)
		}
	}
	return names
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func writeEndpoints(w io.Writer, list []admin.EndpointView, now time.Time, colour bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no endpoints: discovery has found none yet")
		return err
	}
	rows := [][]cell{head("CLUSTER ENDPOINT ID STATE SINCE NEXT -ACTIVE -REQUESTS -FAILURES LAST CAUSE")}
	placed := slices.ContainsFunc(list, func(e admin.EndpointView) bool { return e.Place() != "" })
	if placed {
		rows[0] = slices.Insert(rows[0], 3, head("PLACE")...)
	}
	reported := slices.ContainsFunc(list, func(e admin.EndpointView) bool { return e.Reported != nil })
	if reported {
		at := len(rows[0]) - 2
		rows[0] = slices.Insert(rows[0], at, head("-LOAD")...)
	}
	for i := range list {
		e := &list[i]
		s := &e.Standing
		cause := s.Cause
		for _, also := range s.Also {
			more := admin.StandingView{State: also}
			cause += "; also " + more.Words()
		}
		rows = append(rows, []cell{
			left(e.Cluster), left(e.Address), left(e.ID), toned(tone(s.State), s.Words()), left(ago(s.Since, now)), left(coming(s, now)),
			number("%s", e.Busy()), number("%d", e.Requests), number("%d", e.Failures), left(admin.Strip(e.Evidence)), left(strings.TrimPrefix(cause, "; ")),
		})
		if placed {
			last := &rows[len(rows)-1]
			*last = slices.Insert(*last, 3, left(e.Place()))
		}
		if reported {
			last := &rows[len(rows)-1]
			*last = slices.Insert(*last, len(*last)-2, loadOf(e.Reported))
		}
	}
	return writeTable(w, rows, 0, colour)
}

// loadOf is what reports of load make of an endpoint's weight.
func loadOf(r *admin.ReportedView) cell {
	switch {
	case r == nil:
		return left("")
	case r.State != "counted":
		return number("%s %.0f%%", r.State, r.WeightPercent)
	}
	return number("%.0f%%", r.WeightPercent)
}

// tone is the colour of an endpoint's state.
func tone(state string) string {
	switch state {
	case admin.StandHealthy, admin.StandPinned:
		return toneGood
	case admin.StandProbation, admin.StandNeeded, admin.StandPassedOver, admin.StandAbsent, admin.StandDraining, admin.StandSuspect:
		return toneWarn
	}
	return toneBad
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return admin.Short(now.Sub(t))
}

// coming is what will be heard next of an endpoint.
func coming(s *admin.StandingView, now time.Time) string {
	switch {
	case s.NextAt.IsZero():
		return ""
	case !s.NextAt.After(now):
		return s.Next + " now"
	}
	return s.Next + " in " + admin.Short(s.NextAt.Sub(now))
}
