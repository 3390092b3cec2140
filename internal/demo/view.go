package demo

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// view is everything that is shown at one moment.
type view struct {
	Now, Began       time.Time
	Duration         time.Duration // 0: until Ctrl-C
	Discovery        string
	Recent, Total    figures
	NotSent          uint64
	Instances        []instance
	Breaker          string // empty without one
	Budget           float64
	Ejections        uint64
	Clients, Servers []string // identities, as the other side saw them
	Events           []Event
	WebAdmin         string
}

// instance is one instance of api.
type instance struct {
	Name, Address, Admin string
	Condition            condition
	State                string // as web's sidecar sees it: healthy, ejected, probation; empty when not yet known
	Health               string // as discovery says
	Cause                string
	Until                time.Time
	Rate, Failed         float64 // attempts a second
	EWMAMs               float64
}

// view gathers what is to be shown now.
func (d *director) view(r *run, w *watcher) *view {
	now := time.Now()
	v := &view{
		Now: now, Began: r.began, Duration: d.o.Duration, Discovery: "file catalog",
		Recent: r.stats.window(now.Sub(r.began)), Total: r.stats.total(now.Sub(r.began)), NotSent: r.stats.unsent(),
		Ejections: r.journal.ejections(), Events: r.journal.last(200), WebAdmin: d.mesh.Web.Admin,
	}
	if d.consul != nil {
		v.Discovery = "Consul " + d.consul.address
	}
	v.Clients, v.Servers = r.witness.identities()
	endpoints, cluster := w.latest()
	v.Budget = cluster.BudgetBalance
	if cluster.Breaker != nil {
		v.Breaker = cluster.Breaker.State
	}
	for _, p := range d.all() {
		if p.Service != serviceAPI {
			continue
		}
		d.mu.Lock()
		in := instance{Name: p.Name, Address: p.Inbound, Admin: p.Admin, Condition: p.condition}
		d.mu.Unlock()
		if e, ok := endpoints[p.Inbound]; ok {
			in.State, in.Health, in.Cause, in.Until = e.State, e.Health, e.Cause, e.Until
			in.Rate, in.Failed, in.EWMAMs = e.rate, e.failed, e.EWMAMs
		}
		v.Instances = append(v.Instances, in)
	}
	return v
}

// out says that no traffic goes to the instance.
func (in *instance) out() bool {
	return in.State == kindEjected || in.Health == "critical"
}

// doing says in a sentence what happens to an instance, or nothing when it is
// well and in use.
func (in *instance) doing(now time.Time) string {
	probe := "one request is about to probe it"
	if left := math.Ceil(in.Until.Sub(now).Seconds()); left > 0 {
		probe = fmt.Sprintf("one request probes it in %.0f s", left)
	}
	ejected, probation := in.State == kindEjected, in.State == kindProbation
	switch in.Condition {
	case erring:
		switch {
		case ejected:
			return in.Name + " answers 500 and is ejected; " + probe + "."
		case probation:
			return in.Name + " answers 500 and is on probation; one request is about to probe it."
		}
		return in.Name + " now answers 500; failed requests are retried on another instance."
	case killed:
		switch {
		case in.Health == "critical":
			return in.Name + " is dead, and Consul lists it as critical."
		case ejected:
			return in.Name + " is dead and ejected; " + probe + "."
		case probation:
			return in.Name + " is dead and on probation; one request is about to probe it."
		}
		return in.Name + " was killed; requests that meet it are retried on another instance."
	case starting:
		return in.Name + " is started again."
	}
	switch {
	case in.Health == "critical":
		return in.Name + " is up again; Consul does not list it as passing yet."
	case ejected:
		return in.Name + " is well again but still ejected; " + probe + "."
	case probation:
		return in.Name + " is on probation; one request is about to probe it."
	}
	return ""
}

