package admin

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/hand"
)

// The states of a StandingView.
const (
	StandHealthy    = "healthy"
	StandPinned     = "pinned"      // by hand: with others that are, it takes all traffic
	StandProbation  = "probation"   // one request decides whether it is back
	StandEjected    = "ejected"     // by outlier detection
	StandBroken     = "broken"      // its own circuit breaker is open
	StandByCheck    = "by_check"    // its active checks say that it is not well
	StandByCatalog  = "by_catalog"  // discovery says that it is not well
	StandSuspect    = "suspect"     // caution leaves it a part of its traffic
	StandDraining   = "draining"    // discovery says that it is to get nothing new
	StandByHand     = "by_hand"     // ejected by hand
	StandPassedOver = "passed_over" // others are pinned by hand
	StandNeeded     = "needed"      // ejected by hand and used, as all are
	StandAbsent     = "absent"      // discovery does not list it; there is an order for it
)

// StandingView is what all that is known about an endpoint comes to.
type StandingView struct {
	State string    `json:"state"`
	Cause string    `json:"cause,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Also are further reasons to keep traffic away.
	Also []string `json:"also,omitempty"`
	// Next is what will be heard of it next, at NextAt: probe, check, or end of
	// an order by hand.
	Next   string    `json:"next,omitempty"`
	NextAt time.Time `json:"next_at,omitzero"`
}

// reason is one verdict on an endpoint.
type reason struct {
	state, cause string
	since, until time.Time
}

// standing says where e stands: who was first in the order below to have
// something against it, and who else has.
func standing(e *EndpointView) StandingView {
	var list []reason
	if h := e.Hand; h != nil {
		switch {
		case h.State == hand.Ejected.String():
			list = append(list, reason{StandByHand, said(h), h.Since, h.Until})
		case h.State == hand.PassedOver.String():
			list = append(list, reason{state: StandPassedOver, cause: "others are pinned by hand"})
		case h.State == hand.Needed.String():
			list = append(list, reason{StandNeeded, "used, as all are ejected by hand; " + said(h), h.Since, h.Until})
		case e.Absent:
			list = append(list, reason{StandAbsent, h.Act + " by hand waits for its return; " + said(h), h.Since, h.Until})
		}
	}
	pinned := e.Hand != nil && e.Hand.State == hand.Pinned.String()
	if e.Draining != "" && !pinned {
		list = append(list, reason{state: StandDraining, cause: e.Draining})
	}
	if e.State == "ejected" {
		list = append(list, reason{StandEjected, e.Cause, e.Since, e.Until})
	}
	if b := e.Breaker; b != nil && b.State == "open" && b.Mode != "observe" {
		list = append(list, reason{StandBroken, b.Cause, b.Since, b.Until})
	}
	if e.Health == "critical" && e.Draining == "" {
		list = append(list, reason{state: StandByCatalog, cause: "the catalog says critical"})
	}
	if c := e.Check; c != nil && !c.Fit {
		cause := "not passed yet"
		if c.Cause != "" {
			cause = why(c.Cause, c.CauseDetail)
		}
		list = append(list, reason{StandByCheck, c.Kind + " check: " + cause, c.Since, time.Time{}})
	}
	if e.State == "probation" {
		list = append(list, reason{StandProbation, e.Cause, e.Since, time.Time{}})
	}
	if pinned {
		list = append(list, reason{StandPinned, said(e.Hand), e.Hand.Since, e.Hand.Until})
		if e.Draining != "" {
			list = append(list, reason{state: StandDraining})
		}
	}
	if c := e.Caution; c != nil && c.SharePercent < 100 && c.Mode == "enforce" {
		cause := fmt.Sprintf("gets %.0f%% of its share: of late %.1f%% failed, the others took %.1fms", c.SharePercent, c.FailedPercent, c.LatencyMs)
		list = append(list, reason{StandSuspect, cause, c.Since, time.Time{}})
	}
	if len(list) == 0 {
		list = append(list, reason{StandHealthy, "", e.Since, time.Time{}})
	}
	first := &list[0]
	v := StandingView{State: first.state, Cause: first.cause, Since: first.since, Until: first.until}
	for i := range list[1:] {
		v.Also = append(v.Also, list[i+1].state)
	}
	v.Next, v.NextAt = next(e, v.State)
	return v
}

// said is who gave an order, and why.
func said(h *HandView) string {
	if h.Reason == "" {
		return "by " + h.By
	}
	return h.Reason + ", by " + h.By
}

// next is what will be heard of an endpoint in this state: the end of its order,
// the probe after its ejection, else a check.
func next(e *EndpointView, state string) (what string, at time.Time) {
	switch state {
	case StandByHand, StandNeeded, StandAbsent, StandPinned:
		return "end of order", e.Hand.Until
	case StandEjected:
		return "probe", e.Until
	case StandBroken:
		return "probe", e.Breaker.Until
	}
	if e.Check != nil {
		return "check", e.Check.Next
	}
	return "", at
}

// Words returns the state as people write it.
func (v *StandingView) Words() string {
	switch v.State {
	case StandByHand:
		return "ejected by hand"
	case StandByCheck:
		return "unhealthy by check"
	case StandByCatalog:
		return "unhealthy by catalog"
	case StandBroken:
		return "breaker open"
	}
	return strings.ReplaceAll(v.State, "_", " ")
}
