package admin

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// table writes rows in aligned columns. Errors are the client's going away.
func table(w io.Writer, head string, rows func(row func(cells ...any))) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, strings.ReplaceAll(head, " ", "\t"))
	rows(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				_, _ = io.WriteString(t, "\t")
			}
			_, _ = fmt.Fprint(t, Plain(fmt.Sprint(c)))
		}
		_, _ = io.WriteString(t, "\n")
	})
	_ = t.Flush()
}

// Plain keeps text of peers and sources from moving the reader's cursor. Of nothing it makes
// a dash.
func Plain(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// Short writes a duration with two significant parts at most, for people.
func Short(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return trimZero(d.Round(time.Second).String(), "0s")
	case d < 48*time.Hour:
		return trimZero(strings.TrimSuffix(d.Round(time.Minute).String(), "0s"), "0m")
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// trimZero takes a last part off that says nothing: "5m0s" is "5m".
func trimZero(s, zero string) string {
	if t, ok := strings.CutSuffix(s, zero); ok && (strings.HasSuffix(t, "m") || strings.HasSuffix(t, "h")) {
		return t
	}
	return s
}

func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return Short(now.Sub(t)) + " ago"
}

func ahead(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return age(t, now)
	}
	return "in " + Short(t.Sub(now))
}

// Strip writes outcomes as one character each, oldest first: the way a person
// sees at a glance what an endpoint did last.
func Strip(outcomes []OutcomeView) string {
	var b strings.Builder
	for _, o := range outcomes {
		switch o.Result {
		case "success":
			b.WriteByte('.')
		case "failure":
			b.WriteByte('x')
		case "local_failure":
			b.WriteByte('!')
		default:
			b.WriteByte('o')
		}
	}
	return b.String()
}

