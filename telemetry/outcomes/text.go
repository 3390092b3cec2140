package outcomes

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/outlier"
)

// JSON writes r as one JSON object on a line of its own.
func (r *Record) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if r.Event != nil {
		return enc.Encode(r.eventView())
	}
	return enc.Encode(r.exchangeView())
}

type exchangeView struct {
	Time       time.Time     `json:"time"`
	Epoch      string        `json:"process"`
	Direction  string        `json:"direction"`
	Cluster    string        `json:"cluster,omitempty"`
	Route      string        `json:"route,omitempty"`
	Method     string        `json:"method,omitempty"`
	Protocol   string        `json:"protocol,omitempty"`
	Idempotent bool          `json:"idempotent"`
	Replayable bool          `json:"replayable"`
	WouldDeny  bool          `json:"would_deny,omitempty"`
	Reason     string        `json:"reason"`
	ClosedBy   string        `json:"closed_by"`
	Status     uint16        `json:"status,omitempty"`
	GRPC       *uint8        `json:"grpc_status,omitempty"`
	DurationMs float64       `json:"duration_ms"`
	DeadlineMs float64       `json:"deadline_ms,omitempty"`
	RefusedMs  float64       `json:"refused_ms,omitempty"`
	WaitedMs   float64       `json:"waited_ms,omitempty"`
	Key        string        `json:"key,omitempty"`
	Active     uint32        `json:"active"`
	Made       int           `json:"attempt_count"`
	Attempts   []attemptView `json:"attempts"`
}

type attemptView struct {
	Endpoint    string  `json:"endpoint"`
	OffsetMs    float64 `json:"offset_ms"`
	DurationMs  float64 `json:"duration_ms"`
	FirstByteMs float64 `json:"first_byte_ms,omitempty"`
	SentMs      float64 `json:"sent_ms,omitempty"`
	Reason      string  `json:"reason"`
	ClosedBy    string  `json:"closed_by"`
	Status      uint16  `json:"status,omitempty"`
	Retry       string  `json:"retry,omitempty"`
	WaitMs      float64 `json:"wait_ms,omitempty"`
	Hedge       bool    `json:"hedge,omitempty"`
	Panicking   bool    `json:"panicking,omitempty"`
}

type eventView struct {
	Time      time.Time      `json:"time"`
	Epoch     string         `json:"process"`
	Event     string         `json:"event"`
	Direction string         `json:"direction,omitempty"`
	Cluster   string         `json:"cluster,omitempty"`
	Version   uint64         `json:"version,omitempty"`
	Text      string         `json:"text,omitempty"`
	Endpoint  string         `json:"endpoint,omitempty"`
	Verdict   string         `json:"verdict,omitempty"`
	Cause     string         `json:"cause,omitempty"`
	ForMs     float64        `json:"for_ms,omitempty"`
	From      string         `json:"from,omitempty"`
	To        string         `json:"to,omitempty"`
	Endpoints []endpointView `json:"endpoints,omitempty"`
}

