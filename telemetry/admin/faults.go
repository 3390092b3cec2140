package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// FaultViews are where the pages of faults made on purpose get their data from,
// and who obeys. Without Start none can be begun or ended here.
type FaultViews struct {
	List  func() []FaultView                     // those that run, then those that have ended, the last one first
	Start func(*FaultOrder) (FaultView, error)   // an error of type *OrderError says with which status to answer
	Stop  func(name string) ([]FaultView, error) // all with an empty name
}

// FaultOrder is what POST /faults/start takes as JSON.
type FaultOrder struct {
	// Fault is as one of faults.rules in the configuration. Its name may be missing.
	Fault json.RawMessage `json:"fault"`
	// Reason is for those who come across the fault.
	Reason string `json:"reason,omitempty"`
	// By is who sent it: the address of the peer.
	By string `json:"-"`
}

// FaultStop is what POST /faults/stop takes as JSON: a name, or all.
type FaultStop struct {
	Name string `json:"name,omitempty"`
	All  bool   `json:"all,omitempty"`
}

// FaultView is a fault with its report.
type FaultView struct {
	Name      string  `json:"name"`
	Cluster   string  `json:"cluster"`
	Direction string  `json:"direction"`
	Does      string  `json:"does"`
	Percent   float64 `json:"percent"`
	Count     bool    `json:"count"`        // it counts against endpoints
	Of        string  `json:"of,omitempty"` // who may meet it; empty: all
	By        string  `json:"by"`           // who ordered it
	Reason    string  `json:"reason,omitempty"`

	Began time.Time `json:"began"`
	Until time.Time `json:"until"`
	Ended time.Time `json:"ended,omitzero"`
	State string    `json:"state"` // running, or why it has ended: time_over, by_hand, errors, p99 ...
	Words string    `json:"words"`
	Would string    `json:"would_have_stopped,omitempty"` // what its guard, which observes, has seen

	Injected map[string]uint64 `json:"injected"` // attempts, by kind: delay, abort, reset, bandwidth
	Places   []FaultPlace      `json:"places"`
	Complete bool              `json:"complete"` // nothing will be added to what came after it
}

// FaultPlace is what a cluster did before, under and after a fault.
type FaultPlace struct {
	Cluster   string     `json:"cluster"`
	Direction string     `json:"direction"`
	Before    FaultPhase `json:"before"`
	During    FaultPhase `json:"during"`
	After     FaultPhase `json:"after"`
}

// FaultPhase is one of the three.
type FaultPhase struct {
	Seconds        float64  `json:"seconds"`
	Requests       uint64   `json:"requests"`
	Good           uint64   `json:"good"`
	SuccessPercent *float64 `json:"success_percent"` // nil without requests
	Failed         uint64   `json:"failed"`          // and not by the caller's doing
	Met            uint64   `json:"met_fault"`
	MetFailed      uint64   `json:"met_fault_failed"` // of failed, that had met it
	ByFault        uint64   `json:"ended_by_fault"`   // of these, that it ended itself
	Retries        uint64   `json:"retries"`
	RetriesByFault uint64   `json:"retries_after_fault"`
	Ejections      uint64   `json:"ejections"`
	Openings       uint64   `json:"breaker_openings"`
	P50Ms          float64  `json:"p50_ms"`
	P90Ms          float64  `json:"p90_ms"`
	P99Ms          float64  `json:"p99_ms"`
}

func (s *Server) faults(w http.ResponseWriter, r *http.Request) {
	list := []FaultView{}
	if f := s.opts.Views.Faults.List; f != nil {
		list = f()
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		s.page(w, r, http.StatusOK, list, func(w io.Writer) { WriteFaults(w, list, s.opts.Now()) })
		return
	}
	i := slices.IndexFunc(list, func(v FaultView) bool { return v.Name == name })
	if i < 0 {
		http.Error(w, fmt.Sprintf("no fault %.64q runs, and no report of one is kept", name), http.StatusNotFound)
		return
	}
	s.page(w, r, http.StatusOK, list[i], func(w io.Writer) { WriteFault(w, &list[i], s.opts.Now()) })
}

func (s *Server) startFault(w http.ResponseWriter, r *http.Request) {
	var o FaultOrder
	err := readJSON(r, &o)
	switch {
	case err != nil:
	case len(o.Fault) == 0:
		err = &OrderError{http.StatusBadRequest, errors.New("fault is missing")}
	case len(o.Reason) > maxOrderReason || !utf8.ValidString(o.Reason) || strings.ContainsFunc(o.Reason, unicode.IsControl):
		err = &OrderError{http.StatusBadRequest, fmt.Errorf("reason must be one line of at most %d bytes", maxOrderReason)}
	}
	var v FaultView
	if err == nil {
		o.By = r.RemoteAddr
		v, err = s.opts.Views.Faults.Start(&o)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { WriteFaults(w, []FaultView{v}, s.opts.Now()) })
}

