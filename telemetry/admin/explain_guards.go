package admin

import (
	"fmt"
	"slices"
	"strings"
)

// shares says how attempts are divided by priority and zone.
func (t *teller) shares(d *DestinationView) {
	if len(d.Shares) < 2 {
		return
	}
	parts := make([]string, len(d.Shares))
	for i, s := range d.Shares {
		parts[i] = fmt.Sprintf("%.4g %% to priority %d, %s", s.Percent, s.Priority, s.Place)
	}
	t.line("", "%s", strings.Join(parts, "; "))
}

// guards says what stands between the request and an endpoint beside breakers.
func (t *teller) guards(d *DestinationView) {
	margin := "turn"
	for i := range d.Gates {
		t.line(margin, "%s", d.Gates[i].sentence(d))
		margin = ""
	}
	if d.WaitMs > 0 {
		t.line(margin, "it would wait for its turn, %s at most, with priority %s", ms(d.WaitMs), d.Priority)
	} else if slices.ContainsFunc(d.Gates, func(g GateView) bool { return g.Queue != nil }) {
		t.line(margin, "it would have priority %s", d.Priority)
	}
	if a := d.Admission; a != nil {
		said := fmt.Sprintf("with a probability of %.0f %% now, as %d of %d were accepted", a.RejectionPercent, a.Accepts, a.Requests)
		if a.RejectionPercent == 0 {
			said = "no request now"
		}
		if a.Mode == "observe" {
			said += " (observed: it goes on)"
		}
		t.line("held back", "by admission control %s", said)
	}
	if h := d.Hedge; h != nil {
		when := "once enough answers have been seen to tell which are late"
		if h.DelayMs > 0 {
			when = "where an answer takes longer than " + ms(h.DelayMs)
		}
		said := ""
		if h.Mode == "observe" {
			said = " (observed: none is)"
		}
		t.line("hedged", "%d more at most asked beside the first, %s%s", h.Extra, when, said)
	}
	for i, f := range d.Faults {
		margin := "fault"
		if i > 0 {
			margin = ""
		}
		at := ""
		if f.Endpoint != "" {
			at = " at " + f.Endpoint
		}
		t.line(margin, "%s, made on purpose: %s for %.4g %% of the attempts%s", f.Name, f.Does, f.Percent, at)
	}
}

// sentence says how full a gate is, and what becomes of those for whom there is no room.
func (g *GateView) sentence(d *DestinationView) string {
	of := d.Cluster
	if g.Route != "" {
		of = "the route " + g.Route
	}
	s := fmt.Sprintf("%d requests to %s under way, of %d at most", g.Active, of, g.Most)
	if g.Most == 0 {
		s = fmt.Sprintf("%d requests to %s under way", g.Active, of)
	}
	if g.WouldMost > 0 {
		s += fmt.Sprintf(", %d if what is observed were enforced", g.WouldMost)
	}
	if a := g.Adaptive; a != nil {
		s += fmt.Sprintf("; adaptive limit %s", a.words())
		if a.BaselineMs > 0 {
			s += fmt.Sprintf(" (%s alone, %s now)", ms(a.BaselineMs), ms(a.LatencyMs))
		}
	}
	switch q := g.Queue; {
	case g.Most == 0:
	case q == nil:
		s += "; those beyond are refused"
	case q.Waiting > 0:
		s += fmt.Sprintf("; %d of %d wait, for %s", q.Waiting, q.Size, ms(q.OldestMs))
		if q.Waiting >= int64(q.Size) {
			s += ", as many as may: it would wait only in the place of another"
		}
		if q.Standing {
			s += ", and the queue stands"
		}
	default:
		s += fmt.Sprintf("; %d may wait beyond, %s each at most", q.Size, ms(q.MaxWaitMs))
	}
	return s
}
