package demo

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// style is a colour of the terminal (ECMA-48 select graphic rendition).
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

// span is text in one style. Widths count runes: nothing on the screen is wide
// or combining.
type span struct {
	text  string
	style style
}

type line []span

func text(format string, a ...any) span { return span{text: fmt.Sprintf(format, a...)} }

func (s style) of(format string, a ...any) span { return span{fmt.Sprintf(format, a...), s} }

// write appends the line, cut to width.
func (l line) write(b *strings.Builder, width int, colour bool) {
	for _, s := range l {
		t := clip(printable(s.text), width)
		width -= utf8.RuneCountInString(t)
		if !colour || s.style == plain || t == "" {
			b.WriteString(t)
		} else {
			b.WriteString("\x1b[" + string(s.style) + "m" + t + "\x1b[0m")
		}
	}
}

// clip cuts to width runes.
func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width <= 0 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "…"
}

// printable keeps what a process said from moving the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// wrap breaks text at spaces into up to n lines of width runes.
func wrap(s string, width, n int) []string {
	var out []string
	current := ""
	for _, word := range strings.Fields(s) {
		switch {
		case current == "":
			current = word
		case utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) <= width:
			current += " " + word
		default:
			out = append(out, current)
			current = word
		}
	}
	out = append(out, current)
	if len(out) > n {
		out[n-1] = clip(strings.Join(out[n-1:], " "), width)
		out = out[:n]
	}
	for len(out) < n {
		out = append(out, "")
	}
	return out
}

// between puts right at the end of a line of width.
func between(left, right span, width int) line {
	gap := width - utf8.RuneCountInString(left.text) - utf8.RuneCountInString(right.text)
	return line{left, text("%*s", max(gap, 1), ""), right}
}

// frame makes a picture of lines: each overwrites the old one to its end, so
// that nothing flickers.
func frame(lines []string) string {
	return "\x1b[H" + strings.Join(lines, "\x1b[K\r\n") + "\x1b[K\x1b[J"
}

// render draws the screen: at most height lines of at most width columns. It
// is made for 80x24; a larger one has room for more events, in a smaller one
// the end is missing.
func (v *view) render(width, height int, colour bool) []string {
	inner := width - 1
	rule := line{dim.of(" %s", strings.Repeat("─", max(inner-1, 0)))}
	lines := []line{
		between(bold.of(" Outrigger demo"), dim.of("%s", v.remaining()), inner),
		{dim.of(" load → web → sidecar ═ mTLS ═ sidecar → api ×%d  %s", len(v.Instances), v.Discovery)},
		rule,
	}
	for i, s := range wrap(v.sentence(), inner-7, 2) {
		label := "      "
		if i == 0 {
			label = " NOW  "
		}
		lines = append(lines, line{cyan.of("%s", label), bold.of("%s", s)})
	}
	lines = append(lines,
		rule,
		line{dim.of(" %-11s%10s %8s %9s %9s %9s %7s %8s", "TRAFFIC", "requests/s", "success", "p50", "p99", "requests", "failed", "retries")},
		v.figures("last 10 s", v.Recent),
		v.figures("since start", v.Total),
		rule,
		line{dim.of(" %-6s%-16s%-11s %5s %6s  %s", "API", "endpoint", "state", "req/s", "failed", "out for, because")},
	)
	for i := range v.Instances {
		lines = append(lines, v.Instances[i].row(v.Now))
	}
	lines = append(lines, rule, v.guards(), v.identities(), rule)

	admins := v.admins()
	room := max(height-len(lines)-len(admins), 0)
	shown := v.Events[max(len(v.Events)-room, 0):]
	for i := range shown {
		e := &shown[i]
		lines = append(lines, line{dim.of(" %s %6.1fs  ", e.At.Format(time.TimeOnly), e.Seconds), e.severity().of("%s", e.text())})
	}
	for range room - len(shown) {
		lines = append(lines, nil)
	}
	lines = append(lines, admins...)

	out := make([]string, 0, height)
	for _, l := range lines[:min(len(lines), height)] {
		var b strings.Builder
		l.write(&b, inner, colour)
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

func (v *view) remaining() string {
	ran := v.Now.Sub(v.Began)
	if v.Duration > 0 {
		return clock(ran) + " of " + clock(v.Duration) + "   Ctrl-C ends"
	}
	return clock(ran) + "   Ctrl-C ends"
}

func (v *view) figures(label string, f figures) line {
	ok := green
	if f.Failures > 0 {
		ok = red
	}
	failed := plain
	if f.Failures > 0 {
		failed = red
	}
	return line{
		text(" %-11s%10.1f ", label, f.rate()), ok.of("%8s", percent(f)),
		text(" %9s %9s %9d ", f.latency(f.P50), f.latency(f.P99), f.Requests),
		failed.of("%7d", f.Failures), text(" %8d", f.Retries),
	}
}

func (in *instance) row(now time.Time) line {
	state := in.stateWord()
	colour := yellow
	switch {
	case in.out():
		colour = red
	case state == "healthy":
		colour = green
	}
	failed := plain
	if in.Failed > 0 {
		failed = red
	}
	return line{
		text(" %-6s%-16s", in.Name, in.Address), colour.of("● %-9s", state),
		text(" %5.0f ", in.Rate), failed.of("%6.0f", in.Failed), dim.of("  %s", in.detail(now)),
	}
}

func (v *view) guards() line {
	l := line{dim.of(" GUARDS    "), text("ejections %d", v.Ejections), text("   retries that may be made now %.0f", v.Budget)}
	if v.Breaker != "" {
		colour := green
		if v.Breaker != "closed" {
			colour = red
		}
		l = append(l, text("   breaker "), colour.of("%s", words(v.Breaker)))
	}
	if v.NotSent > 0 {
		l = append(l, yellow.of("   not sent %d", v.NotSent))
	}
	return l
}

func (v *view) identities() line {
	return line{
		dim.of(" IDENTITY  "), text("%s", orNone(v.Clients)), dim.of(" calls "), text("%s", orNone(v.Servers)),
	}
}

func orNone(ids []string) string {
	if len(ids) == 0 {
		return "-"
	}
	return strings.Join(ids, ", ")
}

// admins are the pages of all sidecars, two a line.
func (v *view) admins() []line {
	all := []instance{{Name: serviceWeb, Admin: v.WebAdmin}}
	all = append(all, v.Instances...)
	var lines []line
	for i := range all {
		if i%2 == 0 {
			label := ""
			if i == 0 {
				label = "ADMIN"
			}
			lines = append(lines, line{dim.of(" %-10s", label)})
		}
		last := &lines[len(lines)-1]
		*last = append(*last, text("%-6s", all[i].Name), cyan.of("%-27s", "http://"+all[i].Admin+"/"))
	}
	return lines
}