type endpointView struct {
	Address string `json:"address"`
	Weight  uint32 `json:"weight"`
	Usable  bool   `json:"usable"`
	State   string `json:"state"`
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func direction(inbound bool) string {
	if inbound {
		return "inbound"
	}
	return "outbound"
}

func (r *Record) exchangeView() exchangeView {
	x := r.Exchange
	v := exchangeView{
		Time: r.Wall, Epoch: fmt.Sprintf("%016x", r.Epoch), Direction: direction(x.Marks&Inbound != 0),
		Cluster: x.Cluster, Route: x.Route, Method: x.Method,
		Idempotent: x.Marks&Idempotent != 0, Replayable: x.Marks&Replayable != 0, WouldDeny: x.Marks&WouldDeny != 0,
		Reason: x.Reason.String(), ClosedBy: x.Reason.ClosedBy(), Status: x.Status,
		DurationMs: millis(x.Duration), DeadlineMs: millis(x.Deadline), RefusedMs: millis(x.Refused), WaitedMs: millis(x.Waited), Active: x.Active, Made: x.Attempts,
		Attempts: make([]attemptView, len(r.Attempts)),
	}
	switch {
	case x.Marks&IsTCP != 0:
		v.Protocol = "tcp"
	case x.Marks&IsGRPC != 0:
		v.Protocol, v.GRPC = "grpc", &x.GRPC
	}
	if x.Marks&Keyed != 0 {
		v.Key = fmt.Sprintf("%016x", x.Key)
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		v.Attempts[i] = attemptView{
			Endpoint: a.Endpoint, OffsetMs: millis(a.Offset), DurationMs: millis(a.Duration), FirstByteMs: millis(a.First), SentMs: millis(a.Sent),
			Reason: a.Reason.String(), ClosedBy: a.Reason.ClosedBy(), Status: a.Status,
			Hedge: a.Marks&Hedge != 0, Panicking: a.Marks&Panicking != 0,
		}
		if a.Marks&Asked != 0 {
			v.Attempts[i].Retry, v.Attempts[i].WaitMs = a.Why.String(), millis(a.Wait)
		}
	}
	return v
}

func (r *Record) eventView() eventView {
	e := r.Event
	v := eventView{Time: r.Wall, Epoch: fmt.Sprintf("%016x", r.Epoch), Event: e.Kind.String(), Cluster: e.Cluster, Version: e.Version, Text: e.Text, Endpoint: e.Endpoint}
	if e.Cluster != "" {
		v.Direction = direction(e.Inbound)
	}
	switch e.Kind {
	case Judged:
		v.Verdict = e.Verdict.String()
		if e.Cause != outlier.NoCause {
			v.Cause = e.Cause.String()
		}
		if e.Until > e.At {
			v.ForMs = millis(e.Until - e.At)
		}
	case Breaker:
		v.From, v.To = e.From.String(), e.To.String()
	case Panic:
		if v.To = "off"; e.To != 0 {
			v.To = "on"
		}
	case Endpoints:
		v.Endpoints = make([]endpointView, len(e.List))
		for i, p := range e.List {
			v.Endpoints[i] = endpointView{p.Address, p.Weight, p.Usable, p.State.String()}
		}
	}
	return v
}

// String tells r on one line.
func (r *Record) String() string {
	var b strings.Builder
	b.WriteString(r.Wall.Format("2006-01-02T15:04:05.000Z "))
	if e := r.Event; e != nil {
		v := r.eventView()
		b.WriteString("* ")
		b.WriteString(v.Event)
		for _, w := range []string{v.Cluster, v.Endpoint, v.Verdict, v.Cause} {
			if w != "" {
				b.WriteString(" " + w)
			}
		}
		switch e.Kind {
		case Began:
			b.WriteString(" by outrigger " + e.Text)
		case Configured:
			fmt.Fprintf(&b, " plan %d, %d bytes", e.Version, len(e.Text))
		case Judged:
			if v.ForMs > 0 {
				b.WriteString(" for " + (e.Until - e.At).Round(time.Millisecond).String())
			}
		case Breaker:
			b.WriteString(" " + v.From + " -> " + v.To)
		case Panic:
			b.WriteString(" " + v.To)
		case Endpoints:
			for _, p := range v.Endpoints {
				b.WriteString(" " + p.Address)
				if !p.Usable {
					b.WriteString("(unhealthy)")
				}
				if p.State != "healthy" {
					b.WriteString("(" + p.State + ")")
				}
			}
		}
		return b.String()
	}
	x := r.Exchange
	what := x.Method
	if x.Marks&IsTCP != 0 {
		what = "tcp"
	}
	fmt.Fprintf(&b, "%s %s %s %d in %s", orDash(x.Cluster), orDash(what), x.Reason, x.Status, short(x.Duration))
	if x.Route != "" && x.Route != x.Cluster {
		b.WriteString(" route " + x.Route)
	}
	if x.Attempts > len(r.Attempts) {
		fmt.Fprintf(&b, " after %d attempts", x.Attempts)
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		fmt.Fprintf(&b, " | +%s %s %s", short(a.Offset), a.Endpoint, a.Reason)
		if a.Status != 0 {
			fmt.Fprintf(&b, " %d", a.Status)
		}
		fmt.Fprintf(&b, " %s", short(a.Duration))
		if a.Marks&Asked != 0 {
			b.WriteString(" retry=" + a.Why.String())
		}
	}
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short is d with three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
