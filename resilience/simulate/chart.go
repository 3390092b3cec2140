package simulate

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/chart"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
)

// mostSteps is how many points a line of a chart has at most.
const mostSteps = 120

// Chart draws, for every variant, what happened to the exchanges with the
// service that is called from outside, over time: rates and latencies, or beside
// the rates the attempts at every service where there are several. It is SVG.
func (r *Result) Chart() []byte {
	entry, end := r.scenario.Entry(), r.Duration
	seconds := int((end + time.Second - 1) / time.Second)
	merge := (seconds + mostSteps - 1) / mostSteps
	top, slowest, fastest := 1.0, 0.0, math.Inf(1)
	rows := make([]chart.Row, len(r.Runs))
	for i, run := range r.Runs {
		points := merged(run.Service(entry).Points, seconds, merge)
		l := linesOf(points, merge)
		for k := range points {
			top = max(top, l.sent[k])
			if v := l.p99[k]; !math.IsNaN(v) {
				slowest, fastest = max(slowest, v), min(fastest, l.p50[k])
			}
		}
		rows[i] = chart.Row{Name: run.Name, Panels: []chart.Panel{
			{Title: "a second:", Format: plain, Series: []chart.Series{
				{Name: "requests", Tone: chart.Area, Values: l.offered},
				{Name: "attempts", Tone: chart.Orange, Values: l.sent},
				{Name: "good", Tone: chart.Green, Values: l.good},
				{Name: "failed", Tone: chart.Red, Values: l.failed},
				{Name: "refused", Tone: chart.Violet, Values: l.refused},
			}},
			{Title: "latency of the good:", Format: span, Log: true, Series: []chart.Series{
				{Name: "p50", Tone: chart.Green, Values: l.p50}, {Name: "p99", Tone: chart.Blue, Values: l.p99},
			}},
		}}
	}
	if len(r.Runs[0].Services) > 1 {
		fastest, slowest = r.layers(rows, seconds, merge)
	} else if slowest == 0 {
		slowest, fastest = 1, .001
	}
	dropIdle(rows)
	spans := r.spans(float64(merge))
	for i := range rows {
		for k := range rows[i].Panels {
			p := &rows[i].Panels[k]
			p.Step, p.Spans = float64(merge), spans
			if p.Log {
				p.Low, p.Top = decade(fastest, math.Floor), decade(slowest, math.Ceil)
			} else {
				p.Top = chart.Round(top)
			}
		}
	}
	title := r.Title
	if title == "" {
		title = "A simulation"
	}
	return chart.Lines(title, r.about(entry), rows)
}

// layers puts the attempts at every service in the place of latencies, and
// returns the least and the most of them a second.
func (r *Result) layers(rows []chart.Row, seconds, merge int) (low, high float64) {
	low, high = 1, 10
	for i, run := range r.Runs {
		p := &rows[i].Panels[1]
		*p = chart.Panel{Title: "attempts a second at", Format: plain, Log: true}
		for k, tone := range []chart.Tone{chart.Violet, chart.Blue, chart.Green, chart.Orange, chart.Red} {
			if k == len(run.Services) {
				break
			}
			s := &run.Services[k]
			l := linesOf(merged(s.Points, seconds, merge), merge)
			high = max(high, slices.Max(l.sent))
			p.Series = append(p.Series, chart.Series{Name: s.Name, Tone: tone, Values: l.sent})
		}
	}
	return low, high
}

func (r *Result) about(entry string) string {
	s := fmt.Sprintf("%s of calls to %s on the virtual clock, seed %d.", plain(r.Duration.Seconds())+" s", entry, r.Seed)
	if len(r.scenario.Failures) > 0 {
		s += " Shaded: what goes wrong."
	}
	if len(r.Runs) > 1 {
		s += " All rows have the same scales."
	}
	return s
}

// dropIdle leaves out what never happened in any row.
func dropIdle(rows []chart.Row) {
	for k := range rows[0].Panels {
		for n := len(rows[0].Panels[k].Series) - 1; n >= 0; n-- {
			tone := rows[0].Panels[k].Series[n].Tone
			used := k > 0 || tone != chart.Red && tone != chart.Violet
			for i := range rows {
				for _, v := range rows[i].Panels[k].Series[n].Values {
					used = used || v > 0
				}
			}
			for i := range rows {
				if p := &rows[i].Panels[k]; !used {
					p.Series = append(p.Series[:n], p.Series[n+1:]...)
				}
			}
		}
	}
}

// spans are the times of the failures, in steps of so many seconds.
func (r *Result) spans(step float64) (list []chart.Span) {
	for i := range r.scenario.Failures {
		f := &r.scenario.Failures[i]
		list = append(list, chart.Span{
			From: f.At.Seconds() / step, To: f.End(r.Duration).Seconds() / step,
			Name: fmt.Sprintf("%s: %v", f.Service, f.Fault),
		})
	}
	return list
}

// merged adds up points of a second each.
func merged(points []replay.Point, seconds, each int) []replay.Point {
	out := make([]replay.Point, (seconds+each-1)/each)
	for i := range points {
		if i >= seconds {
			break
		}
		p, o := &points[i], &out[i/each]
		o.Add(&p.Counts)
		o.P50, o.P99 = max(o.P50, p.P50), max(o.P99, p.P99)
	}
	return out
}

// lines are the values of the lines of one variant.
type lines struct{ offered, sent, good, failed, refused, p50, p99 []float64 }

func linesOf(points []replay.Point, seconds int) (l lines) {
	rate := func(list *[]float64, n uint64) { *list = append(*list, float64(n)/float64(seconds)) }
	for i := range points {
		p := &points[i]
		rate(&l.offered, p.Offered)
		rate(&l.sent, p.Sent)
		rate(&l.good, p.Good)
		rate(&l.failed, p.Failed)
		rate(&l.refused, p.Refused)
		p50, p99 := p.P50.Seconds(), p.P99.Seconds()
		if p.Good == 0 {
			p50, p99 = math.NaN(), math.NaN()
		}
		l.p50, l.p99 = append(l.p50, p50), append(l.p99, p99)
	}
	return l
}

// decade is the power of ten beside a number of seconds.
func decade(v float64, round func(float64) float64) float64 {
	return math.Pow(10, round(math.Log10(max(v, 1e-6))))
}

func plain(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// span writes seconds.
func span(v float64) string {
	return time.Duration(math.Round(v * float64(time.Second))).String()
}
