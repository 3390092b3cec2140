package plan

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// modelRoute is a route as a person would tell it, for the slow model.
type modelRoute struct {
	name    string
	path    string // "=/x", "^/x", "~/x" (exact without case), "*x*" (regular expression: contains); "" any
	methods []string
	header  string // "name=value", "name" or "!name=value"; "" none
	query   string // "name=value" or "name"; "" none
	grpc    bool
}

func (m *modelRoute) compile() *Route {
	r := &Route{Name: m.name, Match: Match{Methods: m.methods, GRPC: m.grpc}}
	if m.path != "" {
		value := m.path[1:]
		switch m.path[0] {
		case '=':
			r.Match.Path = Text{Kind: Exact, Value: value}
		case '^':
			r.Match.Path = Text{Kind: Prefix, Value: value}
		case '~':
			r.Match.Path = Text{Kind: Exact, Value: strings.ToLower(value), Fold: true}
		case '*':
			r.Match.Path = Text{Kind: Regexp, Regexp: re(".*" + strings.TrimSuffix(value, "*") + ".*")}
		}
	}
	if m.header != "" {
		name, value, valued := strings.Cut(strings.TrimPrefix(m.header, "!"), "=")
		f := FieldMatch{ID: http1.FieldOf(name), Name: strings.ToLower(name), Invert: m.header[0] == '!'}
		if valued {
			f.Value = Text{Kind: Exact, Value: value}
		}
		r.Match.Fields = []FieldMatch{f}
	}
	if m.query != "" {
		name, value, valued := strings.Cut(m.query, "=")
		q := QueryMatch{Name: name}
		if valued {
			q.Value = Text{Kind: Exact, Value: value}
		}
		r.Match.Query = []QueryMatch{q}
	}
	return r
}

// modelRequest is the same for a request.
type modelRequest struct {
	method, path, query string
	fields              []string // "name: value"
}

func (q *modelRequest) line() string {
	if q.query == "" {
		return q.method + " " + q.path
	}
	return q.method + " " + q.path + "?" + q.query
}

func (m *modelRoute) takes(q *modelRequest) bool {
	if m.path != "" {
		value := m.path[1:]
		switch m.path[0] {
		case '=':
			if q.path != value {
				return false
			}
		case '^':
			if !strings.HasPrefix(q.path, value) {
				return false
			}
		case '~':
			if !strings.EqualFold(q.path, value) {
				return false
			}
		case '*':
			if !strings.Contains(q.path, strings.TrimSuffix(value, "*")) {
				return false
			}
		}
	}
	if len(m.methods) > 0 && !slices.Contains(m.methods, q.method) {
		return false
	}
	has := func(want string) bool {
		name, value, valued := strings.Cut(want, "=")
		return slices.ContainsFunc(q.fields, func(line string) bool {
			n, v, _ := strings.Cut(line, ": ")
			return strings.EqualFold(n, name) && (!valued || v == value)
		})
	}
	switch {
	case strings.HasPrefix(m.header, "!"):
		if has(m.header[1:]) {
			return false
		}
	case m.header != "" && !has(m.header):
		return false
	}
	if m.query != "" {
		name, value, valued := strings.Cut(m.query, "=")
		ok := false
		for _, pair := range strings.Split(q.query, "&") {
			n, v, _ := strings.Cut(pair, "=")
			ok = ok || pair != "" && n == name && (!valued || v == value)
		}
		if !ok {
			return false
		}
	}
	first := slices.IndexFunc(q.fields, func(line string) bool { return strings.HasPrefix(line, "content-type: ") })
	return !m.grpc || first >= 0 && q.fields[first] == "content-type: application/grpc"
}

// modelAmbiguous decodes a path and looks at its segments.
func modelAmbiguous(path string) bool {
	text, err := url.PathUnescape(path)
	if err != nil || strings.ContainsAny(text, "\\\x7f") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		return true
	}
	for _, s := range strings.Split(text, "/") {
		if s, _, _ := strings.Cut(s, ";"); s == "." || s == ".." {
			return true
		}
	}
	return false
}

func modelFind(routes []modelRoute, q *modelRequest) string {
	if modelAmbiguous(q.path) && slices.ContainsFunc(routes, func(m modelRoute) bool { return m.path != "" }) {
		return "ambiguous"
	}
	for i := range routes {
		if routes[i].takes(q) {
			return routes[i].name
		}
	}
	return "rest"
}

