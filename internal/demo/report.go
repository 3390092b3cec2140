package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Report is what a demo has seen when it ends.
type Report struct {
	// Requests and Failures are those of the load: what a client of web saw.
	Requests       uint64  `json:"requests"`
	Failures       uint64  `json:"failures"`
	SuccessPercent float64 `json:"success_percent"`
	P50Ms          float64 `json:"p50_ms"`
	P99Ms          float64 `json:"p99_ms"`
	// Retries are attempts beyond a request's first, by web's sidecar.
	Retries   uint64 `json:"retries"`
	Ejections uint64 `json:"ejections"`
	// NotSent are requests that were due while too many were under way.
	NotSent    uint64     `json:"not_sent"`
	Seconds    float64    `json:"seconds"`
	Identities Identities `json:"identities"`
	Events     []Event    `json:"events"`
}

// Identities are the SPIFFE IDs in the access logs of the sidecars.
type Identities struct {
	// Client is whom the sidecars of api saw calling. More than one, which
	// would be a mistake, are joined by a space.
	Client string `json:"client"`
	// Servers is whom the sidecar of web saw answering.
	Servers []string `json:"servers"`
}

func newReport(r *run, ran time.Duration) *Report {
	f := r.stats.total(ran)
	clients, servers := r.witness.identities()
	rep := &Report{
		Requests: f.Requests, Failures: f.Failures, P50Ms: millis(f.P50), P99Ms: millis(f.P99),
		// Rounded down, so that 100 means no failure.
		SuccessPercent: math.Floor(f.success()*1000) / 1000,
		Retries:        f.Retries, Ejections: r.journal.ejections(), NotSent: r.stats.unsent(),
		Seconds:    math.Round(ran.Seconds()*1000) / 1000,
		Identities: Identities{Client: strings.Join(clients, " "), Servers: servers},
		Events:     r.journal.all(),
	}
	if rep.Identities.Servers == nil {
		rep.Identities.Servers = []string{}
	}
	if rep.Events == nil {
		rep.Events = []Event{}
	}
	return rep
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r *Report) writeJSON(w io.Writer) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// text is the report for people.
func (r *Report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d requests in %.1f s, %d failed: %.3f%% succeeded\n", r.Requests, r.Seconds, r.Failures, r.SuccessPercent)
	fmt.Fprintf(&b, "p50 %.1f ms, p99 %.1f ms, retries %d, ejections %d\n", r.P50Ms, r.P99Ms, r.Retries, r.Ejections)
	fmt.Fprintf(&b, "%s called %s\n", r.Identities.Client, strings.Join(r.Identities.Servers, ", "))
	const most = 40
	events := r.Events
	if len(events) > most {
		fmt.Fprintf(&b, "the last %d of %d events:\n", most, len(events))
		events = events[len(events)-most:]
	} else if len(events) > 0 {
		b.WriteString("events:\n")
	}
	for i := range events {
		fmt.Fprintf(&b, "  %s\n", printable(events[i].line()))
	}
	return b.String()
}
