package chart

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Series is one line of a panel: a value for each step of time. NaN is a gap.
type Series struct {
	Name   string
	Tone   Tone
	Values []float64
}

// Tone is the look of a series.
type Tone string

// The tones. Area is filled, for what the others are a part of.
const (
	Area   Tone = "area"
	Green  Tone = "green"
	Orange Tone = "orange"
	Red    Tone = "red"
	Blue   Tone = "blue"
	Violet Tone = "violet"
)

// Span is a stretch of time with a name, such as that of a failure.
type Span struct {
	From, To float64 // in steps
	Name     string
}

// Panel is one diagram over time.
type Panel struct {
	Title  string
	Series []Series
	Spans  []Span
	// Step is the time of a step in seconds.
	Step float64
	// Top is the end of the scale; Log begins it at Low, which is above 0, and
	// makes it logarithmic.
	Top, Low float64
	Log      bool
	// Format writes a value on the scale.
	Format func(float64) string
}

// Row is panels side by side, with a name above them.
type Row struct {
	Name   string
	Panels []Panel
}

// Geometry in pixels.
const (
	rowName    = 22
	panelTop   = 24
	plotHeight = 120
	panelEnd   = 26
	plotLeft   = 54
	plotRight  = 12
)

const (
	linesLight = `.grid{stroke:#d0d7de;stroke-dasharray:2 3}
.span{fill:#cf222e;fill-opacity:.09}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.area{fill:#9fb1c7;fill-opacity:.45}
.green{stroke:#12806c}
.orange{stroke:#d4760a}
.red{stroke:#cf222e}
.blue{stroke:#0969da}
.violet{stroke:#8250df}
`
	linesDark = `.grid{stroke:#30363d}.span{fill:#f85149;fill-opacity:.14}.area{fill:#56657a}.green{stroke:#2bb89c}.orange{stroke:#e8943a}.red{stroke:#f85149}.blue{stroke:#58a6ff}.violet{stroke:#b083f0}`
)

// Lines draws rows of panels.
func Lines(title, about string, rows []Row) []byte {
	height := Top
	for i := range rows {
		height += rows[i].height()
	}
	var b strings.Builder
	Begin(&b, height, title, about, linesLight, linesDark)
	top := Top
	for i := range rows {
		r := &rows[i]
		if r.Name != "" {
			fmt.Fprintf(&b, `<text class="panel" x="12" y="%d">%s</text>`+"\n", top+14, html.EscapeString(r.Name))
			top += rowName
		}
		width := Width / max(len(r.Panels), 1)
		for k := range r.Panels {
			r.Panels[k].draw(&b, k*width, top, width)
		}
		top += panelTop + plotHeight + panelEnd
	}
	End(&b)
	return []byte(b.String())
}

func (r *Row) height() int {
	h := panelTop + plotHeight + panelEnd
	if r.Name != "" {
		h += rowName
	}
	return h
}

// draw writes the panel with its legend, scale, spans and lines.
func (p *Panel) draw(b *strings.Builder, left, top, width int) {
	x := left + 12
	fmt.Fprintf(b, `<text class="about" x="%d" y="%d">%s</text>`, x, top+12, html.EscapeString(p.Title))
	x += 8 + 6*len([]rune(p.Title))
	for _, s := range p.Series {
		if s.Tone == Area {
			fmt.Fprintf(b, `<rect class="area" x="%d" y="%d" width="14" height="8"/>`, x, top+4)
		} else {
			fmt.Fprintf(b, `<line class="line %s" x1="%d" x2="%d" y1="%d" y2="%d"/>`, s.Tone, x, x+14, top+8, top+8)
		}
		fmt.Fprintf(b, `<text class="about" x="%d" y="%d">%s</text>`, x+18, top+12, html.EscapeString(s.Name))
		x += 26 + 6*len([]rune(s.Name))
	}
	b.WriteByte('\n')
	plot := frame{p: p, left: float64(left + plotLeft), right: float64(left + width - plotRight), top: float64(top + panelTop), bottom: float64(top + panelTop + plotHeight)}
	for _, s := range p.Series {
		plot.steps = max(plot.steps, len(s.Values))
	}
	plot.spans(b)
	plot.scale(b)
	for i := range p.Series {
		plot.series(b, &p.Series[i])
	}
}

