package rerun

import (
	"fmt"
	"math"
	"strconv"

	"github.com/outrigger-mesh/outrigger/internal/chart"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
)

// Chart draws both runs over time, a row for each cluster and configuration; of the
// cluster of that name only, where there is one. next may be nil.
func (t *Trace) Chart(same, next *Result, only string) []byte {
	var rows []chart.Row
	for i, c := range t.clusters {
		if c.facts.Requests == 0 || only != "" && c.name != only {
			continue
		}
		group := []*ClusterResult{same.Clusters[i]}
		names := []string{c.name + ", the recorded configuration"}
		if next != nil {
			group = append(group, next.Clusters[i])
			names = append(names, c.name+", the new configuration")
		}
		rows = append(rows, t.rows(group, names, same.Interval.Seconds())...)
	}
	about := fmt.Sprintf("%s of recorded traffic from %s, replayed", t.Span.Round(1e6), t.From.Format("2006-01-02 15:04:05 MST"))
	return chart.Lines("Replay of an outcome log", about, rows)
}

// measure is a line of a panel.
type measure struct {
	name  string
	tone  chart.Tone
	value func(*replay.Point) float64
}

// rows draws group, each in a row, on the same scales.
func (t *Trace) rows(group []*ClusterResult, names []string, step float64) []chart.Row {
	rate := func(get func(*replay.Point) uint64) func(*replay.Point) float64 {
		return func(p *replay.Point) float64 { return float64(get(p)) / step }
	}
	panels := []struct {
		title    string
		measures []measure
	}{
		{"requests a second", []measure{
			{"came", chart.Area, rate(func(p *replay.Point) uint64 { return p.Offered })},
			{"good", chart.Green, rate(func(p *replay.Point) uint64 { return p.Good })},
			{"failed", chart.Red, rate(func(p *replay.Point) uint64 { return p.Failed })},
			{"refused", chart.Orange, rate(func(p *replay.Point) uint64 { return p.Refused })},
		}},
		{"ms", []measure{
			{"p50", chart.Blue, func(p *replay.Point) float64 { return millis(p.P50) }},
			{"p99", chart.Violet, func(p *replay.Point) float64 { return millis(p.P99) }},
		}},
		{"endpoints out, retries a second", []measure{
			{"out", chart.Red, func(p *replay.Point) float64 { return float64(p.Out) }},
			{"retries", chart.Orange, rate(func(p *replay.Point) uint64 { return p.Retries + p.Hedges })},
		}},
	}
	rows := make([]chart.Row, len(group))
	for g := range group {
		rows[g].Name = names[g]
	}
	for _, p := range panels {
		top := 0.0
		for g, c := range group {
			panel := chart.Panel{Title: p.title, Step: step, Format: func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }}
			for _, m := range p.measures {
				values := make([]float64, len(c.Stats.Points))
				for i := range c.Stats.Points {
					values[i] = m.value(&c.Stats.Points[i])
					top = max(top, values[i])
				}
				panel.Series = append(panel.Series, chart.Series{Name: m.name, Tone: m.tone, Values: values})
			}
			rows[g].Panels = append(rows[g].Panels, panel)
		}
		for g := range rows {
			panel := &rows[g].Panels[len(rows[g].Panels)-1]
			panel.Top = round(top)
		}
	}
	return rows
}

// round is the next number above v that has one digit, and 1 for 0.
func round(v float64) float64 {
	if v <= 0 {
		return 1
	}
	scale := math.Pow(10, math.Floor(math.Log10(v)))
	return math.Ceil(v/scale) * scale
}
