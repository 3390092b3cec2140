package plan

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// TestSplit: every random word belongs to exactly the destination whose share
// it falls into.
func TestSplit(t *testing.T) {
	split := func(weights ...uint32) *Route {
		r, below := &Route{Name: "split"}, uint32(0)
		for i, w := range weights {
			below += w
			r.Split = append(r.Split, Share{Below: below, Route: &Route{Name: string(rune('a' + i))}})
		}
		return r
	}
	// word is the least one that stands for a part.
	word := func(part uint64) uint64 { return uint64(math.Ceil(float64(part) / Parts * (1 << 32) * (1 << 32))) }
	for _, c := range []struct {
		weights []uint32
		part    uint64
		want    string
	}{
		{[]uint32{9000, 1000}, 0, "a"},
		{[]uint32{9000, 1000}, 8999, "a"},
		{[]uint32{9000, 1000}, 9000, "b"},
		{[]uint32{9000, 1000}, 9999, "b"},
		{[]uint32{1, 9999}, 0, "a"},
		{[]uint32{1, 9999}, 1, "b"},
		{[]uint32{0, 10000}, 0, "b"},
		{[]uint32{10000, 0}, 9999, "a"},
		{[]uint32{3333, 3333, 3334}, 6665, "b"},
		{[]uint32{3333, 3333, 3334}, 6666, "c"},
	} {
		if got := split(c.weights...).Choose(word(c.part) + 4096); got.Name != c.want {
			t.Errorf("weights %v, part %d: %s, want %s", c.weights, c.part, got.Name, c.want)
		}
	}
	if got := split(5000, 5000).Choose(math.MaxUint64); got.Name != "b" {
		t.Errorf("the last word gives %s", got.Name)
	}
	alone := &Route{Name: "alone"}
	if alone.Choose(5) != alone {
		t.Error("a route without a split is not chosen itself")
	}
	// With random words the shares come out.
	rnd, seen := rand.New(rand.NewPCG(1, 2)), map[string]int{}
	r := split(7025, 2950, 25)
	const n = 200_000
	for range n {
		seen[r.Choose(rnd.Uint64()).Name]++
	}
	for name, want := range map[string]float64{"a": .7025, "b": .2950, "c": .0025} {
		if got, sigma := float64(seen[name])/n, math.Sqrt(want*(1-want)/n); math.Abs(got-want) > 5*sigma {
			t.Errorf("%s got %g of all, want %g", name, got, want)
		}
	}
}

func TestRewrite(t *testing.T) {
	prefix := func(from, to string) Rewrite { return Rewrite{On: true, Cut: len(from), To: to} }
	whole := func(to string) Rewrite { return Rewrite{On: true, Cut: -1, To: to} }
	for _, c := range []struct {
		w          Rewrite
		line, want string
	}{
		{Rewrite{}, "GET /api/x?q=/api", "GET /api/x?q=/api"},
		{prefix("/api", "/v2"), "GET /api/x?q=/api", "GET /v2/x?q=/api"},
		{prefix("/api", "/v2"), "GET /api", "GET /v2"},
		{prefix("/api", "/v2"), "GET /apis", "GET /v2s"},
		{prefix("/api", "/"), "GET /api", "GET /"},
		{prefix("/api", "/"), "GET /api/x", "GET /x"}, // not //x
		{prefix("/api", "/"), "GET /api?a=b", "GET /?a=b"},
		{prefix("/api", "/"), "GET /apis", "GET /s"},
		{prefix("/api", "/v2/"), "GET /api/x", "GET /v2/x"},
		{prefix("/api/", "/v2/"), "GET /api/x/", "GET /v2/x/"},
		{prefix("/", "/v2/"), "GET /", "GET /v2/"},
		{prefix("/", "/v2/"), "GET //x", "GET /v2/x"},
		{whole("/index"), "GET /any/thing?x=1", "GET /index?x=1"},
		{whole("/index"), "POST /", "POST /index"},
		{whole("/index"), "OPTIONS *", "OPTIONS *"},
		{prefix("/api", "/v2"), "GET http://other.example/api/x?y", "GET /v2/x?y"},
		{whole("/index"), "GET http://other.example?y", "GET /index?y"},
		{whole("/index"), "GET http://other.example", "GET /index"},
	} {
		req, raw := parse(t, c.line, "X-A: 1")
		r := &Route{Rewrite: c.w}
		got := string(r.AppendHead(nil, req, raw))
		host := "api.example:8080"
		if strings.Contains(c.line, "//other") {
			host = "other.example"
		}
		if want := c.want + " HTTP/1.1\r\nHost: " + host + "\r\nX-A: 1\r\n"; got != want {
			t.Errorf("%s with %+v:\n%q, want\n%q", c.line, c.w, got, want)
		}
	}
	req, raw := parse(t, "GET /api/x", "Connection: x-hop", "X-Hop: 1", "Keep-Alive: 5")
	r := &Route{Rewrite: prefix("/api", "/v2")}
	if got := string(r.AppendHead(nil, req, raw)); got != "GET /v2/x HTTP/1.1\r\nHost: api.example:8080\r\n" {
		t.Errorf("fields of one connection are passed on: %q", got)
	}
	raw10 := []byte("GET /api/x HTTP/1.0\r\nX-A: 1\r\n\r\n")
	var r10 http1.Request
	if n, err := r10.Parse(raw10, nil); n == 0 || err != nil {
		t.Fatal(err)
	}
	if got := string(r.AppendHead(nil, &r10, raw10)); got != "GET /v2/x HTTP/1.1\r\nX-A: 1\r\n" {
		t.Errorf("from HTTP/1.0: %q", got)
	}
}

