package sidecar

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/mtls/jwt"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
)

const domain = "11111111-2222-3333-4444-555555555555.consul"

func callerID(t testing.TB, text string) mtls.ID {
	t.Helper()
	if text == "" {
		return mtls.ID{}
	}
	id, err := mtls.ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func service(name string) string { return "spiffe://" + domain + "/ns/default/dc/dc1/svc/" + name }

func head(t testing.TB, method, target string, fields ...string) *authz.Request {
	t.Helper()
	raw := []byte(method + " " + target + " HTTP/1.1\r\nHost: api.test\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
	var r http1.Request
	if n, err := r.Parse(raw, nil); err != nil || n == 0 {
		t.Fatalf("%q: %v", raw, err)
	}
	return &authz.Request{Method: r.MethodSpan.Of(raw), Resource: r.Resource(raw), Host: r.Host.Of(raw), Head: &r.Head, Raw: raw}
}

func intentionsOf(t testing.TB, text string) (list []mesh.Intention) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func compiled(t testing.TB, cfg authz.Config) *authz.Policy {
	t.Helper()
	p, err := authz.Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIntentionsNameTheDecision(t *testing.T) {
	cfg, findings := Intentions(intentionsOf(t, `[
		{"SourceNS":"default","SourceName":"web","DestinationNS":"default","DestinationName":"api","SourceType":"consul","Precedence":9,
		 "Permissions":[{"Action":"deny","HTTP":{"Methods":["PUT"]}},{"Action":"allow","HTTP":{"PathPrefix":"/v1","Header":[{"Name":"x-a","Present":true}]}}]},
		{"SourceName":"web","DestinationName":"*","Action":"allow","Precedence":5},
		{"SourceName":"bad","DestinationName":"api","Action":"allow","Precedence":9,"Unknown":["Foo"]},
		{"SourceName":"jobs","DestinationName":"api","Action":"deny","Precedence":9},
		{"SourceName":"*","SourceNS":"*","DestinationName":"api","Action":"allow","Precedence":8}
	]`), false, nil, domain, "http")
	p := compiled(t, cfg)
	for _, c := range []struct {
		from    string
		q       *authz.Request
		rule    string
		allowed bool
	}{
		{service("web"), head(t, "PUT", "/v1"), "intention web => api (precedence 9), permission 1", false},
		{service("web"), head(t, "GET", "/v1/x", "X-A: 1"), "intention web => api (precedence 9), permission 2", true},
		{service("web"), head(t, "GET", "/v1/x"), "intention web => api (precedence 9), no permission", false},
		{service("jobs"), head(t, "GET", "/"), "intention jobs => api (precedence 9)", false},
		{service("bad"), head(t, "GET", "/"), "intention bad => api (precedence 9)", false},
		{service("else"), head(t, "GET", "/"), "intention */* => api (precedence 8)", true},
		{"spiffe://" + domain + "/gateway/mesh/dc/dc1", head(t, "GET", "/"), authz.DefaultDeny, false},
		{"spiffe://" + domain + "/ap/far/ns/default/dc/dc1/svc/web", head(t, "GET", "/v1/x", "X-A: 1"), authz.DefaultDeny, false},
		{"spiffe://other.consul/ns/default/dc/dc1/svc/web", head(t, "GET", "/v1/x", "X-A: 1"), authz.DefaultDeny, false},
		{"", head(t, "GET", "/"), authz.DefaultDeny, false},
	} {
		if v := p.Check(callerID(t, c.from), c.q); v.Rule != c.rule || v.Allowed != c.allowed {
			t.Errorf("%s %s: %+v, want %s", c.from, c.q.Resource, v, c.rule)
		}
	}
	if len(findings) != 1 || findings[0].Kind != Refused || findings[0].Entry != "service-intentions api" || findings[0].Field != "Sources[bad]" || !strings.Contains(findings[0].Problem, "Foo") {
		t.Errorf("findings: %+v", findings)
	}
}

// What is not understood lets nobody pass, whatever the default, and is told.
func TestIntentionsFailClosed(t *testing.T) {
	const common = `"SourceName":"web","DestinationName":"api","Precedence":9,`
	for name, text := range map[string]string{
		"unknown field":        `"Action":"allow","Unknown":["Extra"]`,
		"unknown action":       `"Action":"audit"`,
		"no action":            `"Action":""`,
		"source type":          `"Action":"allow","SourceType":"external"`,
		"both":                 `"Action":"allow","Permissions":[{"Action":"allow"}]`,
		"permission action":    `"Permissions":[{"Action":"maybe"}]`,
		"two paths":            `"Permissions":[{"Action":"allow","HTTP":{"PathExact":"/a","PathPrefix":"/b"}}]`,
		"bad expression":       `"Permissions":[{"Action":"allow","HTTP":{"PathRegex":"(a"}}]`,
		"escaped expression":   `"Permissions":[{"Action":"allow","HTTP":{"PathRegex":"/a%20b"}}]`,
		"bad path":             `"Permissions":[{"Action":"allow","HTTP":{"PathExact":"/a/../b"}}]`,
		"double slash":         `"Permissions":[{"Action":"allow","HTTP":{"PathPrefix":"/a//b"}}]`,
		"empty header":         `"Permissions":[{"Action":"allow","HTTP":{"Header":[{"Name":"x"}]}}]`,
		"two header kinds":     `"Permissions":[{"Action":"allow","HTTP":{"Header":[{"Name":"x","Exact":"a","Prefix":"b"}]}}]`,
		"pseudo header":        `"Permissions":[{"Action":"allow","HTTP":{"Header":[{"Name":":scheme","Exact":"a"}]}}]`,
		"bad method":           `"Permissions":[{"Action":"allow","HTTP":{"Methods":["G|T"]}}]`,
		"sameness group":       `"Action":"allow","SourceSamenessGroup":"all"`,
		"peer that is unknown": `"Action":"deny","SourcePeer":"far"`,
	} {
		list := intentionsOf(t, "[{"+common+text+`},{"SourceName":"*","DestinationName":"*","Action":"allow","Precedence":1}]`)
		for _, allow := range []bool{false, true} {
			cfg, findings := Intentions(list, allow, nil, domain, "http")
			p := compiled(t, cfg)
			if len(findings) != 1 || findings[0].Kind != Refused || findings[0].Problem == "" {
				t.Errorf("%s: findings %+v", name, findings)
			}
			who := service("web")
			if name == "peer that is unknown" {
				who = "spiffe://far.consul/ns/default/dc/dc1/svc/web"
			}
			if name == "sameness group" && !allow {
				continue // the other intention is for web
			}
			if v := p.Check(callerID(t, who), head(t, "GET", "/a")); v.Allowed {
				t.Errorf("%s, default allow %t: %+v", name, allow, v)
			}
		}
	}
	cfg, findings := Intentions(intentionsOf(t, "[{"+common+`"Action":"allow"}]`), true, nil, "", "http")
	if v := compiled(t, cfg).Check(callerID(t, service("web")), head(t, "GET", "/")); v.Allowed || len(findings) != 1 {
		t.Errorf("without a trust domain: %+v, %+v", v, findings)
	}
}

func TestIntentionsOfPeers(t *testing.T) {
	list := intentionsOf(t, `[{"SourceName":"web","SourcePeer":"far","DestinationName":"api","Action":"allow","Precedence":9},
		{"SourceName":"web","DestinationName":"api","Action":"deny","Precedence":9}]`)
	cfg, findings := Intentions(list, false, nil, domain, "tcp", Peer{Name: "far", TrustDomain: "far.consul", Partition: "p1"})
	p := compiled(t, cfg)
	if v := p.CheckConn(callerID(t, "spiffe://far.consul/ap/p1/ns/default/dc/dc9/svc/web")); !v.Allowed || v.Rule != "intention web of peer far => api (precedence 9)" {
		t.Errorf("%+v", v)
	}
	if p.CheckConn(callerID(t, "spiffe://far.consul/ns/default/dc/dc9/svc/web")).Allowed || p.CheckConn(callerID(t, service("web"))).Allowed {
		t.Error("others than the peer's are allowed")
	}
	if len(findings) != 0 {
		t.Errorf("findings: %+v", findings)
	}
}

func TestIntentionsForTCP(t *testing.T) {
	list := intentionsOf(t, `[{"SourceName":"web","DestinationName":"db","Precedence":9,"Permissions":[{"Action":"allow"}]},{"SourceName":"*","DestinationName":"db","Action":"allow","Precedence":8}]`)
	for _, allow := range []bool{false, true} {
		cfg, _ := Intentions(list, allow, nil, domain, "tcp")
		p := compiled(t, cfg)
		if v := p.CheckConn(callerID(t, service("web"))); v.Allowed || !strings.Contains(v.Rule, "intention web => db (precedence 9)") {
			t.Errorf("%+v", v)
		}
		if !p.CheckConn(callerID(t, service("jobs"))).Allowed {
			t.Error("the intention for all is lost")
		}
	}
}

// model is the literal reading: sort, find the source, go through the
// permissions, else the default.
func model(list []mesh.Intention, allow bool, http bool, caller, method, path string, fields map[string]string) bool {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b mesh.Intention) int { return b.Precedence - a.Precedence })
	part := func(s string) string {
		if s == "*" {
			return "[^/]+"
		}
		return regexp.QuoteMeta(s)
	}
	for _, i := range list {
		if !regexp.MustCompile("^spiffe://" + regexp.QuoteMeta(domain) + "/ns/" + part(i.SourceNS) + "/dc/[^/]+/svc/" + part(i.SourceName) + "$").MatchString(caller) {
			continue
		}
		if len(i.Permissions) == 0 {
			return i.Action == "allow"
		}
		if !http {
			return false
		}
		for _, p := range i.Permissions {
			met := true
			if h := p.HTTP; h != nil {
				met = (h.PathExact == "" || path == h.PathExact) && strings.HasPrefix(path, h.PathPrefix) &&
					(h.PathRegex == "" || regexp.MustCompile("^(?:"+h.PathRegex+")$").MatchString(path)) &&
					(len(h.Methods) == 0 || slices.Contains(h.Methods, method))
				for _, c := range h.Header {
					v, there := fields[c.Name]
					one := false
					switch {
					case c.Present:
						one = there != c.Invert
					case there && c.Exact != "":
						one = (v == c.Exact || c.IgnoreCase && strings.EqualFold(v, c.Exact)) != c.Invert
					case there && c.Contains != "":
						one = strings.Contains(v, c.Contains) != c.Invert
					}
					met = met && one
				}
			}
			if met {
				return p.Action == "allow"
			}
		}
		return allow
	}
	return allow
}

func TestIntentionsAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	allowed := 0
	for range 2000 {
		var list []mesh.Intention
		for range rnd.IntN(6) {
			i := mesh.Intention{SourceNS: "default", SourceName: pick("web", "jobs", "*"), DestinationName: pick("api", "*"), Precedence: 1 + rnd.IntN(9), SourceType: "consul"}
			if i.SourceName == "*" {
				i.SourceNS = pick("default", "*")
			}
			if slices.ContainsFunc(list, func(o mesh.Intention) bool { return o.Precedence == i.Precedence }) {
				continue // Consul has no two of the same that could both match
			}
			if rnd.IntN(2) == 0 {
				i.Action = pick("allow", "deny")
			} else {
				var perms []string
				for range 1 + rnd.IntN(3) {
					http := []string{
						`{}`, `{"PathExact":"/a"}`, `{"PathPrefix":"/a"}`, `{"PathRegex":"/[ab]/?c?"}`, `{"Methods":["GET","HEAD"]}`,
						`{"Header":[{"Name":"x","Exact":"V","IgnoreCase":true}]}`, `{"PathPrefix":"/a","Header":[{"Name":"x","Present":true,"Invert":true}]}`,
						`{"Header":[{"Name":"x","Contains":"v","Invert":true}],"Methods":["PUT"]}`,
					}
					perms = append(perms, fmt.Sprintf(`{"Action":%q,"HTTP":%s}`, pick("allow", "deny"), pick(http...)))
				}
				if err := json.Unmarshal([]byte("["+strings.Join(perms, ",")+"]"), &i.Permissions); err != nil {
					t.Fatal(err)
				}
			}
			list = append(list, i)
		}
		allow, protocol := rnd.IntN(2) == 0, pick("http", "http2", "grpc", "tcp")
		cfg, findings := Intentions(list, allow, nil, domain, protocol)
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		p := compiled(t, cfg)
		for range 10 {
			caller := pick(service("web"), service("jobs"), service("other"), "spiffe://"+domain+"/ns/n2/dc/dc2/svc/web", "spiffe://x.consul/ns/default/dc/dc1/svc/web")
			method, path, fields := pick("GET", "PUT"), pick("/", "/a", "/a/c", "/b"), map[string]string{}
			var lines []string
			if rnd.IntN(2) == 0 {
				fields["x"] = pick("v", "w")
				lines = []string{"x: " + fields["x"]}
			}
			want := model(list, allow, protocol != "tcp", caller, method, path, fields)
			v := p.Check(callerID(t, caller), head(t, method, path, lines...))
			if protocol == "tcp" {
				v = p.CheckConn(callerID(t, caller))
			}
			if v.Allowed != want {
				t.Fatalf("%+v\n%s, %s %s %v, default allow %t: %+v, reference %t", list, caller, method, path, fields, allow, v, want)
			}
			if want {
				allowed++
			}
		}
	}
	if allowed < 3000 || allowed > 17000 {
		t.Errorf("%d of 20000 were allowed: the test hardly tests", allowed)
	}
}

