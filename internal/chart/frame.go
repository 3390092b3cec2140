// Package chart draws SVG that follows the reader's light or dark scheme and needs nothing beside itself.
package chart

import (
	"fmt"
	"html"
	"strings"
)

// Width is that of every drawing, and Top the height of its title and of the
// line below that, in pixels.
const (
	Width = 860
	Top   = 46
)

// Begin opens a drawing with its title and what it is about. light and dark are
// rules of style beside those of every drawing: text, .title, .panel, .about,
// .axis and .ground.
func Begin(b *strings.Builder, height int, title, about, light, dark string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		Width, height, Width, height, html.EscapeString(title))
	b.WriteString(`<style>
text{font:12px system-ui,sans-serif;fill:#24292f}
.title{font-size:15px;font-weight:600}
.panel{font-size:13px;font-weight:600}
.about{font-size:11px;fill:#57606a}
` + light + `.axis{stroke:#8c959f}
.ground{fill:#ffffff}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.about{fill:#9198a1}` + dark + `.axis{stroke:#6e7681}.ground{fill:#0d1117}}
</style>
`)
	fmt.Fprintf(b, `<rect class="ground" width="%d" height="%d"/>`+"\n", Width, height)
	fmt.Fprintf(b, `<text class="title" x="12" y="22">%s</text><text class="about" x="12" y="39">%s</text>`+"\n", html.EscapeString(title), html.EscapeString(about))
}

// End closes a drawing.
func End(b *strings.Builder) { b.WriteString("</svg>\n") }
