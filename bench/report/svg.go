package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Chart geometry in pixels.
const (
	chartWidth  = 860
	panelHeight = 250
	panelTop    = 44 // title of a panel
	marginLeft  = 56
	marginRight = 16
	labelHeight = 34 // under a panel
	legendTop   = 34
)

// colour tells subjects apart on a light and on a dark ground; the i-th one
// gets one of its own when it is not known by name.
func colour(subject string, i int) string {
	switch subject {
	case "outrigger":
		return "#1f9e89"
	case "haproxy":
		return "#5b7fd6"
	case "nginx":
		return "#d9822b"
	case "reverseproxy":
		return "#9a6fb8"
	}
	more := []string{"#c2557a", "#8a8d3a", "#4aa3c4", "#a0695a"}
	return more[i%len(more)]
}

// SVG draws CPU time per request as grouped bars: a panel for HTTP/1.1 plain
// and one for the mesh hop, as far as the run has them. A bar is the median,
// its line reaches from the best to the worst slice and is cut at the top of
// the panel. The colours follow the reader's light or dark scheme.
func (r *Report) SVG() []byte {
	type panel struct {
		title string
		rows  []Row
	}
	var panels []panel
	for _, p := range []panel{
		{"HTTP/1.1 plain: CPU µs per request", r.byScenario(H1Plain)},
		{"Mesh hop, both sidecars: CPU µs per request", r.byScenario(MeshHop)},
	} {
		if len(p.rows) > 0 {
			panels = append(panels, p)
		}
	}
	var subjects []string
	for _, p := range panels {
		for _, row := range p.rows {
			if !slices.Contains(subjects, row.Subject) {
				subjects = append(subjects, row.Subject)
			}
		}
	}
	height := legendTop + len(panels)*(panelTop+panelHeight+labelHeight) + 8
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="CPU time per request">`+"\n",
		chartWidth, height, chartWidth, height)
	b.WriteString(`<style>
text{font:12px system-ui,sans-serif;fill:#24292f}
.title{font-size:14px;font-weight:600}
.grid{stroke:#d0d7de}
.range{stroke:#57606a;stroke-width:1.5}
.ground{fill:#ffffff}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#30363d}.range{stroke:#adb6c0}.ground{fill:#0d1117}}
</style>
`)
	fmt.Fprintf(&b, `<rect class="ground" width="%d" height="%d"/>`+"\n", chartWidth, height)
	x := marginLeft
	for i, s := range subjects {
		fmt.Fprintf(&b, `<rect x="%d" y="12" width="12" height="12" fill="%s"/><text x="%d" y="22">%s</text>`+"\n", x, colour(s, i), x+17, html.EscapeString(s))
		x += 40 + 7*len(s)
	}
	for i, p := range panels {
		drawPanel(&b, legendTop+i*(panelTop+panelHeight+labelHeight), p.title, p.rows, subjects)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func drawPanel(b *strings.Builder, top int, title string, rows []Row, subjects []string) {
	fmt.Fprintf(b, `<text class="title" x="%d" y="%d">%s</text>`+"\n", marginLeft, top+24, html.EscapeString(title))
	top += panelTop
	most := 0.0
	var levels []int
	for _, row := range rows {
		most = max(most, row.CPU)
		if !slices.Contains(levels, row.Connections) {
			levels = append(levels, row.Connections)
		}
	}
	slices.Sort(levels)
	step, limit := axis(most * 1.15)
	y := func(v float64) float64 { return float64(top) + panelHeight*(1-min(v, limit)/limit) }
	for i := 0; float64(i)*step <= limit+step/2; i++ {
		v := float64(i) * step
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			marginLeft, chartWidth-marginRight, y(v), y(v), marginLeft-8, y(v)+4, strconv.FormatFloat(v, 'g', 6, 64))
	}
	group := float64(chartWidth-marginLeft-marginRight) / float64(len(levels))
	bar := min(group*0.8/float64(len(subjects)), 48)
	for i, level := range levels {
		center := marginLeft + group*(float64(i)+0.5)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%d %s</text>`+"\n", center, top+panelHeight+20, level, plural(level, "connection"))
		left := center - bar*float64(len(subjects))/2
		for j, s := range subjects {
			k := slices.IndexFunc(rows, func(r Row) bool { return r.Connections == level && r.Subject == s })
			if k < 0 || rows[k].CPU == 0 {
				continue
			}
			row, x := rows[k], left+bar*float64(j)
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s: median %s, best %s, worst %s</title></rect>`+"\n",
				x+1, y(row.CPU), bar-2, float64(top+panelHeight)-y(row.CPU), colour(s, j), html.EscapeString(s), number(row.CPU), number(row.CPUMin), number(row.CPUMax))
			fmt.Fprintf(b, `<line class="range" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text x="%.1f" y="%.1f" text-anchor="middle">%.0f</text>`+"\n",
				x+bar/4, x+bar/4, y(row.CPUMin), y(row.CPUMax), x+bar*0.6, y(row.CPU)-4, row.CPU)
		}
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// axis picks a round step of the form 1, 2 or 5 times a power of ten, so that
// three to eight of them reach up to most.
func axis(most float64) (step, limit float64) {
	if most <= 0 {
		return 1, 5
	}
	power := math.Pow(10, math.Floor(math.Log10(most/5)))
	steps := []float64{power, 2 * power, 5 * power, 10 * power}
	i, _ := slices.BinarySearch(steps, most/7)
	step = steps[min(i, len(steps)-1)]
	return step, step * math.Ceil(most/step)
}