// sentence says what is happening now.
func (v *view) sentence() string {
	var all []string
	for i := range v.Instances {
		if s := v.Instances[i].doing(v.Now); s != "" {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return fmt.Sprintf("All %d instances of api are well and share the traffic.", len(v.Instances))
	}
	return strings.Join(all, " ")
}

// stateWord is what stands in the column of the state.
func (in *instance) stateWord() string {
	switch {
	case in.State == "":
		return "unknown"
	case in.State != kindEjected && (in.Health == "critical" || in.Health == "warning"):
		return in.Health
	}
	return in.State
}

// detail is what stands beside the state.
func (in *instance) detail(now time.Time) string {
	switch {
	case in.State == kindEjected:
		return fmt.Sprintf("%.1f s, %s", max(in.Until.Sub(now), 0).Seconds(), words(in.Cause))
	case in.Health == "critical" || in.Health == "warning":
		return "by Consul's check"
	case in.State == kindProbation:
		return "one request decides"
	}
	return ""
}

// words turns a name such as consecutive_failures into text.
func words(name string) string { return strings.ReplaceAll(name, "_", " ") }

// text says in words what an event was, without its time.
func (e *Event) text() string {
	who := e.Instance
	if who == "" {
		who = e.Endpoint
	}
	switch e.Kind {
	case kindErrs:
		return who + " now answers 500"
	case kindRecovers:
		return who + " answers 200 again"
	case kindKilled:
		return who + " killed together with its sidecar"
	case kindRestarted:
		return who + " started again with its sidecar"
	case kindLost:
		return who + " lost: " + e.Cause
	case kindEjected:
		s := who + " ejected"
		if d, err := time.ParseDuration(e.For); err == nil {
			s += fmt.Sprintf(" for %.1f s", d.Seconds())
		}
		return s + ": " + words(e.Cause)
	case kindProbation:
		return who + " on probation: one request decides"
	case kindReadmitted:
		return who + " readmitted: " + words(e.Cause)
	case kindRetryBurst:
		what := "retries"
		if e.Count == 1 {
			what = "retry"
		}
		return fmt.Sprintf("%d %s after %s: %s", e.Count, what, who, words(e.Cause))
	case kindRotated:
		return "the sidecar of " + who + " has a new certificate"
	}
	s := words(e.Kind)
	if who != "" {
		s = who + " " + s
	}
	if e.Cause != "" {
		s += ": " + words(e.Cause)
	}
	return s
}

// severity is how an event is coloured.
func (e *Event) severity() style {
	switch e.Kind {
	case kindErrs, kindKilled, kindLost, kindEjected, "breaker_open", "panic":
		return red
	case kindRecovers, kindReadmitted, "breaker_closed", "panic_over":
		return green
	case kindProbation, kindRestarted, kindRetryBurst, "breaker_half_open", "cap_reached", "would_eject":
		return yellow
	}
	return plain
}

// line is the event for an output that is no terminal.
func (e *Event) line() string {
	return fmt.Sprintf("%s  %+7.1fs  %s", e.At.Format(time.TimeOnly), e.Seconds, e.text())
}

// clock is a duration as minutes and seconds.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// ms is a latency in milliseconds.
func ms(d time.Duration) string {
	v := float64(d.Microseconds()) / 1000
	if v >= 100 {
		return fmt.Sprintf("%.0f ms", v)
	}
	return fmt.Sprintf("%.1f ms", v)
}

// latency is ms, or a dash while there is none.
func (f figures) latency(d time.Duration) string {
	if f.Requests == 0 {
		return "-"
	}
	return ms(d)
}

// percent never rounds a failure away.
func percent(f figures) string {
	s := fmt.Sprintf("%.2f%%", f.success())
	if f.Failures > 0 && s == "100.00%" {
		return "99.99%"
	}
	return s
}

// heading tells what runs, once, on an output that is no terminal.
func (v *view) heading() string {
	var b strings.Builder
	fmt.Fprintf(&b, "load -> web -> sidecar == mTLS ==> sidecar -> api x%d   trust domain %s, %s\n", len(v.Instances), trustDomain, v.Discovery)
	fmt.Fprintf(&b, "admin pages: web http://%s/", v.WebAdmin)
	for i := range v.Instances {
		fmt.Fprintf(&b, "  %s http://%s/", v.Instances[i].Name, v.Instances[i].Admin)
	}
	if v.Duration > 0 {
		fmt.Fprintf(&b, "\nruns for %s", v.Duration)
	} else {
		b.WriteString("\nCtrl-C ends it")
	}
	return b.String()
}

// statusLine sums the moment up in one line.
func (v *view) statusLine() string {
	states := make([]string, len(v.Instances))
	for i := range v.Instances {
		states[i] = v.Instances[i].Name + " " + v.Instances[i].stateWord()
	}
	f := v.Recent
	return fmt.Sprintf("%s  %+7.1fs  %.0f requests/s, %s ok, p50 %s, p99 %s, %d retries | %s",
		v.Now.Format(time.TimeOnly), v.Now.Sub(v.Began).Seconds(), f.rate(), percent(f), f.latency(f.P50), f.latency(f.P99), f.Retries, strings.Join(states, ", "))
}
