package authz

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

// request parses a whole head, so that rules can look at its fields.
func request(t testing.TB, method, target string, fields ...string) *Request {
	t.Helper()
	raw := []byte(method + " " + target + " HTTP/1.1\r\nHost: api.test\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
	var r http1.Request
	if n, err := r.Parse(raw, nil); err != nil || n != len(raw) {
		t.Fatalf("%q: %d, %v", raw, n, err)
	}
	return &Request{Method: r.MethodSpan.Of(raw), Resource: r.Resource(raw), Host: r.Host.Of(raw), Head: &r.Head, Raw: raw}
}

const mesh = "spiffe://m.consul/ns/default/dc/dc1/svc/"

func TestFirstMatch(t *testing.T) {
	cfg := Config{Order: FirstMatch, Default: DefaultDenies, Rules: []Rule{
		{Name: "no writes", Action: Deny, From: []string{"spiffe://m.consul/ns/default/dc/*/svc/web"}, Methods: []string{"PUT", "DELETE"}},
		{Name: "web v1", From: []string{"spiffe://m.consul/ns/default/dc/*/svc/web"}, PathPrefix: "/v1"},
		{Name: "web items", From: []string{"spiffe://m.consul/ns/default/dc/*/svc/web"}, PathRegex: "/items/[0-9]+|/list"},
		{Name: "web rest", Action: Deny, From: []string{"spiffe://m.consul/ns/default/dc/*/svc/web"}},
		{Name: "all", From: []string{"spiffe://m.consul/ns/default/dc/*/svc/*"}},
	}}
	p := compile(t, cfg)
	for _, c := range []struct{ from, method, target, rule string }{
		{mesh + "web", "PUT", "/v1/x", "no writes"},
		{mesh + "web", "GET", "/v1", "web v1"},
		{mesh + "web", "GET", "/v1foo?a=/v2", "web v1"},
		{mesh + "web", "GET", "/v%31/a", "web v1"},
		{mesh + "web", "GET", "/v2", "web rest"},
		{mesh + "web", "GET", "/items/17?x=y", "web items"},
		{mesh + "web", "GET", "/items/17/", "web rest"},
		{mesh + "web", "GET", "/x/items/17", "web rest"},
		{mesh + "web", "GET", "/listing", "web rest"},
		{mesh + "web", "GET", "/list%0a", AmbiguousPath},
		{"spiffe://m.consul/ns/default/dc/other/svc/web", "GET", "/v1", "web v1"},
		{mesh + "shop", "PUT", "/v1", "all"},
		{"spiffe://n.consul/ns/default/dc/dc1/svc/web", "GET", "/v1", DefaultDeny},
		{"spiffe://m.consul/ns/other/dc/dc1/svc/web", "GET", "/v1", DefaultDeny},
		{"spiffe://m.consul/ns/default/dc/dc1/svc/web/more", "GET", "/v1", DefaultDeny},
		{"spiffe://m.consul/ns/default/dc/dc1/dc2/svc/web", "GET", "/v1", DefaultDeny},
		{nobody, "GET", "/v1", DefaultDeny},
	} {
		v := p.Check(id(t, c.from), request(t, c.method, c.target))
		allowed := c.rule == "web v1" || c.rule == "web items" || c.rule == "all"
		if v.Rule != c.rule || v.Allowed != allowed {
			t.Errorf("%s %s %s: %+v, want %s", c.from, c.method, c.target, v, c.rule)
		}
	}
	// On a connection a rule that looks at requests refuses, whatever follows.
	if v := p.CheckConn(id(t, mesh+"web")); v.Allowed || v.Rule != "no writes" || v.Detail != NotHTTP {
		t.Errorf("a connection of web: %+v", v)
	}
	if v := p.CheckConn(id(t, mesh+"shop")); !v.Allowed || v.Rule != "all" {
		t.Errorf("a connection of shop: %+v", v)
	}
	cfg.Rules = cfg.Rules[1:]
	if v := compile(t, cfg).CheckConn(id(t, mesh+"web")); v.Allowed || v.Rule != "web v1" {
		t.Errorf("a connection, where a rule for requests allows: %+v", v)
	}
}

func TestDefault(t *testing.T) {
	rules := []Rule{{Name: "no", Action: Deny, From: []string{web}}}
	for _, c := range []struct {
		name    string
		cfg     Config
		rule    string
		allowed bool
	}{
		{"none", Config{}, NoRules, true},
		{"rules", Config{Rules: rules}, DefaultDeny, false},
		{"none, deny", Config{Default: DefaultDenies}, DefaultDeny, false},
		{"none, allow", Config{Default: DefaultAllows}, DefaultAllow, true},
		{"rules, allow", Config{Default: DefaultAllows, Rules: rules}, DefaultAllow, true},
		{"rules, deny", Config{Default: DefaultDenies, Rules: rules}, DefaultDeny, false},
		{"first match, allow", Config{Order: FirstMatch, Default: DefaultAllows, Rules: rules}, DefaultAllow, true},
	} {
		p := compile(t, c.cfg)
		for what, v := range map[string]Verdict{"request": p.Check(id(t, api), ask("GET", "/")), "connection": p.CheckConn(id(t, api))} {
			if v.Rule != c.rule || v.Allowed != c.allowed {
				t.Errorf("%s: %s: %+v", c.name, what, v)
			}
		}
		if p.MayEver(id(t, api)) != c.allowed {
			t.Errorf("%s: MayEver says %t", c.name, !c.allowed)
		}
	}
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		h      Header
		fields []string
		want   bool // of a rule that allows
		deny   bool // of one that denies, where that differs
	}{
		{Header{Name: "X-Role", Exact: "admin"}, []string{"x-role: admin"}, true, true},
		{Header{Name: "x-role", Exact: "admin"}, []string{"X-ROLE: Admin"}, false, false},
		{Header{Name: "x-role", Exact: "adMin", IgnoreCase: true}, []string{"X-ROLE: Admin"}, true, true},
		{Header{Name: "x-role", Exact: "admin"}, nil, false, false},
		{Header{Name: "x-role", Exact: "admin", Invert: true}, nil, false, false},
		{Header{Name: "x-role", Exact: "admin", Invert: true}, []string{"x-role: user"}, true, true},
		{Header{Name: "x-role", Exact: "admin"}, []string{"x-role: admin", "x-role: user"}, false, true},
		{Header{Name: "x-role", Exact: "admin,user"}, []string{"x-role: admin", "a: b", "x-role: user"}, true, true},
		{Header{Name: "x-role", Exact: "user", Invert: true}, []string{"x-role: user", "x-role: admin"}, true, true},
		{Header{Name: "x-role", Prefix: "ad"}, []string{"x-role: admin"}, true, true},
		{Header{Name: "x-role", Prefix: "AD", IgnoreCase: true}, []string{"x-role: admin"}, true, true},
		{Header{Name: "x-role", Suffix: "min"}, []string{"x-role: admin"}, true, true},
		{Header{Name: "x-role", Suffix: "mi"}, []string{"x-role: admin"}, false, false},
		{Header{Name: "x-role", Contains: "dmi"}, []string{"x-role: admin"}, true, true},
		{Header{Name: "x-role", Contains: "DMI", IgnoreCase: true}, []string{"x-role: aDmin"}, true, true},
		{Header{Name: "x-role", Regex: "a.*n"}, []string{"x-role: admin"}, true, true},
		{Header{Name: "x-role", Regex: "a.*i"}, []string{"x-role: admin"}, false, false},
		{Header{Name: "x-role", Regex: "a|admin"}, []string{"x-role: admin"}, true, true},
		{Header{Name: "x-role", Present: true}, []string{"x-role:"}, true, true},
		{Header{Name: "x-role", Present: true}, nil, false, false},
		{Header{Name: "x-role", Present: true, Invert: true}, nil, true, true},
		{Header{Name: "x-role", Present: true, Invert: true}, []string{"x-role: a"}, false, false},
		{Header{Name: "user-agent", Prefix: "curl"}, []string{"User-Agent: curl/8"}, true, true},
		{Header{Name: "Host", Exact: "api.test"}, nil, true, true},
		{Header{Name: "host", Exact: "api.test", Invert: true}, nil, false, false},
	} {
		q := request(t, "GET", "/", c.fields...)
		allow := compile(t, Config{Order: FirstMatch, Default: DefaultDenies, Rules: []Rule{{From: []string{web}, Headers: []Header{c.h}}}})
		if got := allow.Check(id(t, web), q).Allowed; got != c.want {
			t.Errorf("allow with %+v of %q: %t", c.h, c.fields, got)
		}
		deny := compile(t, Config{Order: FirstMatch, Default: DefaultAllows, Rules: []Rule{{Action: Deny, From: []string{web}, Headers: []Header{c.h}}}})
		if got := !deny.Check(id(t, web), q).Allowed; got != c.deny {
			t.Errorf("deny with %+v of %q: %t", c.h, c.fields, got)
		}
		if n := testing.AllocsPerRun(100, func() { allow.Check(mtls.ID{}, q); deny.Check(mtls.ID{}, q) }); !raceEnabled && n != 0 {
			t.Errorf("%+v: %v allocations", c.h, n)
		}
	}
	// What is not known meets nothing.
	p := compile(t, Config{Rules: []Rule{{From: []string{web}, Headers: []Header{{Name: "x", Present: true, Invert: true}}}}})
	if p.Check(id(t, web), ask("GET", "/")).Allowed {
		t.Error("a request without known fields was allowed for lacking one")
	}
}