// frame is where a panel's plot stands.
type frame struct {
	p                        *Panel
	left, right, top, bottom float64
	steps                    int
}

func (f *frame) x(step float64) float64 {
	return f.left + (f.right-f.left)*min(max(step/float64(max(f.steps, 1)), 0), 1)
}

func (f *frame) y(v float64) float64 {
	part := 0.0
	if f.p.Log {
		if low := f.p.Low; v > low && f.p.Top > low {
			part = math.Log(v/low) / math.Log(f.p.Top/low)
		}
	} else if f.p.Top > 0 {
		part = v / f.p.Top
	}
	return f.bottom - (f.bottom-f.top)*min(max(part, 0), 1)
}

func (f *frame) spans(b *strings.Builder) {
	for _, s := range f.p.Spans {
		from, to := f.x(s.From), f.x(s.To)
		fmt.Fprintf(b, `<rect class="span" x="%.1f" y="%.0f" width="%.1f" height="%.0f"><title>%s</title></rect>`+"\n",
			from, f.top, max(to-from, 1), f.bottom-f.top, html.EscapeString(s.Name))
	}
}

// scale writes values at the left and times below.
func (f *frame) scale(b *strings.Builder) {
	for _, v := range f.p.ticks() {
		y := f.y(v)
		fmt.Fprintf(b, `<line class="axis grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/><text class="about" x="%.0f" y="%.1f" text-anchor="end">%s</text>`+"\n",
			f.left, f.right, y, y, f.left-6, y+4, html.EscapeString(f.p.Format(v)))
	}
	fmt.Fprintf(b, `<line class="axis" x1="%.0f" x2="%.0f" y1="%.0f" y2="%.0f"/>`+"\n", f.left, f.right, f.bottom, f.bottom)
	end := float64(f.steps) * f.p.Step
	each := tickOf(end, 6)
	for t := 0.0; t <= end*1.0001 && each > 0; t += each {
		anchor := "middle"
		if f.x(t/f.p.Step) > f.right-16 {
			anchor = "end" // else it would be cut off
		}
		fmt.Fprintf(b, `<text class="about" x="%.0f" y="%.0f" text-anchor="%s">%s s</text>`, f.x(t/f.p.Step), f.bottom+15, anchor, strconv.FormatFloat(t, 'f', -1, 64))
	}
	b.WriteByte('\n')
}

// ticks are the values that the scale names.
func (p *Panel) ticks() (list []float64) {
	if p.Log {
		for v := math.Pow(10, math.Floor(math.Log10(p.Low))); v <= p.Top*1.0001 && len(list) < 12; v *= 10 {
			if v >= p.Low*.9999 {
				list = append(list, v)
			}
		}
		return list
	}
	each := tickOf(p.Top, 4)
	for v := 0.0; v <= p.Top*1.0001 && each > 0; v += each {
		list = append(list, v)
	}
	return list
}

// tickOf is a round distance of at most so many ticks up to top.
func tickOf(top float64, most int) float64 {
	if !(top > 0) || math.IsInf(top, 0) {
		return 0
	}
	each := math.Pow(10, math.Floor(math.Log10(top/float64(most))))
	for _, k := range []float64{1, 2, 5, 10} {
		if top/(each*k) <= float64(most) {
			return each * k
		}
	}
	return each * 10
}

// Round returns a round number not below v, for the top of a scale.
func Round(v float64) float64 {
	if each := tickOf(v, 4); each > 0 {
		return math.Ceil(v/each-1e-9) * each
	}
	return 1
}

func (f *frame) series(b *strings.Builder, s *Series) {
	var path strings.Builder
	open := false
	for i, v := range s.Values {
		if math.IsNaN(v) {
			open = false
			continue
		}
		word := "L"
		if !open {
			word, open = "M", true
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", word, f.x(float64(i)+.5), f.y(v))
	}
	if path.Len() == 0 {
		return
	}
	if s.Tone == Area {
		fmt.Fprintf(b, `<path class="area" d="%sL%.1f %.0fL%.1f %.0fZ"/>`+"\n", path.String(), f.x(float64(len(s.Values))-.5), f.bottom, f.x(.5), f.bottom)
		return
	}
	fmt.Fprintf(b, `<path class="line %s" d="%s"/>`+"\n", s.Tone, path.String())
}
