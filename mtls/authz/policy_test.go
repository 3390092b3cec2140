package authz

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/resilience/guard"
)

func id(t testing.TB, s string) mtls.ID {
	t.Helper()
	if s == "" {
		return mtls.ID{}
	}
	id, err := mtls.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ask is a request without fields.
func ask(method, resource string) *Request {
	return &Request{Method: []byte(method), Resource: []byte(resource)}
}

func compile(t testing.TB, cfg Config) *Policy {
	t.Helper()
	p, err := Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	web     = "spiffe://d.test/ns/shop/web"
	api     = "spiffe://d.test/ns/shop/api"
	batch   = "spiffe://d.test/ns/shop2/batch"
	foreign = "spiffe://o.test/ns/shop/web"
	nobody  = ""
)

var shop = Config{Rules: []Rule{
	{Name: "web reads", From: []string{web}, Methods: []string{"GET", "HEAD"}, Paths: []string{"/items/*", "/"}},
	{Name: "shop writes", From: []string{"spiffe://d.test/ns/shop/*"}, Methods: []string{"POST"}, Paths: []string{"/orders"}},
	{Name: "no admin", Action: Deny, From: []string{"*", "anonymous"}, Paths: []string{"/admin/*"}},
	{Name: "health", From: []string{"anonymous", "*"}, Paths: []string{"/healthz"}},
	{From: []string{"spiffe://o.test/*"}},
	{Name: "batch out", Action: Deny, From: []string{batch}},
}}

func TestCheck(t *testing.T) {
	p := compile(t, shop)
	for _, c := range []struct {
		from, method, path string
		rule               string
		allowed            bool
	}{
		{web, "GET", "/", "web reads", true},
		{web, "GET", "", "web reads", true},
		{web, "GET", "/items", "web reads", true},
		{web, "HEAD", "/items/", "web reads", true},
		{web, "GET", "/items/7/parts?x=/admin", "web reads", true},
		{web, "GET", "/itemsandmore", DefaultDeny, false},
		{web, "get", "/items", DefaultDeny, false},
		{web, "DELETE", "/items/7", DefaultDeny, false},
		{api, "GET", "/items", DefaultDeny, false},
		{web, "POST", "/orders", "shop writes", true},
		{api, "POST", "/orders?id=1", "shop writes", true},
		{api, "POST", "/orders/", DefaultDeny, false},
		{api, "POST", "/orders/1", DefaultDeny, false},
		{api, "POST", "/Orders", DefaultDeny, false},
		{api, "GET", "/admin", "no admin", false},
		{foreign, "GET", "/admin/users", "no admin", false},
		{foreign, "GET", "/administrator", "rules[4]", true},
		{foreign, "OPTIONS", "*", "rules[4]", true},
		{foreign, "CONNECT", "db:5432", "rules[4]", true},
		{web, "OPTIONS", "*", DefaultDeny, false},
		{nobody, "GET", "/admin", "no admin", false},
		{nobody, "GET", "/healthz", "health", true},
		{nobody, "GET", "/items", DefaultDeny, false},
		{batch, "GET", "/healthz", "batch out", false},
		{"spiffe://d.test/ns/shop", "POST", "/orders", DefaultDeny, false},

		// Ways around a rule.
		{foreign, "GET", "//admin", "no admin", false},
		{foreign, "GET", "/./admin", AmbiguousPath, false},
		{foreign, "GET", "/x/../admin", AmbiguousPath, false},
		{foreign, "GET", "/%61dmin", "no admin", false},
		{foreign, "GET", "/x/%2e%2E/admin/", AmbiguousPath, false},
		{foreign, "GET", "/../../admin", AmbiguousPath, false},
		{foreign, "GET", "/admin/../administrator", AmbiguousPath, false},
		{web, "GET", "/items/../secrets", AmbiguousPath, false},
		{web, "GET", "/items/..", AmbiguousPath, false},
		{foreign, "GET", "/x%2fadmin", AmbiguousPath, false},
		{foreign, "GET", "/x%2Fadmin", AmbiguousPath, false},
		{foreign, "GET", "/x%5cadmin", AmbiguousPath, false},
		{foreign, "GET", `/x\admin`, AmbiguousPath, false},
		{foreign, "GET", "/admin%00", AmbiguousPath, false},
		{foreign, "GET", "/admin\x00", AmbiguousPath, false},
		{foreign, "GET", "/admin%0a", AmbiguousPath, false},
		{foreign, "GET", "/%", AmbiguousPath, false},
		{foreign, "GET", "/%6", AmbiguousPath, false},
		{foreign, "GET", "/%zz", AmbiguousPath, false},
		{foreign, "GET", "/x/..;/admin", AmbiguousPath, false},
		{foreign, "GET", "/x/%2e.;a=1/admin", AmbiguousPath, false},
		{foreign, "GET", "/admin#x", AmbiguousPath, false},
		{foreign, "GET", "admin", AmbiguousPath, false},
		{foreign, "GET", "http://d.test/admin", AmbiguousPath, false},
		{foreign, "GET", "/x?%zz%2f\\", "rules[4]", true},
		{foreign, "GET", "/x%252fadmin", "rules[4]", true},
	} {
		v := p.Check(id(t, c.from), ask(c.method, c.path))
		if v.Allowed != c.allowed || v.Rule != c.rule || v.Mode != guard.Enforce {
			t.Errorf("%q %s %q: got %+v, want %q, allowed %t", c.from, c.method, c.path, v, c.rule, c.allowed)
		}
		if v.Refuse(0) == c.allowed {
			t.Errorf("%q %s %q: Refuse is %t", c.from, c.method, c.path, v.Refuse(0))
		}
	}
}

func TestCheckConn(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []Rule
		from  string
		rule  string
		allow bool
	}{
		{"no rules", nil, nobody, NoRules, true},
		{"exact", []Rule{{Name: "a", From: []string{web}}}, web, "a", true},
		{"other", []Rule{{Name: "a", From: []string{web}}}, api, DefaultDeny, false},
		{"anonymous is not anybody", []Rule{{Name: "a", From: []string{"*"}}}, nobody, DefaultDeny, false},
		{"anonymous", []Rule{{Name: "a", From: []string{"anonymous"}}}, nobody, "a", true},
		{"authenticated is not anonymous", []Rule{{Name: "a", From: []string{"anonymous"}}}, web, DefaultDeny, false},
		{"allow with a method", []Rule{{Name: "a", From: []string{web}, Methods: []string{"GET"}}}, web, DefaultDeny, false},
		{"allow with a path", []Rule{{Name: "a", From: []string{web}, Paths: []string{"/*"}}}, web, DefaultDeny, false},
		{"deny with a path", []Rule{{Name: "a", From: []string{"*"}}, {Name: "d", Action: Deny, From: []string{web}, Paths: []string{"/x"}}}, web, "d", false},
		{"deny with a method", []Rule{{Name: "a", From: []string{"*"}}, {Name: "d", Action: Deny, From: []string{web}, Methods: []string{"GET"}}}, web, "d", false},
		{"deny of somebody else", []Rule{{Name: "d", Action: Deny, From: []string{web}}, {Name: "a", From: []string{"*"}}}, api, "a", true},
		{"deny alone", []Rule{{Name: "d", Action: Deny, From: []string{web}}}, api, DefaultDeny, false},
		{"prefix stops at a segment", []Rule{{Name: "a", From: []string{"spiffe://d.test/ns/shop/*"}}}, batch, DefaultDeny, false},
		{"trust domain", []Rule{{Name: "a", From: []string{"spiffe://o.test/*"}}}, foreign, "a", true},
		{"longer trust domain", []Rule{{Name: "a", From: []string{"spiffe://o.tes/*"}}}, foreign, DefaultDeny, false},
	} {
		v := compile(t, Config{Rules: c.rules}).CheckConn(id(t, c.from))
		if v.Allowed != c.allow || v.Rule != c.rule {
			t.Errorf("%s: got %+v, want %q, allowed %t", c.name, v, c.rule, c.allow)
		}
	}
}

