package admin

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// MeshView is what a sidecar of Consul's mesh has read there and made of it.
type MeshView struct {
	Registration string    `json:"registration"` // the sidecar's ID
	Service      string    `json:"service"`
	Datacenter   string    `json:"datacenter"`
	TrustDomain  string    `json:"trust_domain"`
	Since        time.Time `json:"since"`             // when this was put to use, or tried
	Waiting      string    `json:"waiting,omitempty"` // what is waited for; nothing was ever in force then
	Stale        bool      `json:"stale"`             // from disk; Consul has not confirmed it
	Refused      string    `json:"refused,omitempty"` // why it is not in force; the last good one is
	Default      string    `json:"default"`           // allow or deny: what holds where no intention does

	Upstreams  []MeshUpstreamView  `json:"upstreams"`
	Intentions []MeshIntentionView `json:"intentions"` // the first whose source is the caller decides
	Findings   []MeshFindingView   `json:"findings"`
	Watches    []WatchView         `json:"watches"`
}

// MeshUpstreamView is a service that the application calls.
type MeshUpstreamView struct {
	Name     string   `json:"name"`
	Listen   string   `json:"listen"` // empty: nothing listens for it
	Protocol string   `json:"protocol"`
	Chain    string   `json:"chain"`   // router, splitter, resolver or failover: the most that its discovery chain does
	Targets  []string `json:"targets"` // where it may lead, by name
	Trouble  string   `json:"trouble,omitempty"`
}

// MeshIntentionView is an intention for the own service.
type MeshIntentionView struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Action      string `json:"action"` // allow, deny, or by permission
	Permissions int    `json:"permissions,omitempty"`
	JWT         bool   `json:"jwt,omitempty"` // a token is asked for
	Precedence  int    `json:"precedence"`
}

// MeshFindingView is something in Consul that is not done as it is asked for there.
type MeshFindingView struct {
	Kind    string `json:"kind"` // refused, differs or ignored
	Entry   string `json:"entry"`
	Field   string `json:"field"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy,omitempty"`
}

func (s *Server) mesh(w http.ResponseWriter, r *http.Request) {
	if s.opts.Views.Mesh == nil {
		http.Error(w, "this proxy is no sidecar of Consul's mesh; outrigger run --consul-sidecar-for SERVICE makes one", http.StatusNotFound)
		return
	}
	v := s.opts.Views.Mesh()
	for _, empty := range []func(){
		func() { v.Upstreams = orEmpty(v.Upstreams) },
		func() { v.Intentions = orEmpty(v.Intentions) },
		func() { v.Findings = orEmpty(v.Findings) },
		func() { v.Watches = orEmpty(v.Watches) },
	} {
		empty()
	}
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { meshText(w, &v, s.opts.Now()) })
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func meshText(w io.Writer, v *MeshView, now time.Time) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if v.Waiting != "" {
		say("NOT IN FORCE: %s", Plain(v.Waiting))
		meshLists(w, v)
		return
	}
	say("sidecar %s of %s in %s, trust domain %s", Plain(v.Registration), Plain(v.Service), Plain(v.Datacenter), Plain(v.TrustDomain))
	switch {
	case v.Refused != "":
		say("NOT IN FORCE since %s, the last good description is: %s", age(v.Since, now), Plain(v.Refused))
	case v.Stale:
		say("in force since %s, from disk: Consul has not confirmed it", age(v.Since, now))
	default:
		say("in force since %s", age(v.Since, now))
	}
	if len(v.Upstreams) > 0 {
		say("\nupstreams")
		table(w, "NAME LISTEN PROTOCOL CHAIN TARGETS", func(row func(...any)) {
			for _, u := range v.Upstreams {
				targets := strings.Join(u.Targets, " ")
				if u.Trouble != "" {
					targets = u.Trouble
				}
				row(u.Name, u.Listen, u.Protocol, u.Chain, targets)
			}
		})
	}
	say("\nintentions, otherwise %s", v.Default)
	if len(v.Intentions) > 0 {
		table(w, "SOURCE DESTINATION ACTION PERMISSIONS JWT PRECEDENCE", func(row func(...any)) {
			for _, i := range v.Intentions {
				row(i.Source, i.Destination, i.Action, i.Permissions, yes(i.JWT), i.Precedence)
			}
		})
	}
	meshLists(w, v)
}

// meshLists writes what there is to be told at any time.
func meshLists(w io.Writer, v *MeshView) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if len(v.Findings) > 0 {
		say("\nfindings")
		for _, f := range v.Findings {
			say("%s: %s", f.Kind, Plain(strings.TrimSpace(f.Entry+" "+f.Field)+": "+f.Problem))
			if f.Remedy != "" {
				say("    %s", Plain(f.Remedy))
			}
		}
	}
	if len(v.Watches) > 0 {
		say("\nwatches")
		discoveryText(w, v.Watches)
	}
}