func limit(l LimitView) string {
	if l.Max == 0 {
		return fmt.Sprint(l.Value)
	}
	return fmt.Sprintf("%d/%d", l.Value, l.Max)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func readyText(w io.Writer, v readiness) {
	word := "not ready"
	if v.Ready {
		word = "ready"
	}
	_, _ = fmt.Fprintln(w, word)
	if len(v.Checks) > 0 {
		table(w, "CHECK OK DETAIL", func(row func(...any)) {
			for _, c := range v.Checks {
				row(c.Name, yes(c.OK), c.Detail)
			}
		})
	}
}

func endpointsText(w io.Writer, v []EndpointView, now time.Time) {
	columns, placed := "CLUSTER ADDRESS ID STANDING HEALTH CHECK NEXT STATE CAUSE SINCE UNTIL WEIGHT ACTIVE EWMA REQUESTS FAILURES EJECTIONS WOULD-EJECT LAST", false
	for i := range v {
		placed = placed || v[i].Place() != "" || len(v[i].Metadata) > 0
	}
	if placed {
		columns += " PLACE METADATA"
	}
	table(w, columns, func(row func(...any)) {
		for _, e := range v {
			state, next := checkCells(e.Check, now)
			cells := []any{
				e.Cluster, e.Address, e.ID, e.Standing.Words(), e.Health, state, next, e.State, e.Cause, age(e.Since, now), ahead(e.Until, now), e.Weight, e.Busy(),
				fmt.Sprintf("%.1fms", e.EWMAMs), e.Requests, e.Failures, e.Ejections, e.WouldHaveEjected, Strip(e.Evidence),
			}
			if placed {
				cells = append(cells, e.Place(), metadataText(e.Metadata))
			}
			row(cells...)
		}
	})
	if len(v) > 0 {
		_, _ = fmt.Fprintln(w, "\nLAST: the last outcomes, oldest first: . success  x failure  ! connect, reset or timeout  o ignored")
	}
}

// checkCells says what active checks make of an endpoint, with the cause where
// it is not well, and when they look again.
func checkCells(c *CheckView, now time.Time) (state, next string) {
	if c == nil {
		return "-", "-"
	}
	state = c.State
	switch {
	case c.Cause != "":
		state += " (" + why(c.Cause, c.CauseDetail) + ")"
	case c.Result != "" && c.Result != "passed":
		state += " (last: " + why(c.Result, c.Detail) + ")"
	}
	if c.Mode == "observe" {
		state += " (observed)"
	}
	return state, ahead(c.Next, now)
}

func why(cause, detail string) string {
	if detail == "" {
		return cause
	}
	return cause + ": " + detail
}

// breakersIn says how many of list are in a state.
func breakersIn(list []BreakerView, state string) string {
	n := 0
	for i := range list {
		if list[i].State == state {
			n++
		}
	}
	return fmt.Sprintf("%s %d", state, n)
}

func clustersText(w io.Writer, v []ClusterView, now time.Time) {
	table(w, "CLUSTER DIRECTION PROTOCOL BALANCE ENDPOINTS EJECTED UNHEALTHY PANIC BREAKER UNTIL BUDGET CONNECTIONS PENDING ACTIVE REQUESTS FAILURES RETRIES P50 P99", func(row func(...any)) {
		for _, c := range v {
			breaker, until := "-", "-"
			if c.Breaker != nil {
				breaker, until = c.Breaker.State, ahead(c.Breaker.Until, now)
				if n := len(c.Breakers); n > 0 {
					breaker = fmt.Sprintf("%s of %d %ss", breakersIn(c.Breakers, c.Breaker.State), n, c.Breaker.Scope)
				}
			}
			row(c.Name, c.Direction, c.Protocol, c.Balance, fmt.Sprintf("%d/%d", c.Available, c.Endpoints), c.Ejected, c.Unhealthy, yes(c.Panic), breaker, until,
				fmt.Sprintf("%.1f", c.BudgetBalance), limit(c.Limits.Connections), limit(c.Limits.Pending), limit(c.Limits.Requests),
				c.Requests, c.Failures, c.Retries, fmt.Sprintf("%.1fms", c.P50Ms), fmt.Sprintf("%.1fms", c.P99Ms))
		}
	})
	gatesText(w, v)
	subsetsText(w, v)
	sharesText(w, v)
	heldText(w, v)
}

func rateLimitsText(w io.Writer, v []RateLimitView) {
	table(w, "CLUSTER DIRECTION LIMIT SCOPE RATE BURST KEY MODE KEYS EVICTIONS PASSED LIMITED WOULD-LIMIT", func(row func(...any)) {
		for _, l := range v {
			rate, burst, keys, key := "-", "-", "-", l.Key
			if l.Requests > 0 {
				rate, burst = fmt.Sprintf("%d/%s", l.Requests, time.Duration(l.PerMs)*time.Millisecond), strconv.FormatInt(l.Burst, 10)
			}
			if l.Shares > 1 {
				rate += fmt.Sprintf(" in %d shares", l.Shares)
			}
			if l.MaxKeys > 0 {
				keys = fmt.Sprintf("%d/%d", l.Keys, l.MaxKeys)
			}
			if len(l.Entries) > 0 {
				key = strings.Join(l.Entries, ",")
			}
			row(l.Cluster, l.Direction, l.Name, l.Scope, rate, burst, key, l.Mode, keys, l.Evictions, l.Passed, l.Limited, l.WouldLimit)
		}
	})
	if !slices.ContainsFunc(v, func(l RateLimitView) bool { return len(l.Entries) > 0 }) {
		return
	}
	_, _ = fmt.Fprintln(w)
	table(w, "CLUSTER DIRECTION LIMIT COUNTED-BY ERRORS PASSED-UNKNOWN REFUSED-UNKNOWN ASK-P50 ASK-P99", func(row func(...any)) {
		for _, l := range v {
			if len(l.Entries) > 0 {
				row(l.Cluster, l.Direction, l.Name, l.Scope, l.Errors, l.UnknownPassed, l.UnknownRefused, fmt.Sprintf("%.1fms", l.AskP50Ms), fmt.Sprintf("%.1fms", l.AskP99Ms))
			}
		}
	})
}

func connectionsText(w io.Writer, v []ConnectionView, now time.Time) {
	table(w, "ID DIRECTION LISTENER PROTOCOL REMOTE LOCAL TLS PEER STATE AGE EXCHANGES IN OUT", func(row func(...any)) {
		for _, c := range v {
			opened := "-"
			if !c.Since.IsZero() {
				opened = Short(now.Sub(c.Since))
			}
			row(c.ID, c.Direction, c.Listener, c.Protocol, c.Remote, c.Local, c.TLS, c.Peer, c.State, opened, c.Exchanges, c.BytesIn, c.BytesOut)
		}
	})
}

func plaintextText(w io.Writer, v []PlaintextView, now time.Time) {
	if len(v) == 0 {
		_, _ = fmt.Fprintln(w, "no plaintext caller seen since the start")
		return
	}
	_, _ = fmt.Fprintln(w, "These callers must move to mTLS before inbound.mtls: strict, which refuses them.")
	_, _ = fmt.Fprintln(w)
	table(w, "LISTENER ADDRESS CONNECTIONS LAST", func(row func(...any)) {
		for _, p := range v {
			row(p.Listener, p.Address, p.Connections, age(p.Last, now))
		}
	})
}

func identityText(w io.Writer, v IdentityView, now time.Time) {
	table(w, "IDENTITY SOURCE EXPIRES ISSUED UPDATES", func(row func(...any)) {
		row(v.ID, v.Source, ahead(v.NotAfter, now), age(v.NotBefore, now), v.Updates)
	})
	if v.LastError != "" {
		_, _ = fmt.Fprintln(w, "last error:", Plain(v.LastError))
	}
	if len(v.Bundles) > 0 {
		_, _ = fmt.Fprintln(w)
		table(w, "TRUST-DOMAIN ROOTS EXPIRES", func(row func(...any)) {
			for _, b := range v.Bundles {
				row(b.TrustDomain, b.Roots, ahead(b.NotAfter, now))
			}
		})
	}
}

func discoveryText(w io.Writer, v []WatchView) {
	table(w, "SERVICE SOURCE ENDPOINTS AGE STALE INDEX LAST-ERROR", func(row func(...any)) {
		for _, d := range v {
			row(d.Service, d.Source, d.Endpoints, Short(time.Duration(d.AgeSec*float64(time.Second))), yes(d.Stale), d.Index, d.LastError)
		}
	})
}

func overviewText(w io.Writer, v Overview) {
	title := func(s string) { _, _ = fmt.Fprintf(w, "\n%s\n", s) }
	_, _ = fmt.Fprintf(w, "%s  outrigger %s  up %s  plan %d applied %s\n",
		Plain(v.Process.Service), Plain(v.Process.Version), strings.TrimSuffix(age(v.Process.Started, v.Now), " ago"), v.Reload.Version, age(v.Reload.Applied, v.Now))
	if v.Reload.LastError != "" {
		_, _ = fmt.Fprintf(w, "RELOAD FAILED %s; the plan before it stays in use: %s\n", age(v.Reload.LastErrorAt, v.Now), Plain(v.Reload.LastError))
	}
	if m := v.Process.Memory; m != nil {
		_, _ = fmt.Fprintf(w, "memory %d of %d MiB in use, level %s\n", m.Used>>20, m.Budget>>20, Plain(m.Level))
	}
	readyText(w, readiness{v.Ready, v.Checks})
	for i := range v.Faults {
		f := &v.Faults[i]
		_, _ = fmt.Fprintf(w, "fault %s: %s for %g %% of %s %s, ends %s\n", Plain(f.Name), Plain(f.Does), f.Percent, f.Direction, Plain(f.Cluster), ahead(f.Until, v.Now))
	}
	title("clusters")
	clustersText(w, v.Clusters, v.Now)
	title("endpoints")
	endpointsText(w, v.Endpoints, v.Now)
	title("identity")
	identityText(w, v.Identity, v.Now)
	title("discovery")
	discoveryText(w, v.Discovery)
}
