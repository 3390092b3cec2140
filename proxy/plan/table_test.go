package plan

import (
	"regexp"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
)

// parse makes the head of a request from its first line and fields.
func parse(t testing.TB, line string, fields ...string) (*http1.Request, []byte) {
	t.Helper()
	raw := []byte(line + " HTTP/1.1\r\nHost: api.example:8080\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
	var r http1.Request
	if n, err := r.Parse(raw, nil); err != nil || n != len(raw) {
		t.Fatalf("%q: %d, %v", raw, n, err)
	}
	return &r, raw
}

func re(text string) *regexp.Regexp { return regexp.MustCompile("^(?s:" + text + ")$") }

func named(name string, m Match) *Route { return &Route{Name: name, Match: m} }

// shop is a table with a route of every kind.
func shop() *Table {
	return NewTable([]*Route{
		named("canary", Match{Fields: []FieldMatch{{Name: "x-canary", Value: Text{Kind: Exact, Value: "1"}}}}),
		named("login", Match{Path: Text{Kind: Exact, Value: "/login"}, Methods: []string{"POST", "PUT"}}),
		named("login-any", Match{Path: Text{Kind: Exact, Value: "/login"}}),
		named("folded", Match{Path: Text{Kind: Exact, Value: "/about", Fold: true}}),
		named("folded-prefix", Match{Path: Text{Kind: Prefix, Value: "/docs/", Fold: true}}),
		named("get-item", Match{Path: Text{Kind: Exact, Value: "/shop.Cart/Get"}, GRPC: true}),
		named("cart", Match{Path: Text{Kind: Prefix, Value: "/shop.Cart/"}, GRPC: true}),
		named("old-api", Match{Path: Text{Kind: Prefix, Value: "/api"}, Query: []QueryMatch{{Name: "v", Value: Text{Kind: Exact, Value: "1"}}}}),
		named("debug", Match{Path: Text{Kind: Prefix, Value: "/api"}, Query: []QueryMatch{{Name: "debug"}}}),
		named("api", Match{Path: Text{Kind: Prefix, Value: "/api"}}),
		named("id", Match{Path: Text{Kind: Regexp, Value: "/item/[0-9]+", Regexp: re("/item/[0-9]+")}}),
		named("mobile", Match{Fields: []FieldMatch{{ID: http1.UserAgent, Value: Text{Kind: Regexp, Value: ".*Mobile.*", Regexp: re(".*Mobile.*")}}}}),
		named("host", Match{Fields: []FieldMatch{{ID: http1.Host, Value: Text{Kind: Suffix, Value: ".shop.example", Fold: true}}}}),
		named("plain-text", Match{Fields: []FieldMatch{
			{ID: http1.Accept, Value: Text{Kind: Prefix, Value: "text/"}},
			{ID: http1.Accept, Value: Text{Kind: Prefix, Value: "text/html"}, Invert: true},
			{Name: "x-tenant"},
		}}),
	}, &Route{Name: "rest"})
}

func TestFind(t *testing.T) {
	table := shop()
	for _, c := range []struct{ line, fields, want string }{
		{"GET /", "", "rest"},
		{"POST /login", "", "login"},
		{"PUT /login?next=/api", "", "login"},
		{"GET /login", "", "login-any"},
		{"post /login", "", "login-any"}, // methods have a case
		{"GET /login/", "", "rest"},
		{"GET /Login", "", "rest"},
		{"GET /%6Cogin", "", "rest"}, // nothing is decoded
		{"GET //login", "", "rest"},
		{"GET /login", "X-Canary: 1", "canary"}, // earlier in the list
		{"GET /login", "X-Canary: 2", "login-any"},
		{"GET /login", "X-Canary: 2|x-canary: 1", "canary"}, // any of its lines
		{"GET /ABOUT", "", "folded"},
		{"GET /about/", "", "rest"},
		{"GET /Docs/x", "", "folded-prefix"},
		{"GET /docs", "", "rest"},
		{"POST /shop.Cart/Get", "content-type: application/grpc", "get-item"},
		{"POST /shop.Cart/Get", "content-type: application/grpc+proto", "get-item"},
		{"POST /shop.Cart/Add", "content-type: application/grpc;x", "cart"},
		{"POST /shop.Cart/Get", "content-type: application/grpc-web", "rest"},
		{"POST /shop.Cart/Get", "", "rest"},
		{"POST /shop.CartX/Get", "content-type: application/grpc", "rest"},
		{"GET /api", "", "api"},
		{"GET /apis", "", "api"}, // a prefix of bytes, as in Consul
		{"GET /api/x?v=1", "", "old-api"},
		{"GET /api/x?a=b&v=1&v=2", "", "old-api"},
		{"GET /api/x?v=11", "", "api"},
		{"GET /api/x?vv=1", "", "api"},
		{"GET /api/x?debug", "", "debug"},
		{"GET /api/x?debug=", "", "debug"},
		{"GET /api/x?d=debug", "", "api"},
		{"GET /ap", "", "rest"},
		{"GET /item/12", "", "id"},
		{"GET /item/12/x", "", "rest"},
		{"GET /x/item/12", "", "rest"},
		{"GET /item/12?v=1", "", "id"},
		{"GET /", "User-Agent: A Mobile B", "mobile"},
		{"GET /", "User-Agent: mobile", "rest"},
		{"GET http://A.Shop.Example/", "", "host"}, // the target's authority counts
		{"GET http://a.shop.example", "", "host"},
		{"GET http://a.shop.example/login", "", "login-any"},
		{"GET http://a.example/login", "", "login-any"},
		{"GET http://a.example", "", "rest"},
		{"GET /", "Accept: text/plain|X-Tenant: 7", "plain-text"},
		{"GET /", "Accept: text/plain|X-Tenant:", "plain-text"},
		{"GET /", "Accept: text/plain", "rest"},
		{"GET /", "Accept: text/plain|Accept: text/html|X-Tenant: 7", "rest"},
		{"GET /", "X-Tenant: 7", "rest"},
		{"OPTIONS *", "", "rest"},
		{"OPTIONS *", "X-Canary: 1", "canary"},
		{"CONNECT api:80", "", "rest"},
	} {
		var fields []string
		if c.fields != "" {
			fields = strings.Split(c.fields, "|")
		}
		r, raw := parse(t, c.line, fields...)
		if got := table.Find(r, raw); got.Name != c.want || got.Refuse != outcome.OK {
			t.Errorf("%s with %q takes %s (%s), want %s", c.line, c.fields, got.Name, got.Refuse, c.want)
		}
	}
}

// A path that servers read in different ways takes no route where any looks at
// paths, and any where none does.
func TestAmbiguousPaths(t *testing.T) {
	table := shop()
	blind := NewTable([]*Route{named("get", Match{Methods: []string{"GET"}})}, &Route{Name: "rest"})
	for path, want := range map[string]bool{
		"/a/b": false, "/.well-known/x": false, "/a..b/": false, "/...": false, "/a/...": false, "/a.": false, "/%2f": false,
		"/a%2Fb": false, "/a;x=1": false, "/%2ea": false, "/a%20b": false, "//": false, "/..a": false, "/.a/..b": false, "/%41": false,
		"/.": true, "/..": true, "/a/./b": true, "/a/../b": true, "/api/..": true, "/%2e%2E/": true, "/a/.%2e": true,
		"/..;/x": true, "/.;": true, "/a%2f..%2fb": true, "/a/..%2f": true, "/a%2f.": true, `/a\b`: true, "/a%5cb": true,
		"/%5C": true, "/%00": true, "/%0a": true, "/%7f": true, "/a%1f": true,
	} {
		r, raw := parse(t, "GET "+path)
		if got := table.Find(r, raw); (got.Refuse == outcome.BadRequest) != want {
			t.Errorf("%s takes %s (%s); refused should be %t", path, got.Name, got.Refuse, want)
		}
		if got := blind.Find(r, raw); got.Name != "get" {
			t.Errorf("%s takes %s where no route looks at the path", path, got.Name)
		}
	}
	r, raw := parse(t, "GET /a?x=/../y%2e")
	if got := table.Find(r, raw); got.Name != "rest" {
		t.Errorf("a query is taken for a path: %s", got.Name)
	}
}

// Many exact paths are found as few are.
func TestManyPaths(t *testing.T) {
	var routes []*Route
	for i := range 400 {
		p := "/svc" + string(rune('a'+i%26)) + "/m" + strings.Repeat("x", i/26)
		routes = append(routes, named(p, Match{Path: Text{Kind: Exact, Value: p}}))
	}
	routes = append(routes, named("never", Match{Path: Text{Kind: Exact, Value: "/svca/m"}}))
	table := NewTable(routes, &Route{Name: "rest"})
	for i := range routes[:400] {
		r, raw := parse(t, "GET "+routes[i].Name)
		if got := table.Find(r, raw); got != routes[i] {
			t.Fatalf("%s takes %s", routes[i].Name, got.Name)
		}
	}
	for _, path := range []string{"/svca", "/svca/mxy", "/zzz", "/"} {
		r, raw := parse(t, "GET "+path)
		if got := table.Find(r, raw); got.Name != "rest" {
			t.Errorf("%s takes %s", path, got.Name)
		}
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are counted without -race")
	}
	table := shop()
	for _, line := range []string{"GET /", "GET /login", "GET /api/x?debug", "POST /shop.Cart/Get", "GET /item/1234", "GET /About", "GET /a%20b/./c"} {
		r, raw := parse(t, line, "Accept: text/plain", "X-Tenant: 7", "User-Agent: some Mobile thing", "content-type: application/grpc")
		if n := testing.AllocsPerRun(200, func() { table.Find(r, raw) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	table := shop()
	r, raw := parse(b, "GET /nowhere/in/particular?x=1", "Accept: text/html", "User-Agent: curl/8", "X-Tenant: 7")
	b.ReportAllocs()
	for b.Loop() {
		table.Find(r, raw)
	}
}
