package report

import (
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/internal/chart"
)

// Chart is one drawing of the page: the panels of a group of scenarios.
type Chart struct {
	File  string
	Title string
	SVG   []byte
}

// Chart geometry in pixels.
const (
	chartTop    = chart.Top
	panelWidth  = 430
	panelTop    = 34 // title of a panel
	panelEnd    = 14
	rowHeight   = 21
	barHeight   = 13
	barsLeft    = 108 // names of the subjects stand before it
	barsWidth   = 246
	valueLeft   = barsLeft + barsWidth + 8
	panelsInRow = 2
)

// bar is one subject in a panel.
type bar struct {
	subject          string
	value, low, high float64 // low and high are 0 where there is no range
}

// panel is one scenario at one level, on a scale of its own from zero.
type panel struct {
	title string
	bars  []bar
}

// Charts are those that the run has rows for.
func (r *Report) Charts() []Chart {
	cpu := func(row Row) bar { return bar{row.Subject, row.figure(), row.CPUMin, row.CPUMax} }
	of := func(scenario, title string, to func(Row) bar) []panel { return r.panels(scenario, title, to) }
	var charts []Chart
	add := func(file, title, about string, groups ...[]panel) {
		if panels := slices.Concat(groups...); len(panels) > 0 {
			charts = append(charts, Chart{file, title, draw(title, about, panels)})
		}
	}
	const perRequest = "CPU µs per request, less is better. Bar: median of the slices; line: best to worst slice. Each panel has a scale of its own, from zero"
	add(chartHTTP1, "HTTP/1.1 through one proxy", perRequest, of(H1Plain, "%s connections", cpu), of(Cores, "%s cores, 64 connections", cpu))
	add(chartMesh, "The mesh hop: two sidecars with mutual TLS 1.3", perRequest, of(MeshHop, "HTTP/1.1, %s connections", cpu),
		of(MeshGRPC, "gRPC unary, %s streams", cpu), of(MeshTCP, "TCP: µs per MB, %s connections", cpu))
	add(chartHTTP2, "HTTP/2 and gRPC through one proxy", perRequest, of(H2, "HTTP/2, %s streams", cpu), of(GRPCUnary, "gRPC unary, %s streams", cpu), of(GRPCStream, "gRPC messages, %s streams", cpu))
	add(chartStreams, "WebSocket and TCP through one proxy", "CPU µs per message there and back, and per MB, less is better. Bar: median of the slices; line: best to worst. Each panel has its own scale, from zero",
		of(WebSocket, "WebSocket messages, %s connections", cpu), of(TCP, "TCP: µs per MB, %s connections", cpu))
	add(chartBodies, "Answers of three sizes over HTTP/1.1", perRequest, of(Body, "%s, 16 connections", cpu))
	add(chartEndpoints, "Many endpoints behind one proxy", perRequest, of(Endpoints, "%s endpoints, 64 connections", cpu))
	quantile := func(of func(Row) float64) func(Row) bar {
		return func(row Row) bar { return bar{subject: row.Subject, value: of(row)} }
	}
	add(chartLatency, "Latency at a fixed rate", "µs from the intended start of each request, less is better; direct is without a proxy. Each panel has a scale of its own, from zero",
		of(Latency, "median, %s connections", quantile(func(row Row) float64 { return row.P50 })),
		of(Latency, "p99, %s connections", quantile(func(row Row) float64 { return row.P99 })),
		of(Latency, "p99.9, %s connections", quantile(func(row Row) float64 { return row.P999 })))
	add(chartConnections, "What a connection costs", "Resident kB of an idle connection, and CPU µs of a mutual TLS handshake, less is better. Each panel has a scale of its own, from zero",
		of(Idle, "kB per connection, %s of them idle", cpu), of(IdleH2, "kB per HTTP/2 connection, %s of them idle", cpu), of(Handshake, "CPU µs per handshake", cpu))
	return charts
}

// panels are those of one scenario: one for each label in the first column of
// its table, which takes the place of %s in the title. A bar without a
// subject, or without a figure, is left out.
func (r *Report) panels(scenario, title string, to func(Row) bar) []panel {
	var labels []string
	var panels []panel
	for _, row := range r.rowsOf(scenario) {
		b := to(row)
		if b.subject == "" || row.figure() == 0 && b.value == 0 {
			continue
		}
		i := slices.Index(labels, row.label())
		if i < 0 {
			i = len(labels)
			labels = append(labels, row.label())
			name := strings.Replace(title, "%s", row.label(), 1)
			if row.label() == "1" {
				name = strings.Replace(name, "1 connections", "1 connection", 1)
			}
			panels = append(panels, panel{title: name})
		}
		panels[i].bars = append(panels[i].bars, b)
	}
	return panels
}