// FuzzIntentions holds whatever Consul may answer to this: the rules are valid,
// and of an intention that is not understood nobody profits.
func FuzzIntentions(f *testing.F) {
	f.Add(`[{"SourceName":"web","DestinationName":"api","Action":"allow","Precedence":9}]`, true)
	f.Add(`[{"SourceName":"web","SourceNS":"*","DestinationName":"api","Permissions":[{"Action":"deny","HTTP":{"PathExact":"/*"}}]}]`, false)
	f.Add(`[{"SourceName":"a b","SourcePeer":"x","SourcePartition":"p"}]`, true)
	f.Add(`[{"SourceName":"web","JWT":{"Providers":[{"Name":"x","VerifyClaims":[{"Path":["a"],"Value":"b"}]}]},"Action":"allow"}]`, false)
	f.Fuzz(func(t *testing.T, text string, allow bool) {
		var list []mesh.Intention
		if json.Unmarshal([]byte(text), &list) != nil {
			return
		}
		cfg, _ := Intentions(list, allow, nil, domain, "http")
		if _, err := authz.Compile(cfg); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !allow && slices.ContainsFunc(cfg.Rules, func(r authz.Rule) bool { return r.Action == authz.Allow }) != strings.Contains(strings.ToLower(text), "allow") {
			for _, r := range cfg.Rules {
				if r.Action == authz.Allow {
					t.Fatalf("%s: something is allowed that nobody has asked for: %+v", text, r)
				}
			}
		}
	})
}