func TestEdits(t *testing.T) {
	one := NewEdits(
		[]FieldLine{{"X-Set", "new"}, {"User-Agent", "me"}, {"X_Under", "u"}},
		[]FieldLine{{"X-Add", "more"}},
		[]string{"Cookie", "x-gone"},
	)
	two := NewEdits([]FieldLine{{"x-add", "second"}}, []FieldLine{{"x-canary", "1"}}, []string{"user-agent"})
	for _, c := range []struct {
		e    Edits
		want string
	}{
		{Edits{}, "Host: api.example:8080\r\nCookie: a\r\nx-set: old\r\nX-Set: older\r\nX-Gone: g\r\nUser-Agent: curl\r\nx-add: first\r\nx_under: o\r\ncookie: b\r\n"},
		{one, "Host: api.example:8080\r\nx-add: first\r\nX-Set: new\r\nUser-Agent: me\r\nX_Under: u\r\nX-Add: more\r\n"},
		{one.And(two), "Host: api.example:8080\r\nX-Set: new\r\nX_Under: u\r\nx-add: second\r\nx-canary: 1\r\n"},
		{Edits{}.And(two), "Host: api.example:8080\r\nCookie: a\r\nx-set: old\r\nX-Set: older\r\nX-Gone: g\r\nx_under: o\r\ncookie: b\r\nx-add: second\r\nx-canary: 1\r\n"},
	} {
		r, raw := parse(t, "GET /", "Cookie: a", "x-set: old", "X-Set: older", "X-Gone: g", "User-Agent: curl", "x-add: first", "x_under: o", "cookie: b")
		c.e.Drop(&r.Head, raw)
		got := c.e.Append(r.AppendHead(nil, raw))
		if want := "GET / HTTP/1.1\r\n" + c.want; string(got) != want {
			t.Errorf("%s:\n%q, want\n%q", c.e.text(), got, want)
		}
		if n := len(got) - len(r.AppendHead(nil, raw)); n != c.e.Size() {
			t.Errorf("size %d, added %d", c.e.Size(), n)
		}
	}
	if got := one.text(); got != "-cookie -user-agent -x-gone -x-set -x_under +X-Set +User-Agent +X_Under +X-Add" {
		t.Errorf("the text %q", got)
	}
	if bytes.Contains(one.lines, []byte("second")) {
		t.Error("And changed what it began with")
	}
}

func TestHeadDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are counted without -race")
	}
	r := &Route{Rewrite: Rewrite{On: true, Cut: 4, To: "/"}, Request: NewEdits([]FieldLine{{"x-a", "b"}}, nil, []string{"cookie", "x-c"})}
	r.Split = []Share{{Below: 5000, Route: r}, {Below: Parts, Route: r}}
	req, raw := parse(t, "GET /api/x", "X-A: 1", "Cookie: 2", "x-c: 3")
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(200, func() {
		one := r.Choose(1 << 63)
		one.Request.Drop(&req.Head, raw)
		_ = one.Request.Append(one.AppendHead(buf, req, raw))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is cut off a path must not make a dot segment of what is left.
func TestRewriteStaysBelow(t *testing.T) {
	table := func(from, to string) *Table {
		r := named("r", Match{Path: Text{Kind: Prefix, Value: from}})
		r.Rewrite = Rewrite{On: true, Cut: len(from), To: to}
		return NewTable([]*Route{r}, &Route{Name: "rest"})
	}
	for _, c := range []struct {
		from, to, path string
		refused        bool
	}{
		{"/api", "/", "/api../secret", true},
		{"/api", "/", "/api..", true},
		{"/api", "/", "/api%2e%2E/secret", true},
		{"/api", "/", "/api..;x/secret", true},
		{"/api", "/", "/api.", true},
		{"/api", "/v2", "/api../secret", true}, // harmless here, and refused all the same
		{"/api/", "/v2/", "/api/..a/b", false},
		{"/api", "/", "/api.json", false},
		{"/api", "/", "/api/x", false},
		{"/api", "/", "/api", false},
	} {
		r, raw := parse(t, "GET "+c.path)
		if got := table(c.from, c.to).Find(r, raw); (got.Refuse == outcome.BadRequest) != c.refused {
			t.Errorf("%s with %s as %s: %s", c.path, c.from, c.to, got.Refuse)
		}
	}
}

// FuzzRewrite: whatever the path, a route that takes it makes a path of it that
// begins as it should and can be read in one way only.
func FuzzRewrite(f *testing.F) {
	f.Add("/api", "/", "/api/x")
	f.Add("/api", "/v2/", "/api%2e./x")
	f.Add("/a/b", "/", "/a/b..;/c")
	f.Fuzz(func(t *testing.T, from, to, path string) {
		if !http1.IsPath(from) || !http1.IsPath(to) || http1.AmbiguousPath([]byte(to)) {
			return
		}
		var req, again http1.Request
		raw := []byte("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if n, err := req.Parse(raw, nil); n != len(raw) || err != nil || req.Form != http1.OriginForm {
			return
		}
		r := named("r", Match{Path: Text{Kind: Prefix, Value: from}})
		r.Rewrite = Rewrite{On: true, Cut: len(from), To: to}
		if NewTable([]*Route{r}, &Route{Name: "rest"}).Find(&req, raw) != r {
			return
		}
		out := append(r.AppendHead(nil, &req, raw), "\r\n"...)
		if n, err := again.Parse(out, nil); n != len(out) || err != nil {
			t.Fatalf("%q became %q: %v", raw, out, err)
		}
		if p := again.Path.Of(out); http1.AmbiguousPath(p) || !strings.HasPrefix(string(p), strings.TrimSuffix(to, "/")) {
			t.Errorf("%s with %s as %s became %s", path, from, to, p)
		}
	})
}
