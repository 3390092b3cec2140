package report

import (
	"strings"
	"testing"
)

func TestMemory(t *testing.T) {
	r := example()
	m := r.Memory[0]
	if m.Parts[0].KB != 1.02 || m.Parts[1].KB != 2.05 || m.Parts[3].KB != -0.2 {
		t.Errorf("%+v", m.Parts)
	}
	if len(m.Functions) != 2 || m.Functions[0].KB != 1.64 || m.Functions[1] != (Amount{"bufio.NewReader", 0.41}) {
		t.Errorf("%+v", m.Functions)
	}
	if got, want := m.summary(), "objects, garbage among them 2.05 kB, goroutine stacks 1.02 kB, heap not given back 0.41 kB"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if text := string(m.Text()); !strings.HasPrefix(text, "Memory of idle HTTP/2 connections, 5000:") || !strings.Contains(text, "    1.64  "+modulePrefix+"proxy/http2.newConn\n") {
		t.Errorf("%s", text)
	}
	page := r.Markdown()
	if want := "| Memory of idle HTTP/2 connections | 1.02 | 2.05 | 0.41 | -0.20 | `proxy/http2.newConn` 1.64, `bufio.NewReader` 0.41 |"; !strings.Contains(page, want) {
		t.Errorf("the page lacks %s", want)
	}
}