// A requirement of a token holds for the whole intention, or for what a
// permission takes; where it cannot be understood nobody passes.
func TestIntentionsWithJWT(t *testing.T) {
	list := intentionsOf(t, `[
		{"SourceName":"web","DestinationName":"api","Precedence":9,"JWT":{"Providers":[{"Name":"okta"}]},"Permissions":[
			{"Action":"allow","HTTP":{"PathPrefix":"/admin"},"JWT":{"Providers":[{"Name":"okta","VerifyClaims":[{"Path":["perms","role"],"Value":"admin"}]},{"Name":"auth0"}]}},
			{"Action":"allow","HTTP":{"PathPrefix":"/"}}]},
		{"SourceName":"jobs","DestinationName":"api","Precedence":9,"Action":"allow","JWT":{"Providers":[{"Name":"nobody"}]}},
		{"SourceName":"batch","DestinationName":"api","Precedence":9,"Action":"allow","JWT":{"Providers":[{"Name":"newer"}]}}]`)
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":%q}]}`, base64.RawURLEncoding.EncodeToString(pub))
	var providers map[string]*mesh.JWTProvider
	text := fmt.Sprintf(`{
		"okta":{"Name":"okta","Issuer":"https://okta.test","Audiences":["api"],"JSONWebKeySet":{"Local":{"JWKS":%q}},"ClockSkewSeconds":5,"CacheConfig":{"Size":7},
			"Locations":[{"Header":{"Name":"x-jwt","ValuePrefix":"Bearer ","Forward":true}},{"QueryParam":{"Name":"t"}},{"Cookie":{"Name":"c"}}],
			"Forwarding":{"HeaderName":"x-payload","PadForwardPayloadHeader":true}},
		"auth0":{"Name":"auth0","Issuer":"https://auth0.test","JSONWebKeySet":{"Remote":{"URI":"https://auth0.test/keys","RequestTimeoutMs":1500,"CacheDuration":"2m",
			"RetryPolicy":{"NumRetries":3,"RetryPolicyBackOff":{"BaseInterval":"2s"}},"JWKSCluster":{"DiscoveryType":"STRICT_DNS","ConnectTimeout":"700ms","TLSCertificates":{"TrustedCA":{"Filename":"/ca.pem"}}}}}},
		"newer":{"Name":"newer","Issuer":"https://newer.test","JSONWebKeySet":{"Local":{"JWKS":%[1]q}},"Unknown":["Strange"]}}`, base64.StdEncoding.EncodeToString([]byte(set)))
	if err := json.Unmarshal([]byte(text), &providers); err != nil {
		t.Fatal(err)
	}
	for _, allow := range []bool{false, true} {
		cfg, findings := Intentions(list, allow, providers, domain, "http")
		refused, differs := 0, 0
		for _, f := range findings {
			if f.Kind == Refused {
				refused++
			} else {
				differs++
			}
		}
		if refused != 2 || differs != 1 {
			t.Errorf("findings: %+v", findings)
		}
		want := []jwt.Provider{
			{
				Name: "okta", Issuer: "https://okta.test", Audiences: []string{"api"}, Keys: jwt.Keys{Inline: set}, ClockSkew: 5 * time.Second, Cache: 7,
				Locations:      []jwt.Location{{Header: "x-jwt", Prefix: "Bearer ", Forward: true}, {Query: "t"}, {Cookie: "c"}},
				ForwardPayload: "x-payload", PadPayload: true,
			},
			{Name: "auth0", Issuer: "https://auth0.test", Keys: jwt.Keys{
				URL: "https://auth0.test/keys", Timeout: 1500 * time.Millisecond, ConnectTimeout: 700 * time.Millisecond, Refresh: 2 * time.Minute, CA: "/ca.pem",
				RetryBase: 2 * time.Second, RetryMax: 20 * time.Second, RetryTimes: 3,
			}},
		}
		if !reflect.DeepEqual(cfg.JWTProviders, want) {
			t.Errorf("providers:\n%+v, want\n%+v", cfg.JWTProviders, want)
		}
		p := compiled(t, cfg)
		for _, c := range []struct{ from, path, rule, detail string }{
			{"web", "/x", "intention web => api (precedence 9), JWT", "JWT of okta: no token"},
			{"jobs", "/x", "intention jobs => api (precedence 9)", ""},
			{"batch", "/x", "intention batch => api (precedence 9)", ""},
		} {
			if v := p.Check(callerID(t, service(c.from)), head(t, "GET", c.path)); v.Allowed || v.Rule != c.rule || v.Detail != c.detail {
				t.Errorf("%s: %+v, want %s", c.from, v, c.rule)
			}
		}
		// The permission alone asks, of what it takes.
		alone := slices.Clone(list[:1])
		alone[0].JWT = nil
		cfg, _ = Intentions(alone, allow, providers, domain, "http")
		p = compiled(t, cfg)
		if v := p.Check(callerID(t, service("web")), head(t, "GET", "/admin")); v.Allowed || v.Rule != "intention web => api (precedence 9), permission 1, JWT" {
			t.Errorf("%+v", v)
		}
		if v := p.Check(callerID(t, service("web")), head(t, "GET", "/x")); !v.Allowed || v.Rule != "intention web => api (precedence 9), permission 2" {
			t.Errorf("%+v", v)
		}
		// On a connection there is no token.
		cfg, _ = Intentions(list, allow, providers, domain, "tcp")
		if v := compiled(t, cfg).CheckConn(callerID(t, service("web"))); v.Allowed {
			t.Errorf("%+v", v)
		}
	}
}

