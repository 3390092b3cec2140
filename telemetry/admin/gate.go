package admin

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// GateView is a limit on active requests, with the queue behind it.
type GateView struct {
	Route     string `json:"route,omitempty"`      // the listener and route; empty for that of the cluster
	Most      int64  `json:"most"`                 // that may be active now; 0: unlimited
	WouldMost int64  `json:"would_most,omitempty"` // that might be if what is only observed were enforced
	Active    int64  `json:"active"`
	Rejected  uint64 `json:"rejected"`

	Queue    *QueueView    `json:"queue,omitempty"`    // nil: those beyond it are refused at once
	Adaptive *AdaptiveView `json:"adaptive,omitempty"` // nil without one
}

// QueueView is who waits for their turn.
type QueueView struct {
	Waiting   int64   `json:"waiting"`
	Size      int     `json:"size"`      // that may wait
	OldestMs  float64 `json:"oldest_ms"` // how long the one has waited who came first
	MaxWaitMs float64 `json:"max_wait_ms"`
	Standing  bool    `json:"standing"` // those are turned away who have waited longer than the target
}

// AdaptiveView is a limit that follows how long requests take.
type AdaptiveView struct {
	Mode       string  `json:"mode"` // enforce, observe
	Limit      int64   `json:"limit"`
	BaselineMs float64 `json:"baseline_ms"` // what requests take where nobody waits for another; 0: not known yet
	LatencyMs  float64 `json:"latency_ms"`  // what they took of late
	Learning   bool    `json:"learning"`    // it is lowered for a moment to learn the baseline
}

// Waiting is how many wait for their turn, at the cluster and its routes.
func (v *ClusterView) Waiting() (n int64) {
	for i := range v.Gates {
		if q := v.Gates[i].Queue; q != nil {
			n += q.Waiting
		}
	}
	return n
}

// Shed is how many were refused for a limit, in a queue or without one.
func (v *ClusterView) Shed() (n uint64) {
	for i := range v.Gates {
		n += v.Gates[i].Rejected
	}
	return n
}

// HeldBack is the largest share of requests that admission control holds back,
// in percent; what is only observed is none.
func (v *ClusterView) HeldBack() (percent float64) {
	for i := range v.Admission {
		if a := &v.Admission[i]; a.Mode == "enforce" {
			percent = max(percent, a.RejectionPercent)
		}
	}
	return percent
}

// results are the words of what becomes of those who would wait, in the order in
// which they are shown.
func results() []string {
	return []string{"entered", "full", "displaced", "delayed", "waited_out", "too_late", "gone", "stopped"}
}

// gatesText writes the limits on active requests of all clusters and what became
// of those who had to wait; nothing where there are none.
func gatesText(w io.Writer, v []ClusterView) {
	some, queued := false, false
	for i := range v {
		some, queued = some || len(v[i].Gates) > 0, queued || len(v[i].QueueResults) > 0
	}
	if some {
		_, _ = fmt.Fprintln(w)
		table(w, "CLUSTER ROUTE ACTIVE LIMIT WAITING OLDEST STANDING REFUSED ADAPTIVE BASELINE LATENCY", func(row func(...any)) {
			for i := range v {
				for k := range v[i].Gates {
					g := &v[i].Gates[k]
					waiting, oldest, standing := "-", "-", "-"
					if q := g.Queue; q != nil {
						waiting, standing = fmt.Sprintf("%d/%d", q.Waiting, q.Size), yes(q.Standing)
						if q.Waiting > 0 {
							oldest = known(q.OldestMs)
						}
					}
					limit, baseline, latency := "-", "-", "-"
					if a := g.Adaptive; a != nil {
						limit, baseline, latency = a.words(), known(a.BaselineMs), known(a.LatencyMs)
					}
					row(v[i].Name, g.Route, g.Active, g.limit(), waiting, oldest, standing, g.Rejected, limit, baseline, latency)
				}
			}
		})
	}
	if queued {
		_, _ = fmt.Fprintln(w)
		head := strings.ToUpper(strings.ReplaceAll(strings.Join(results(), " "), "_", "-"))
		table(w, "CLUSTER "+head, func(row func(...any)) {
			for i := range v {
				if len(v[i].QueueResults) == 0 {
					continue
				}
				cells := []any{v[i].Name}
				for _, r := range results() {
					cells = append(cells, v[i].QueueResults[r])
				}
				row(cells...)
			}
		})
	}
}

// limit is how many may be active, in a cell.
func (g *GateView) limit() string {
	switch {
	case g.WouldMost > 0 && g.Most > 0:
		return fmt.Sprintf("%d (%d observed)", g.Most, g.WouldMost)
	case g.WouldMost > 0:
		return fmt.Sprintf("(%d observed)", g.WouldMost)
	case g.Most == 0:
		return "-"
	}
	return strconv.FormatInt(g.Most, 10)
}

func (a *AdaptiveView) words() string {
	s := strconv.FormatInt(a.Limit, 10)
	if a.Learning {
		s += " learning"
	}
	if a.Mode == "observe" {
		s += " (observed)"
	}
	return s
}

// known is a time in milliseconds, a dash while it is not known.
func known(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fms", v)
}

// Busy is how many attempts an endpoint has, and may have where that is bounded.
func (e *EndpointView) Busy() string {
	if e.MostActive == 0 {
		return strconv.FormatInt(e.Active, 10)
	}
	return fmt.Sprintf("%d/%d", e.Active, e.MostActive)
}

// heldText says in sentences which faults run and what admission control holds
// back; nothing where there are neither.
func heldText(w io.Writer, v []ClusterView) {
	first := true
	line := func(format string, args ...any) {
		if first {
			first = false
			_, _ = fmt.Fprintln(w)
		}
		_, _ = fmt.Fprintf(w, format+"\n", args...)
	}
	for i := range v {
		if len(v[i].Faults) > 0 {
			line("faults made on purpose in %s %s: %s", v[i].Direction, Plain(v[i].Name), Plain(strings.Join(v[i].Faults, ", ")))
		}
		for _, a := range v[i].Admission {
			of, held := v[i].Name, "held back"
			if a.Route != "" {
				of += " by " + a.Route
			}
			if a.Mode == "observe" {
				held = "would be held back (observed)"
			}
			line("admission control of %s: %.0f %% of requests %s, %d of %d accepted in the window", Plain(of), a.RejectionPercent, held, a.Accepts, a.Requests)
		}
	}
}
