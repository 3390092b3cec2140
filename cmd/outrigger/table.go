package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Colours of a terminal, by what they say.
const (
	toneGood = "\x1b[32m"
	toneWarn = "\x1b[33m"
	toneBad  = "\x1b[31m"
	toneSoft = "\x1b[2m"
	toneHead = "\x1b[1m"
	toneEnd  = "\x1b[0m"
)

// cell is one field of a table.
type cell struct {
	text  string
	tone  string // an escape sequence; empty for none
	right bool   // numbers stand at the right
}

func left(s string) cell             { return cell{text: s} }
func toned(tone, s string) cell      { return cell{text: s, tone: tone} }
func number(f string, a ...any) cell { return cell{text: fmt.Sprintf(f, a...), right: true} }
func (c cell) in(tone string) cell   { c.tone = tone; return c }
func (c cell) width() int            { return utf8.RuneCountInString(c.text) }
func head(names string) (row []cell) { // "-NAME" stands at the right
	for name := range strings.FieldsSeq(names) {
		text, right := strings.CutPrefix(name, "-")
		row = append(row, cell{text: text, tone: toneHead, right: right})
	}
	return row
}

// writeTable writes rows in aligned columns, each cut off at width (0: not),
// with tones when colour is set. The first row is the head.
func writeTable(w io.Writer, rows [][]cell, width int, colour bool) error {
	var widths []int
	for _, row := range rows {
		for i := range row {
			if row[i].text == "" {
				row[i].tone = toneSoft
			}
			row[i].text = admin.Plain(row[i].text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], row[i].width())
		}
	}
	for _, row := range rows {
		if _, err := io.WriteString(w, line(row, widths, width, colour)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// line is one row.
func line(row []cell, widths []int, width int, colour bool) string {
	var b strings.Builder
	at, pending := 0, 0 // columns written, spaces not yet written
	for i, c := range row {
		gap := widths[i] - c.width()
		if c.right {
			pending += gap
		}
		text := c.text
		if width > 0 && at+pending+c.width() > width {
			room := width - at - pending
			if room <= 0 {
				break
			}
			text = string([]rune(text)[:room-1]) + "…"
		}
		b.WriteString(strings.Repeat(" ", pending))
		if colour && c.tone != "" {
			text = c.tone + text + toneEnd
		}
		b.WriteString(text)
		at += pending + c.width()
		if width > 0 && at > width {
			break
		}
		pending = 2
		if !c.right {
			pending += gap
		}
	}
	return b.String()
}

// millis writes a number of milliseconds as people read it.
func millis(ms float64) string {
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.2fs", ms/1000)
	case ms >= 100:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.1fms", ms)
}