// What Consul leaves out of a retry policy, or asks for beyond what is possible.
func TestJWKSRetries(t *testing.T) {
	type backOff = struct{ BaseInterval, MaxInterval mesh.Duration }
	for _, c := range []struct {
		policy *mesh.JWKSRetryPolicy
		want   jwt.Keys
	}{
		{nil, jwt.Keys{}},
		{&mesh.JWKSRetryPolicy{}, jwt.Keys{RetryBase: time.Second, RetryMax: 10 * time.Second}},
		{&mesh.JWKSRetryPolicy{NumRetries: -1, RetryPolicyBackOff: &backOff{}}, jwt.Keys{RetryBase: time.Second, RetryMax: 10 * time.Second}},
		{
			&mesh.JWKSRetryPolicy{NumRetries: 7, RetryPolicyBackOff: &backOff{mesh.Duration(time.Minute), mesh.Duration(5 * time.Minute)}},
			jwt.Keys{RetryTimes: 7, RetryBase: time.Minute, RetryMax: 5 * time.Minute},
		},
		{
			&mesh.JWKSRetryPolicy{NumRetries: 1e6, RetryPolicyBackOff: &backOff{mesh.Duration(2 * time.Hour), mesh.Duration(3 * time.Hour)}},
			jwt.Keys{RetryTimes: jwt.MaxRetries, RetryBase: time.Hour, RetryMax: time.Hour},
		},
		{
			&mesh.JWKSRetryPolicy{RetryPolicyBackOff: &backOff{mesh.Duration(time.Minute), mesh.Duration(time.Second)}},
			jwt.Keys{RetryBase: time.Minute, RetryMax: time.Minute},
		},
	} {
		var got jwt.Keys
		retries(&got, c.policy)
		if got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.policy, got, c.want)
		}
		got.URL = "https://issuer.test"
		p := jwt.Provider{Name: "p", Issuer: "i", Keys: got}
		p.Validate(func(field, problem string) { t.Errorf("%+v: %s %s", c.policy, field, problem) })
	}
}