func TestValidateConditions(t *testing.T) {
	cfg := Config{Order: "last", Default: "maybe", EncodedSlashes: "drop", Rules: []Rule{
		{From: []string{"spiffe://*/a", "spiffe://d/a*/*/b", "spiffe://d/*/../x", "spiffe://d/*/b", "http://d/*/b"}},
		{From: []string{"*"}, PathPrefix: "x", PathRegex: "("},
		{From: []string{"*"}, PathPrefix: "/a//b", PathRegex: "a)|(b"},
		{From: []string{"*"}, PathPrefix: "/ok/"},
		{From: []string{"*"}, Headers: []Header{{}, {Name: "a b", Present: true}, {Name: "x", Exact: "a", Prefix: "b"}, {Name: "x", Regex: "["}, {Name: "x", Regex: "a", IgnoreCase: true}}},
	}}
	var got []string
	cfg.Validate(func(field, _ string) { got = append(got, field) })
	want := []string{
		"order", "default", "encoded_slashes", "rules[0].from[0]", "rules[0].from[1]", "rules[0].from[2]", "rules[0].from[4]",
		"rules[1].path_prefix", "rules[1].path_regex", "rules[2].path_prefix", "rules[2].path_regex",
		"rules[4].headers[0].name", "rules[4].headers[0].exact", "rules[4].headers[1].name", "rules[4].headers[2].exact", "rules[4].headers[3].regex", "rules[4].headers[4].ignore_case",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestEncodedSlashes(t *testing.T) {
	rules := []Rule{{Name: "a", From: []string{web}, Paths: []string{"/a/*"}}}
	p := compile(t, Config{EncodedSlashes: CompareSlashes, Rules: rules})
	for target, rule := range map[string]string{
		"/a/b%2fc": "a", "/a%2Fb": DefaultDeny, "/a/b%2f..%2fc": AmbiguousPath, "/a/%2f.": AmbiguousPath, "/a/%2e%2fb": AmbiguousPath, "/a/b%5cc": AmbiguousPath,
	} {
		if v := p.Check(id(t, web), request(t, "GET", target)); v.Rule != rule {
			t.Errorf("%s: %+v, want %s", target, v, rule)
		}
	}
}

// slowCheck is the reference: every rule in order, every condition by itself.
func slowCheck(cfg *Config, who, method, path string, role []string) (string, bool) {
	match := func(r *Rule) bool {
		from := false
		for _, f := range r.From {
			switch {
			case f == "*":
				from = from || who != ""
			case f == "anonymous":
				from = from || who == ""
			default:
				expr := regexp.QuoteMeta(f)
				if strings.Contains(strings.TrimSuffix(f, "/*"), "*") {
					expr = strings.ReplaceAll(expr, `\*`, "[^/]+")
				} else {
					expr = strings.ReplaceAll(expr, `\*`, ".+")
				}
				from = from || regexp.MustCompile("^"+expr+"$").MatchString(who)
			}
		}
		methods := len(r.Methods) == 0
		for _, m := range r.Methods {
			methods = methods || m == method
		}
		header := true
		for _, h := range r.Headers {
			met := len(role) > 0 && (strings.Join(role, ",") == h.Exact) != h.Invert
			for _, v := range role {
				met = met || r.Action == Deny && (v == h.Exact) != h.Invert
			}
			header = header && met
		}
		return from && methods && header && strings.HasPrefix(path, r.PathPrefix)
	}
	for pass := range 2 {
		for i := range cfg.Rules {
			r := &cfg.Rules[i]
			if cfg.Order != FirstMatch && (r.Action == Deny) != (pass == 0) {
				continue
			}
			if match(r) {
				return r.Name, r.Action == Allow
			}
		}
	}
	if cfg.Default == DefaultAllows {
		return DefaultAllow, true
	}
	return DefaultDeny, false
}

func TestAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	froms := []string{"*", "anonymous", mesh + "web", mesh + "api", "spiffe://m.consul/*", "spiffe://m.consul/ns/*/dc/dc1/svc/web", "spiffe://m.consul/ns/default/dc/*/svc/*"}
	callers := []string{"", mesh + "web", mesh + "api", "spiffe://m.consul/ns/b/dc/dc1/svc/web", "spiffe://o.consul/a"}
	pick := func(list []string) string { return list[rnd.IntN(len(list))] }
	for range 3000 {
		cfg := Config{Order: Order(pick([]string{"", "set", "first_match"})), Default: Default(pick([]string{"allow", "deny"}))}
		for i := range rnd.IntN(6) {
			r := Rule{Name: fmt.Sprint("r", i), Action: Action(rnd.IntN(2)), From: []string{pick(froms), pick(froms)}}
			if rnd.IntN(2) == 0 {
				r.Methods = []string{pick([]string{"GET", "PUT"})}
			}
			if rnd.IntN(2) == 0 {
				r.PathPrefix = pick([]string{"/", "/a", "/a/b"})
			}
			if rnd.IntN(2) == 0 {
				r.Headers = []Header{{Name: "role", Exact: pick([]string{"x", "y", "x,y"}), Invert: rnd.IntN(2) == 0}}
			}
			cfg.Rules = append(cfg.Rules, r)
		}
		p := compile(t, cfg)
		for range 10 {
			who, method, path := pick(callers), pick([]string{"GET", "PUT", "POST"}), pick([]string{"/", "/a", "/ab", "/a/b/c"})
			var fields, role []string
			for range rnd.IntN(3) {
				role = append(role, pick([]string{"x", "y"}))
				fields = append(fields, "role: "+role[len(role)-1])
			}
			rule, allowed := slowCheck(&cfg, who, method, path, role)
			if v := p.Check(id(t, who), request(t, method, path, fields...)); v.Rule != rule || v.Allowed != allowed {
				t.Fatalf("%+v\n%q %s %s %q: %+v, reference %s %t", cfg, who, method, path, role, v, rule, allowed)
			}
		}
	}
}

func TestCallersAreBounded(t *testing.T) {
	p := compile(t, Config{Rules: []Rule{{Name: "a", From: []string{"spiffe://d.test/*"}}}})
	for i := range maxCallers + 10 {
		if v := p.CheckConn(id(t, fmt.Sprintf("spiffe://d.test/s%d", i))); !v.Allowed {
			t.Fatal(i, v)
		}
	}
	if len(p.callers) != maxCallers {
		t.Errorf("%d callers are remembered", len(p.callers))
	}
}

func FuzzFrom(f *testing.F) {
	for _, s := range []string{"*", "anonymous", mesh + "web", "spiffe://m.consul/ns/*/svc/*", "spiffe://m/*", "spiffe://m/*/b", "spiffe:///*/b", "spiffe://m/a*/b"} {
		f.Add(s, mesh+"web")
	}
	f.Fuzz(func(t *testing.T, pattern, who string) {
		p, err := parseFrom(pattern)
		caller, errID := mtls.ParseID(who)
		if err != nil || errID != nil || p.kind != fromSegments {
			return
		}
		model := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, "[^/]+") + "$")
		if got := p.matches(caller); got != model.MatchString(who) {
			t.Fatalf("%q of %q: %t", pattern, who, got)
		}
	})
}

func BenchmarkThousandRules(b *testing.B) {
	cfg := Config{Order: FirstMatch}
	for i := range 1000 {
		cfg.Rules = append(cfg.Rules, Rule{From: []string{fmt.Sprintf("spiffe://m.consul/ns/default/dc/*/svc/s%d", i)}, PathPrefix: "/v1", Methods: []string{"GET"}})
	}
	p, err := Compile(cfg)
	if err != nil {
		b.Fatal(err)
	}
	who, q := id(b, "spiffe://m.consul/ns/default/dc/dc1/svc/s999"), request(b, "GET", "/v1/x")
	c := p.Caller(who)
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Check(q)
		}
	})
	b.Run("looked up", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Check(who, q)
		}
	})
}
