package compile

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
)

// routes gives l the table of the routes in list. own is the spec of the
// listener's own cluster.
func (c *compiler) routes(path string, l *plan.Listener, list []config.Route, unmatched config.Unmatched, own int) {
	if len(list) == 0 {
		return
	}
	routes := make([]*plan.Route, 0, len(list))
	for i := range list {
		if r := c.route(path+"["+strconv.Itoa(i)+"]", l.Name, list[i].Title(i), &list[i], own); r != nil {
			routes = append(routes, r)
		}
	}
	last := &l.Route
	if unmatched == config.UnmatchedRefuse {
		last = &plan.Route{Name: l.Route.Name, Refuse: outcome.NoRoute}
		c.use(last, own)
	}
	last.Path, last.Why = strings.TrimSuffix(path, "routes")+"unmatched", "no other route takes it"
	l.Routes = plan.NewTable(routes, last)
}

// route prepares one route; nil when it cannot be made.
func (c *compiler) route(path, listener, name string, r *config.Route, own int) *plan.Route {
	match, ok := c.match(path+".match", &r.Match)
	if !ok {
		return nil
	}
	p := &plan.Route{
		Name: name, Path: path, Why: conditions(&r.Match), Match: match, Rewrite: rewrite(r),
		Request: edits(r.RequestHeaders), Response: edits(r.ResponseHeaders), Reply: reply(r.Respond),
	}
	spec := own
	if r.To != "" {
		if spec = c.called(path+".to", r.To); spec < 0 {
			return nil
		}
	}
	if len(r.Split) > 0 && !c.split(path, p, r, &spec) {
		return nil
	}
	c.useSubset(p, spec, r.Subset)
	p.Policy = override(r, &c.draft.specs[spec].spec.Policy)
	c.limited(p, listener, r, spec)
	return p
}

// split gives p the destinations of r. spec becomes that of the first.
func (c *compiler) split(path string, p *plan.Route, r *config.Route, spec *int) bool {
	below := uint32(0)
	for i := range r.Split {
		s := &r.Split[i]
		at := c.called(path+".split["+strconv.Itoa(i)+"].service", s.Service)
		if at < 0 {
			return false
		}
		if i == 0 {
			*spec = at
		}
		below += parts(s.Weight)
		one := &plan.Route{
			Name: p.Name, Path: p.Path, Why: p.Why + ", and by its share of " + strconv.FormatFloat(s.Weight, 'g', -1, 64) + " %", Rewrite: p.Rewrite, Policy: override(r, &c.draft.specs[at].spec.Policy),
			Request: p.Request.And(edits(s.RequestHeaders)), Response: p.Response.And(edits(s.ResponseHeaders)),
		}
		c.useSubset(one, at, s.Subset)
		p.Split = append(p.Split, plan.Share{Below: below, Route: one})
	}
	return true
}

// parts is how many of plan.Parts a weight in percent is.
func parts(weight float64) uint32 { return uint32(math.Round(weight * plan.Parts / 100)) }

// override is the cluster's policy with what the route changes; nil when that
// is nothing.
func override(r *config.Route, p *upstream.Policy) *upstream.Policy {
	if r.Timeout == nil && r.StreamIdleTimeout == nil && r.Retry == nil && r.Hedge == nil {
		return nil
	}
	o := *p
	if r.Timeout != nil {
		o.Timeout = *r.Timeout
	}
	if r.StreamIdleTimeout != nil {
		o.StreamIdle = *r.StreamIdleTimeout
	}
	o.Retry, o.Hedge = r.Retry.Apply(p.Retry), r.Hedge.Apply(p.Hedge)
	return &o
}

func rewrite(r *config.Route) plan.Rewrite {
	switch w := r.Rewrite; {
	case w == nil:
		return plan.Rewrite{}
	case w.Path != "":
		return plan.Rewrite{On: true, Cut: -1, To: w.Path}
	default:
		return plan.Rewrite{On: true, Cut: len(r.Match.PathPrefix), To: w.PathPrefix}
	}
}

func edits(e *config.HeaderEdits) plan.Edits {
	if e == nil {
		return plan.Edits{}
	}
	return plan.NewEdits(lines(e.Set), lines(e.Add), e.Remove)
}

// lines are the fields in the order of their names.
func lines(m map[string]string) []plan.FieldLine {
	var list []plan.FieldLine
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, plan.FieldLine{Name: name, Value: m[name]})
	}
	return list
}

func reply(r *config.RouteReply) *plan.Reply {
	if r == nil {
		return nil
	}
	p := &plan.Reply{Status: r.Status, Reason: http.StatusText(r.Status), Body: []byte(r.Body)}
	if len(p.Body) > 0 {
		p.Type = r.ContentType
	}
	return p
}

func (c *compiler) match(path string, m *config.RouteMatch) (plan.Match, bool) {
	p := plan.Match{Methods: m.Methods}
	ok := true
	switch {
	case m.Path != "":
		p.Path = plain(plan.Exact, m.Path, m.IgnoreCase)
	case m.PathPrefix != "":
		p.Path = plain(plan.Prefix, m.PathPrefix, m.IgnoreCase)
	case m.PathRegex != "":
		p.Path = c.regex(path+".path_regex", m.PathRegex, m.IgnoreCase, &ok)
	case m.GRPC != nil && m.GRPC.Method != "":
		p.GRPC, p.Path = true, plain(plan.Exact, "/"+m.GRPC.Service+"/"+m.GRPC.Method, false)
	case m.GRPC != nil:
		p.GRPC, p.Path = true, plain(plan.Prefix, "/"+m.GRPC.Service+"/", false)
	}
	for i := range m.Headers {
		h := &m.Headers[i]
		f := plan.FieldMatch{ID: http1.FieldOf(h.Name), Name: strings.ToLower(h.Name), Invert: h.Invert}
		fold := f.ID == http1.Host
		switch {
		case h.Exact != "":
			f.Value = plain(plan.Exact, h.Exact, fold)
		case h.Prefix != "":
			f.Value = plain(plan.Prefix, h.Prefix, fold)
		case h.Suffix != "":
			f.Value = plain(plan.Suffix, h.Suffix, fold)
		case h.Regex != "":
			f.Value = c.regex(path+".headers["+strconv.Itoa(i)+"].regex", h.Regex, fold, &ok)
		}
		p.Fields = append(p.Fields, f)
	}
	for i := range m.Query {
		q := plan.QueryMatch{Name: m.Query[i].Name}
		switch {
		case m.Query[i].Exact != "":
			q.Value = plain(plan.Exact, m.Query[i].Exact, false)
		case m.Query[i].Regex != "":
			q.Value = c.regex(path+".query["+strconv.Itoa(i)+"].regex", m.Query[i].Regex, false, &ok)
		}
		p.Query = append(p.Query, q)
	}
	return p, ok
}

func plain(kind plan.TextKind, value string, fold bool) plan.Text {
	if fold {
		value = lowerASCII(value)
	}
	return plan.Text{Kind: kind, Value: value, Fold: fold}
}

// lowerASCII lowers what plan.Text folds, and no other letters.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

func (c *compiler) regex(path, text string, ignoreCase bool, ok *bool) plan.Text {
	re, err := config.FullRegexp(text, ignoreCase)
	if err != nil {
		c.problem(path, "is not a regular expression (RE2): %v", err)
		*ok = false
	}
	return plan.Text{Kind: plan.Regexp, Value: text, Regexp: re}
}
