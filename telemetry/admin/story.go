package admin

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// storiesText tells what happened, one story after the other.
func storiesText(w io.Writer, list []WhyView) {
	for i := range list {
		if i > 0 {
			_, _ = io.WriteString(w, "\n")
		}
		_, _ = io.WriteString(w, story(&list[i]))
	}
}

// teller collects the lines of a story: a word in the margin, and a sentence.
type teller struct{ strings.Builder }

func (t *teller) line(margin, format string, args ...any) {
	fmt.Fprintf(t, "  %-10s %s\n", margin, Plain(fmt.Sprintf(format, args...)))
}

func story(v *WhyView) string {
	var t teller
	t.WriteString(headline(v) + "\n")
	t.came(v)
	t.routed(v)
	t.times(v)
	t.tried(v)
	t.ended(v)
	t.settings(v)
	return t.String()
}

// headline is what came and how it ended.
func headline(v *WhyView) string {
	what := "a TCP connection"
	switch {
	case v.Method != "":
		what = v.Method + " " + v.Authority + v.Path
	case strings.HasPrefix(v.Protocol, "HTTP/"):
		what = "a request that could not be read"
	}
	if v.RequestID != "" {
		what = v.RequestID + ": " + what
	}
	end := v.Reason
	if v.Status != 0 {
		end += fmt.Sprintf(", status %d", v.Status)
	}
	if v.GRPCStatus != nil {
		end += fmt.Sprintf(", grpc-status %d", *v.GRPCStatus)
	}
	return Plain(fmt.Sprintf("%s: %s after %s", what, end, ms(v.DurationMs)))
}

func (t *teller) came(v *WhyView) {
	from := ""
	if v.Caller != "" {
		from = " from " + v.Caller
	}
	if v.CallerID != "" {
		from += " (" + v.CallerID + ")"
	}
	if v.Original != "" {
		from += ", intercepted on the way to " + v.Original + ","
	}
	t.line("came", "%s%s to listener %s by %s, plan %d", v.Time.UTC().Format("2006-01-02T15:04:05.000Z"), from, v.Listener, v.Protocol, v.Plan)
	if v.Rule != "" {
		t.line("rule", "%s%s", v.Rule, at(v.RuleAt))
	}
}

func (t *teller) routed(v *WhyView) {
	switch {
	case v.RouteWhy != "":
		t.line("route", "%s, because: %s%s", v.Route, v.RouteWhy, at(v.RouteAt))
	case v.Route != "":
		t.line("route", "%s, the only one of its listener", v.Route)
	}
	if v.Cluster == "" {
		return
	}
	pool := fmt.Sprintf("%s, %d of %d endpoints usable", v.Cluster, v.Usable, v.Endpoints)
	if v.Usable == 0 && v.Endpoints == 0 && v.AttemptCount == 0 {
		pool = v.Cluster
	}
	if v.Panicking {
		pool += ", so few available that others were used too (panic rule)"
	}
	if v.Breaker != "" {
		pool += ", breaker " + v.Breaker
	}
	t.line("cluster", "%s", pool)
}

func (t *teller) times(v *WhyView) {
	switch v.DeadlineBy {
	case "policy":
		t.line("deadline", "%s, by the policy", ms(v.DeadlineMs))
	case "caller":
		t.line("deadline", "%s, by the caller's x-outrigger-deadline", ms(v.DeadlineMs))
	case "grpc-timeout":
		t.line("deadline", "%s, by the caller's grpc-timeout", ms(v.DeadlineMs))
	}
	if v.Priority != "" {
		t.line("turn", "the limit on active requests was reached as it came: %s in the queue, priority %s", ms(v.QueuedMs), v.Priority)
	}
	for i, s := range v.InForce {
		margin := ""
		if i == 0 {
			margin = "in force"
		}
		t.line(margin, "%s = %s%s", s.Path, s.Value, at(s.Origin))
	}
}