func (p *panel) height() int { return panelTop + rowHeight*len(p.bars) + panelEnd }

// How bars look in the light and the dark scheme.
const (
	barsLight = `.own{font-weight:700}
.bar{fill:#9fb1c7}
.bar.base{fill:none;stroke:#8c959f}
.bar.own{fill:#12806c}
.range{stroke:#24292f;stroke-width:1.5;fill:none}
.halo{stroke:#ffffff;stroke-width:3.5;stroke-opacity:.75}
`
	barsDark = `.bar{fill:#56657a}.bar.own{fill:#2bb89c}.range{stroke:#e6edf3}.halo{stroke:#0d1117}`
)

// draw puts panels side by side. Names and figures are written out beside the
// bars, so that no colour and no grid needs to be read; Outrigger stands out.
// The colours follow the reader's light or dark scheme.
func draw(title, about string, panels []panel) []byte {
	height := chartTop
	for i := 0; i < len(panels); i += panelsInRow {
		height += rowOf(panels, i)
	}
	var b strings.Builder
	chart.Begin(&b, height, title, about, barsLight, barsDark)
	top := chartTop
	for i := range panels {
		drawPanel(&b, i%panelsInRow*panelWidth, top, &panels[i])
		if i%panelsInRow == panelsInRow-1 {
			top += rowOf(panels, i-panelsInRow+1)
		}
	}
	chart.End(&b)
	return []byte(b.String())
}

// rowOf is the height of the panels that stand side by side from number i on.
func rowOf(panels []panel, i int) int {
	most := 0
	for _, p := range panels[i:min(i+panelsInRow, len(panels))] {
		most = max(most, p.height())
	}
	return most
}

func drawPanel(b *strings.Builder, left, top int, p *panel) {
	fmt.Fprintf(b, `<text class="panel" x="%d" y="%d">%s</text>`+"\n", left+12, top+22, html.EscapeString(p.title))
	top += panelTop
	// The scale has room for the ranges, but not so much for one wild slice
	// that the bars become too short to compare: such a line ends in an arrow.
	longest, most := 0.0, 0.0
	for _, s := range p.bars {
		longest, most = max(longest, s.value), max(most, s.value, s.high)
	}
	most = min(most, 1.3*longest)
	x := func(v float64) float64 {
		if most <= 0 {
			return float64(left + barsLeft)
		}
		return float64(left+barsLeft) + barsWidth*min(1, max(0, v)/most)
	}
	for i, s := range p.bars {
		y := top + i*rowHeight
		own := ""
		switch s.subject {
		case "outrigger":
			own = " own"
		case directName:
			own = " base"
		}
		name := html.EscapeString(s.subject)
		fmt.Fprintf(b, `<text class="name%s" x="%d" y="%d" text-anchor="end">%s</text>`, own, left+barsLeft-8, y+11, name)
		fmt.Fprintf(b, `<rect class="bar%s" x="%d" y="%d" width="%.1f" height="%d"><title>%s: median %s, best %s, worst %s</title></rect>`,
			own, left+barsLeft, y, x(s.value)-x(0), barHeight, name, number(s.value), cell(s.low), cell(s.high))
		if s.high > s.low {
			middle := float64(y) + barHeight/2.0
			path := fmt.Sprintf("M%.1f %.1fv6m0 -3H%.1f", x(s.low), middle-3, x(s.high))
			if s.high > most {
				path += "m-4 -3l4 3l-4 3"
			} else {
				path += "m0 -3v6"
			}
			fmt.Fprintf(b, `<path class="range halo" d="%s"/><path class="range" d="%s"/>`, path, path)
		}
		fmt.Fprintf(b, `<text class="value%s" x="%d" y="%d">%s</text>`+"\n", own, left+valueLeft, y+11, number(s.value))
	}
	fmt.Fprintf(b, `<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>`+"\n", left+barsLeft, left+barsLeft, top-3, top+rowHeight*len(p.bars)-4)
}