func compareWithModel(t *testing.T, routes []modelRoute, q *modelRequest) string {
	t.Helper()
	var compiled []*Route
	for i := range routes {
		compiled = append(compiled, routes[i].compile())
	}
	table := NewTable(compiled, &Route{Name: "rest"})
	r, raw := parse(t, q.line(), q.fields...)
	found := table.Find(r, raw)
	got := found.Name
	if found.Refuse == outcome.BadRequest {
		got = "ambiguous"
	}
	if want := modelFind(routes, q); got != want {
		t.Fatalf("%s %q takes %s, the model says %s\nroutes %+v", q.line(), q.fields, got, want, routes)
	}
	return got
}

// words that meet often enough.
var (
	paths   = []string{"/", "/a", "/a/", "/a/b", "/A/b", "/a/bc", "/b", "/b%2e", "/.", "/a/../b", "/a//b", "/a;x/b", "/b/.x"}
	methods = []string{"GET", "POST", "get", "PURGE"}
	fields  = []string{"x-a: 1", "X-A: 2", "x_b: 1", "accept: 1", "Accept: 2", "content-type: application/grpc", "content-type: text/plain"}
	queries = []string{"", "a", "a=1", "a=1&b=2", "b=2&a", "ab=1", "&&a=&", "a=1=2"}
	headers = []string{"", "x-a", "x-a=1", "!x-a=1", "x_b=1", "Accept=2", "!accept", "content-type=text/plain"}
)

func pick[T any](rnd *rand.Rand, list []T) T { return list[rnd.IntN(len(list))] }

func TestAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	seen := map[string]int{}
	for range 30_000 {
		var routes []modelRoute
		for i := range rnd.IntN(9) {
			m := modelRoute{name: fmt.Sprint(i), grpc: rnd.IntN(8) == 0}
			switch p := pick(rnd, paths[:7]); rnd.IntN(6) {
			case 0, 1:
				m.path = "=" + p
			case 2:
				m.path = "^" + p
			case 3:
				m.path = "~" + p
			case 4:
				m.path = "*" + p + "*"
			}
			if rnd.IntN(3) == 0 {
				m.methods = []string{pick(rnd, methods), pick(rnd, methods)}
			}
			if rnd.IntN(3) == 0 {
				m.header = pick(rnd, headers)
			}
			if rnd.IntN(4) == 0 {
				m.query = pick(rnd, []string{"a", "a=1", "b=2", "a=", "a=1=2"})
			}
			routes = append(routes, m)
		}
		q := &modelRequest{method: pick(rnd, methods), path: pick(rnd, paths), query: pick(rnd, queries)}
		for range rnd.IntN(4) {
			q.fields = append(q.fields, pick(rnd, fields))
		}
		seen[compareWithModel(t, routes, q)]++
	}
	for _, name := range []string{"rest", "ambiguous", "0", "3", "6"} {
		if seen[name] < 20 {
			t.Errorf("%s came %d times only; the test shows little", name, seen[name])
		}
	}
}

// FuzzFind compares the table with the model for any path, query and condition
// on the path.
func FuzzFind(f *testing.F) {
	for _, p := range paths {
		f.Add("=/a", "^/a/", "*b*", p, "a=1&b")
	}
	f.Add("~/%2E%2e/X", "=/", "^/%", "/%2E%2e/x", "")
	f.Fuzz(func(t *testing.T, one, two, three, path, query string) {
		var routes []modelRoute
		for i, p := range []string{one, two, three} {
			if len(p) < 2 || !strings.Contains("=^~", p[:1]) || !http1.IsPath(p[1:]) {
				continue
			}
			if p[0] == '~' && strings.ToLower(p) != strings.ToUpper(strings.ToLower(p)) && !ascii(p) {
				continue // the case of other letters is not folded
			}
			m := modelRoute{name: fmt.Sprint(i), path: p}
			if i == 1 {
				m.query = "a"
			}
			routes = append(routes, m)
		}
		q := &modelRequest{method: "GET", path: path, query: query}
		var r http1.Request
		raw := []byte(q.line() + " HTTP/1.1\r\nHost: api.example:8080\r\n\r\n")
		if n, err := r.Parse(raw, nil); err != nil || n != len(raw) || r.Form != http1.OriginForm || string(r.Path.Of(raw)) != path || !ascii(path) {
			return
		}
		compareWithModel(t, routes, q)
	})
}

func ascii(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }) }