func (t *teller) tried(v *WhyView) {
	for i := range v.Attempts {
		a := &v.Attempts[i]
		n := i + 1
		if i == len(v.Attempts)-1 {
			n = v.AttemptCount // those between were not kept
		}
		end := a.Reason
		if a.Status != 0 {
			end += fmt.Sprintf(", status %d", a.Status)
		}
		how := "on a kept connection"
		if a.ConnectMs > 0 {
			how = "connected in " + ms(a.ConnectMs)
		}
		if connecting(a.Reason) {
			how = "no connection"
		}
		if a.Fault != "" && a.Reason == "fault_injected" {
			how = "before the endpoint saw it"
		}
		if a.Hedge {
			how += "; a hedge, started while an earlier attempt was not answered"
		}
		to := a.Endpoint
		if a.Cluster != "" {
			to += " of " + a.Cluster + " (failover)"
		}
		t.line(fmt.Sprintf("attempt %d", n), "at +%s to %s: %s after %s, %s", ms(a.OffsetMs), to, end, ms(a.DurationMs), how)
		t.picked(a)
		if a.Fault != "" {
			t.line("", "met the fault %s", a.Fault)
		}
		if a.Retry == "again" {
			t.line("", "another attempt after %s%s", ms(a.WaitMs), budget(a))
		}
	}
	if v.NoFurther != "" {
		word := ""
		if a := &v.Attempts[len(v.Attempts)-1]; a.Retry != "" && a.Retry != "again" {
			word = " (" + a.Retry + ")" + budget(a)
		}
		t.line("no further", "attempt: %s%s", v.NoFurther, word)
	}
}

// connecting reports whether an attempt ended before there was a connection.
func connecting(reason string) bool {
	switch reason {
	case "connect_failed", "connect_timeout", "peer_identity", "handshake_failed", "no_identity", "limit_connections", "limit_pending":
		return true
	}
	return false
}

func (t *teller) picked(a *AttemptView) {
	if len(a.Candidates) == 0 {
		if a.Algorithm != "" {
			t.line("", "picked by %s, nothing to compare", a.Algorithm)
		}
		return
	}
	parts := make([]string, len(a.Candidates))
	for i, c := range a.Candidates {
		parts[i] = c.Address + " (" + score(a.Algorithm, c.Score)
		if c.State != "" && c.State != "healthy" {
			parts[i] += ", " + c.State
		}
		parts[i] += ")"
	}
	t.line("", "picked by %s from %s", a.Algorithm, strings.Join(parts, " and "))
}

// score writes what an algorithm compares.
func score(algorithm string, s float64) string {
	if algorithm == "p2c_ewma" && s < math.MaxInt64 {
		return time.Duration(s).Round(time.Microsecond).String()
	}
	return fmt.Sprintf("%.3g in flight", s)
}

func budget(a *AttemptView) string {
	if a.Budget == nil {
		return ""
	}
	return fmt.Sprintf("; %.1f retries left in the budget", *a.Budget)
}

func (t *teller) ended(v *WhyView) {
	t.line("end", "%s", v.Meaning)
	if v.Detail != "" {
		t.line("cause", "%s", v.Detail)
	}
	if v.WouldDeny {
		t.line("", "the rules, which are only observed, would have refused it")
	}
	said := ""
	if v.FirstByteMs > 0 {
		said = ", the answer began after " + ms(v.FirstByteMs)
	}
	t.line("", "ended early by: %s; %d bytes in, %d bytes out%s", v.ClosedBy, v.BytesIn, v.BytesOut, said)
}

func (t *teller) settings(v *WhyView) {
	for i, s := range v.Settings {
		margin := ""
		if i == 0 {
			margin = "to change"
		}
		t.line(margin, "%s = %s%s", s.Path, s.Value, at(s.Origin))
	}
	if (v.DeadlineBy == "caller" || v.DeadlineBy == "grpc-timeout") && v.Reason == "request_timeout" {
		t.line("to change", "the caller's own deadline; no setting here gives more time than it leaves")
	}
	if v.Unknown {
		t.line("", "the configuration of that time is no longer kept: where values came from is not known")
	}
}

func at(origin string) string {
	if origin == "" {
		return ""
	}
	return " (" + origin + ")"
}

// ms writes milliseconds as a duration with three digits or so.
func ms(v float64) string {
	d := time.Duration(v * float64(time.Millisecond))
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}
