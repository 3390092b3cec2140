package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
	}
}

func TestLines(t *testing.T) {
	svg := Lines("<one> & two", `about "it"`, []Row{{Name: "a < b", Panels: []Panel{
		{Title: "t:", Step: 1, Top: 10, Format: number, Spans: []Span{{From: 1, To: 2, Name: "<down>"}}, Series: []Series{
			{Name: "all", Tone: Area, Values: []float64{5, 5, 5, 5}},
			{Name: "some", Tone: Red, Values: []float64{0, math.NaN(), 10, 20}},
			{Name: "none", Tone: Blue},
		}},
		{Title: "log:", Step: 1, Log: true, Low: 1, Top: 1000, Format: number, Series: []Series{{Name: "x", Tone: Green, Values: []float64{1, 10, 0, 1e9}}}},
	}}})
	wellFormed(t, svg)
	s := string(svg)
	for _, want := range []string{"&lt;one&gt; &amp; two", "a &lt; b", "<title>&lt;down&gt;</title>"} {
		if !strings.Contains(s, want) {
			t.Errorf("%s is missing in\n%s", want, s)
		}
	}
	i := strings.Index(s, `class="line red" d="`)
	if i < 0 || strings.Count(s[i:i+80], "M") != 2 {
		t.Errorf("the gap is drawn over:\n%s", s)
	}
	if strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
		t.Errorf("%s", s)
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		panel Panel
		want  []float64
	}{
		{Panel{Top: 10}, []float64{0, 5, 10}},
		{Panel{Top: 600}, []float64{0, 200, 400, 600}},
		{Panel{Top: 1}, []float64{0, .5, 1}},
		{Panel{Top: 0}, nil},
		{Panel{Log: true, Low: .001, Top: 1}, []float64{.001, .01, .1, 1}},
	} {
		got := c.panel.ticks()
		if !slices.EqualFunc(got, c.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) {
			t.Errorf("%+v: %v, want %v", c.panel, got, c.want)
		}
	}
	for v, want := range map[float64]float64{0: 1, 7: 8, 10: 10, 561: 600, 3000: 3000, .03: .03} {
		if got := Round(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("Round(%v) = %v, want %v", v, got, want)
		}
	}
}