func TestNoRulesAndNoPaths(t *testing.T) {
	if v := compile(t, Defaults()).Check(mtls.ID{}, ask("GET", "/%2f%zz")); !v.Allowed || v.Rule != NoRules {
		t.Errorf("without rules: %+v", v)
	}
	// Where no rule looks at paths, a path cannot be ambiguous.
	p := compile(t, Config{Rules: []Rule{{Name: "a", From: []string{web}}}})
	if v := p.Check(id(t, web), ask("GET", "/group%2fproject")); !v.Allowed || v.Rule != "a" {
		t.Errorf("without paths: %+v", v)
	}
}

func TestObserve(t *testing.T) {
	p := compile(t, Config{Mode: guard.Observe, Rules: []Rule{{Name: "a", From: []string{web}}}})
	v := p.Check(id(t, api), ask("GET", "/"))
	if v.Allowed || v.Rule != DefaultDeny || v.Mode != guard.Observe || v.Refuse(0) || p.Mode() != guard.Observe {
		t.Errorf("observe: %+v", v)
	}
}

func TestValidate(t *testing.T) {
	cfg := Config{Mode: guard.Observe + 1, Rules: []Rule{
		{Name: "a", From: []string{web}},
		{Name: "a", Action: 9, From: []string{"spiffe://d.test", "spiffe://d.*/x", "*/x", "web", "", "spiffe://D/x", "spiffe://d/x*/*/y", "*", "spiffe://d/x/*/y"}},
		{Name: DefaultDeny, Methods: []string{"GET", "*", "G T", ""}},
		{From: []string{"*"}, Paths: []string{"/ok", "x", "/a*", "/a/*/b", "/a?b", "/a//b", "/a/../b", "/%2f", "/%zz", "/*", "/a/", "", "/a b%20c", "//*", "/%2a"}},
	}}
	var got []string
	cfg.Validate(func(field, problem string) {
		if problem == "" {
			t.Errorf("%s: no word on what is wrong", field)
		}
		got = append(got, field)
	})
	want := []string{
		"mode",
		"rules[1].name", "rules[1].action",
		"rules[1].from[0]", "rules[1].from[1]", "rules[1].from[2]", "rules[1].from[3]", "rules[1].from[4]", "rules[1].from[5]", "rules[1].from[6]",
		"rules[2].name", "rules[2].from", "rules[2].methods[1]", "rules[2].methods[2]", "rules[2].methods[3]",
		"rules[3].paths[1]", "rules[3].paths[2]", "rules[3].paths[3]", "rules[3].paths[4]", "rules[3].paths[5]", "rules[3].paths[6]",
		"rules[3].paths[7]", "rules[3].paths[8]", "rules[3].paths[11]", "rules[3].paths[13]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	_, err := Compile(cfg)
	if err == nil {
		t.Fatal("Compile accepted what Validate refuses")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != len(want) {
		t.Errorf("Compile reports %d mistakes, want all %d", n, len(want))
	}
	shop.Validate(func(field, problem string) { t.Errorf("%s: %s", field, problem) })
}

func TestActionText(t *testing.T) {
	for in, want := range map[string]Action{"allow": Allow, "": Allow, "deny": Deny} {
		var a Action
		if err := a.UnmarshalText([]byte(in)); err != nil || a != want {
			t.Errorf("%q: %v, %v", in, a, err)
		}
	}
	var a Action
	if err := a.UnmarshalText([]byte("block")); err == nil {
		t.Error("an unknown action was accepted")
	}
	if b, _ := Deny.MarshalText(); string(b) != "deny" {
		t.Errorf("deny is written %q", b)
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	cfg := shop
	for i := range 200 {
		cfg.Rules = append(cfg.Rules[:len(cfg.Rules):len(cfg.Rules)], Rule{From: []string{fmt.Sprintf("spiffe://d.test/s%d", i)}, Paths: []string{"/p/*"}})
	}
	p := compile(t, cfg)
	who := id(t, "spiffe://d.test/s199")
	for _, path := range []string{"/p/x?y=z", "/p/%41/b//c", "/p%2fx", "/q"} {
		q := ask("GET", path)
		n := testing.AllocsPerRun(200, func() { p.Check(who, q) })
		if !raceEnabled && n != 0 {
			t.Errorf("Check of %q allocates %v times", path, n)
		}
	}
	if n := testing.AllocsPerRun(200, func() { p.CheckConn(who) }); n != 0 {
		t.Errorf("CheckConn allocates %v times", n)
	}
}
