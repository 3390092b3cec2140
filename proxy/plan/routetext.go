package plan

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// text says in one line which requests the route takes and what becomes of them.
func (r *Route) text() string {
	words := []string{r.Match.text(), "->"}
	switch {
	case r.Refuse != outcome.OK:
		words = append(words, "refuse "+r.Refuse.String())
	case r.Reply != nil:
		words = append(words, fmt.Sprintf("respond %d, %d bytes", r.Reply.Status, len(r.Reply.Body)))
	case len(r.Split) > 0:
		below := uint32(0)
		for _, s := range r.Split {
			words = append(words, fmt.Sprintf("%g%% %s", float64(s.Below-below)/100, s.Route.destination()))
			if e := s.Route.editsText(); e != "" {
				words = append(words, "("+e+")")
			}
			below = s.Below
		}
	default:
		words = append(words, r.destination())
	}
	switch w := &r.Rewrite; {
	case w.On && w.Cut < 0:
		words = append(words, fmt.Sprintf("path=%q", w.To))
	case w.On:
		words = append(words, fmt.Sprintf("prefix=%q", w.To))
	}
	if e := r.editsText(); e != "" && len(r.Split) == 0 {
		words = append(words, e)
	}
	if p := r.Policy; p != nil {
		words = append(words, fmt.Sprintf("timeout=%s stream_idle=%s", none(p.Timeout), none(p.StreamIdle)))
		if p.Retry == nil {
			words = append(words, "retry=off")
		} else {
			words = append(words, fmt.Sprintf("retry=%+v", *p.Retry))
		}
		if p.Hedge != nil {
			words = append(words, fmt.Sprintf("hedge=%+v", *p.Hedge))
		}
	}
	return strings.Join(words, " ")
}

func (r *Route) editsText() string {
	var words []string
	if t := r.Request.text(); t != "" {
		words = append(words, "request "+t)
	}
	if t := r.Response.text(); t != "" {
		words = append(words, "response "+t)
	}
	return strings.Join(words, " ")
}

func (m *Match) text() string {
	var words []string
	if len(m.Methods) > 0 {
		words = append(words, strings.Join(m.Methods, "|"))
	}
	if m.GRPC {
		words = append(words, "grpc")
	}
	if m.Path.Kind != AnyText {
		words = append(words, "path "+m.Path.text())
	}
	for i := range m.Fields {
		f := &m.Fields[i]
		name := f.Name
		if f.ID != http1.Other {
			name = f.ID.String()
		}
		not := ""
		if f.Invert {
			not = "not "
		}
		words = append(words, not+"header "+name+" "+f.Value.text())
	}
	for i := range m.Query {
		words = append(words, "query "+m.Query[i].Name+" "+m.Query[i].Value.text())
	}
	if len(words) == 0 {
		return "all"
	}
	return strings.Join(words, " ")
}

func (t *Text) text() string {
	fold := ""
	if t.Fold {
		fold = "~"
	}
	switch t.Kind {
	case Exact:
		return fold + fmt.Sprintf("= %q", t.Value)
	case Prefix:
		return fold + fmt.Sprintf("^ %q", t.Value)
	case Suffix:
		return fold + fmt.Sprintf("$ %q", t.Value)
	case Regexp:
		return fmt.Sprintf("re %q", t.Value)
	}
	return "present"
}
