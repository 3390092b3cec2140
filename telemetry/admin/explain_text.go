package admin

import (
	"fmt"
	"io"
	"strings"
)

// WriteText tells what one proxy would do.
func (v *LegView) WriteText(w io.Writer) error {
	v.stand()
	var t teller
	t.WriteString(Plain(v.verdict()) + "\n")
	from := ""
	if v.CallerID != "" {
		from = " from " + v.CallerID
	}
	where := v.Source
	if v.Live {
		where = fmt.Sprintf("plan %d of the running proxy", v.Plan)
	}
	t.line("comes", "%sto listener %s at %s, %s, %s; %s", strings.TrimPrefix(from+" ", " "), v.Listener, v.Address, v.Protocol, v.Security, where)
	if v.Rule != "" {
		t.line("rule", "%s%s", v.Rule, at(v.RuleAt))
	}
	if v.WouldDeny {
		t.line("", "the rules, which are only observed, would have refused it")
	}
	switch {
	case v.RouteWhy != "":
		t.line("route", "%s, because: %s%s", v.Route, v.RouteWhy, at(v.RouteAt))
	case v.Route != "":
		t.line("route", "%s, the only one of its listener", v.Route)
	}
	if v.Sent != "" {
		t.line("sent as", "%s", v.Sent)
	}
	for i := range v.RateLimits {
		t.rateLimit(&v.RateLimits[i], i == 0)
	}
	for i := range v.Destinations {
		t.destination(&v.Destinations[i], len(v.Destinations) > 1)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// verdict is the headline.
func (v *LegView) verdict() string {
	end := "would be refused: " + v.Reason
	switch {
	case v.Reason == "ok" && v.Status != 0:
		end = "would be answered by the proxy"
	case v.Reason == "ok":
		end = "would be forwarded"
	}
	if v.Status != 0 {
		end += fmt.Sprintf(", status %d", v.Status)
	}
	if v.Reason != "ok" {
		end += ". " + strings.TrimSuffix(v.Meaning, ".")
		if v.Detail != "" {
			end += ": " + v.Detail
		}
	} else if v.Detail != "" {
		end += ", " + v.Detail
	}
	return fmt.Sprintf("%s, %s: %s %s", v.Service, v.Direction, v.Request, end)
}

func (t *teller) rateLimit(l *LimitVerdict, first bool) {
	margin := ""
	if first {
		margin = "rate limit"
	}
	said := ""
	switch {
	case l.Scope != "":
		said = ": counted by rate_limiters." + l.Scope
	case l.Passes == nil:
	case *l.Passes:
		said = ": one more passes now"
	default:
		said = ": spent now"
	}
	if l.Mode != "enforce" {
		said += " (" + l.Mode + ")"
	}
	t.line(margin, "%s, %s for each %s%s", l.Name, l.Quota, l.Key, said)
}

func (t *teller) destination(d *DestinationView, split bool) {
	text := d.Cluster
	if split {
		text = fmt.Sprintf("%s, by %.4g %% of the requests", d.Cluster, d.Percent)
	}
	text += ", " + d.Transport
	if len(d.Identities) > 0 {
		text += " with " + strings.Join(d.Identities, " or ")
	}
	t.line("to", "%s", text)
	if d.Reason != "" {
		t.line("", "would end there now: %s", d.Reason)
	}
	pool := fmt.Sprintf("%s, %d of %d endpoints usable", d.Balance, d.Usable, len(d.Endpoints))
	if d.Panicking {
		pool += ", so few available that others are used too (panic rule)"
	}
	switch {
	case d.Breakers > 0:
		pool += fmt.Sprintf(", breakers of %d of them open", d.BreakersOpen)
	case d.Breaker != "":
		pool += ", " + strings.TrimSpace("breaker "+d.BreakerOf) + " " + d.Breaker
	}
	if d.Budget != nil {
		pool += fmt.Sprintf(", %.1f retries in the budget", *d.Budget)
	}
	t.line("", "%s", pool)
	t.shares(d)
	for i := range d.Endpoints {
		if i == mostTold {
			t.line("", "and %d more; \"outrigger endpoints\" tells them all", len(d.Endpoints)-mostTold)
			break
		}
		e := &d.Endpoints[i]
		word := e.Standing.State
		if e.Standing.Cause != "" {
			word += ": " + e.Standing.Cause
		}
		t.line("", "  %s %s", e.Address, word)
	}
	t.failover(d)
	t.guards(d)
	worst := "nothing bounds how long the answer takes"
	if d.WorstMs > 0 {
		worst = fmt.Sprintf("an answer or a refusal within %s, by %s", ms(d.WorstMs), d.WorstBy)
	}
	t.line("at worst", "%s; %s", worst, attemptsText(d))
	for i, s := range d.Settings {
		margin := ""
		if i == 0 {
			margin = "in force"
		}
		t.line(margin, "%s = %s%s", s.Path, s.Value, at(s.Origin))
	}
}

// mostTold is how many endpoints of a destination are named in text.
const mostTold = 10

func attemptsText(d *DestinationView) string {
	switch {
	case d.Attempts == 1:
		return "1 attempt"
	case d.CallerRepeats:
		return fmt.Sprintf("%d attempts, of which an endpoint processes %d, as the caller's sidecar repeats the request (retry.layer)", d.Attempts, d.Processed)
	case d.Processed < d.Attempts:
		return fmt.Sprintf("%d attempts, of which an endpoint processes %d", d.Attempts, d.Processed)
	}
	return fmt.Sprintf("%d attempts", d.Attempts)
}