func (s *Server) stopFault(w http.ResponseWriter, r *http.Request) {
	var o FaultStop
	err := readJSON(r, &o)
	if err == nil && (o.Name == "") == !o.All {
		err = &OrderError{http.StatusBadRequest, errors.New("give a name, or all")}
	}
	var list []FaultView
	if err == nil {
		list, err = s.opts.Views.Faults.Stop(o.Name)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.page(w, r, http.StatusOK, list, func(w io.Writer) { WriteFaults(w, list, s.opts.Now()) })
}

// WriteFaults writes a table of faults.
func WriteFaults(w io.Writer, list []FaultView, now time.Time) {
	if len(list) == 0 {
		_, _ = fmt.Fprintln(w, "no fault runs, and none has")
		return
	}
	for i := range list {
		v := &list[i]
		_, _ = fmt.Fprintf(w, "%s: %s\n", Plain(v.Name), Plain(faultLine(v)))
		_, _ = fmt.Fprintf(w, "  %s; %s\n", Plain(faultState(v, now)), Plain(faultCounts(v)))
	}
}

// faultLine is what a fault does, and to whom.
func faultLine(v *FaultView) string {
	s := fmt.Sprintf("%s for %s %% of %s %s", v.Does, strconv.FormatFloat(v.Percent, 'g', 6, 64), v.Direction, v.Cluster)
	if v.Of != "" {
		s += ", " + v.Of
	}
	if v.Count {
		s += ", counted against endpoints"
	}
	return s
}

func faultState(v *FaultView, now time.Time) string {
	s := fmt.Sprintf("runs since %s, for %s more", Short(now.Sub(v.Began)), Short(v.Until.Sub(now)))
	if !v.Ended.IsZero() {
		s = fmt.Sprintf("ended %s ago after %s: %s", Short(now.Sub(v.Ended)), Short(v.Ended.Sub(v.Began)), v.Words)
	}
	if v.Would != "" {
		s += fmt.Sprintf("; its guard, which observes, would have stopped it (%s)", v.Would)
	}
	return s
}

func faultCounts(v *FaultView) string {
	if len(v.Injected) == 0 {
		return "nobody has met it"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(v.Injected)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, v.Injected[k]))
	}
	return "attempts that met it: " + strings.Join(parts, ", ")
}

// WriteFault writes the report of a fault.
func WriteFault(w io.Writer, v *FaultView, now time.Time) {
	WriteFaults(w, []FaultView{*v}, now)
	by := "ordered by " + v.By
	if v.Reason != "" {
		by += ": " + v.Reason
	}
	_, _ = fmt.Fprintf(w, "  %s\n", Plain(by))
	for i := range v.Places {
		p := &v.Places[i]
		_, _ = fmt.Fprintf(w, "\n%-28s %12s %12s %12s\n", Plain(p.Direction+" "+p.Cluster), "before", "during", "after")
		row := func(name string, value func(*FaultPhase) string) {
			cells := [3]string{}
			for k, f := range [...]*FaultPhase{&p.Before, &p.During, &p.After} {
				if cells[k] = "-"; f.Seconds > 0 {
					cells[k] = value(f)
				}
			}
			_, _ = fmt.Fprintf(w, "  %-26s %12s %12s %12s\n", name, cells[0], cells[1], cells[2])
		}
		count := func(n uint64) string { return strconv.FormatUint(n, 10) }
		timed := func(ms float64, f *FaultPhase) string {
			if f.Requests == 0 {
				return "-"
			}
			return fmt.Sprintf("%.1f ms", ms)
		}
		row("seconds", func(f *FaultPhase) string { return fmt.Sprintf("%.1f", f.Seconds) })
		row("requests", func(f *FaultPhase) string { return count(f.Requests) })
		row("success", func(f *FaultPhase) string {
			if f.SuccessPercent == nil {
				return "-"
			}
			return fmt.Sprintf("%.2f %%", *f.SuccessPercent)
		})
		row("p50", func(f *FaultPhase) string { return timed(f.P50Ms, f) })
		row("p90", func(f *FaultPhase) string { return timed(f.P90Ms, f) })
		row("p99", func(f *FaultPhase) string { return timed(f.P99Ms, f) })
		row("met the fault", func(f *FaultPhase) string { return count(f.Met) })
		row("failed after it", func(f *FaultPhase) string { return count(f.MetFailed) })
		row("failed otherwise", func(f *FaultPhase) string { return count(f.Failed - min(f.MetFailed, f.Failed)) })
		row("retries", func(f *FaultPhase) string { return count(f.Retries) })
		row("retries after it", func(f *FaultPhase) string { return count(f.RetriesByFault) })
		row("ejections", func(f *FaultPhase) string { return count(f.Ejections) })
		row("breaker openings", func(f *FaultPhase) string { return count(f.Openings) })
	}
	if !v.Ended.IsZero() && !v.Complete {
		_, _ = fmt.Fprintln(w, "\nwhat comes after it is followed for a minute; ask again")
	}
}
