package sidecar

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// matched reads the intentions for a service as Consul answers them.
func matched(t *testing.T, c *testkit.ConsulAgent, name string) []mesh.Intention {
	t.Helper()
	var answer map[string][]mesh.Intention
	if err := json.Unmarshal(c.Do(t, "GET", "/v1/connect/intentions/match?by=destination&name="+name, nil), &answer); err != nil {
		t.Fatal(err)
	}
	return answer[name]
}

// tokens has Consul keep providers and intentions that ask for their tokens.
func tokens(t *testing.T, c *testkit.ConsulAgent, domain string, allow bool) {
	t.Helper()
	write := func(body string) { c.Do(t, "PUT", "/v1/config", json.RawMessage(body)) }
	write(`{"Kind":"jwt-provider","Name":"far","Issuer":"https://far.test","JSONWebKeySet":{"Remote":{"URI":"https://far.test/keys","RequestTimeoutMs":500,"CacheDuration":"30m","FetchAsynchronously":true}},
		"Locations":[{"Header":{"Name":"x-jwt","ValuePrefix":"Bearer "}}],"Forwarding":{"HeaderName":"x-payload"}}`)
	write(`{"Kind":"jwt-provider","Name":"near","Issuer":"https://near.test","JSONWebKeySet":{"Local":{"JWKS":"eyJrZXlzIjpbeyJrdHkiOiJPS1AiLCJjcnYiOiJFZDI1NTE5IiwieCI6IjExcVlBWUt4Q3JmVlNfN1R5V1FIT2c3aGN2UGFwaU1scHduM2U0dFBRemsifV19"}}}`)
	write(`{"Kind":"service-defaults","Name":"bank","Protocol":"http"}`)
	write(`{"Kind":"service-intentions","Name":"bank","JWT":{"Providers":[{"Name":"near"}]},"Sources":[{"Name":"web","Permissions":[{"Action":"allow","HTTP":{"PathPrefix":"/"},
		"JWT":{"Providers":[{"Name":"far","VerifyClaims":[{"Path":["perms","role"],"Value":"admin"}]}]}}]}]}`)
	var entries []json.RawMessage
	if err := json.Unmarshal(c.Do(t, "GET", "/v1/config/jwt-provider", nil), &entries); err != nil {
		t.Fatal(err)
	}
	providers := map[string]*mesh.JWTProvider{}
	for _, e := range entries {
		var p mesh.JWTProvider
		if err := json.Unmarshal(e, &p); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		providers[p.Name] = &p
	}
	cfg, findings := Intentions(matched(t, c, "bank"), allow, providers, domain, "http")
	if len(findings) != 0 || len(cfg.JWTProviders) != 2 {
		t.Errorf("%+v, %+v", findings, cfg.JWTProviders)
	}
	v := compiled(t, cfg).Check(callerID(t, "spiffe://"+domain+"/ns/default/dc/dc1/svc/web"), head(t, "GET", "/"))
	if v.Allowed || v.Rule != "intention web => bank (precedence 9), JWT" || v.Detail != "JWT of near: no token" {
		t.Errorf("without a token: %+v", v)
	}
}

// TestIntentionsOfRealConsul has each kind of intention written by Consul's API
// and compares what becomes of it with what Consul itself says.
func TestIntentionsOfRealConsul(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{false, true} {
		t.Run(fmt.Sprintf("default allow %t", allow), func(t *testing.T) {
			t.Parallel()
			c := testkit.Consul(t, testkit.ConsulOptions{Mesh: true, ACL: !allow})
			write := func(body string) { c.Do(t, "PUT", "/v1/config", json.RawMessage(body)) }
			var roots struct{ TrustDomain string }
			if err := json.Unmarshal(c.Do(t, "GET", "/v1/connect/ca/roots", nil), &roots); err != nil {
				t.Fatal(err)
			}
			write(`{"Kind":"service-defaults","Name":"api","Protocol":"http"}`)
			write(`{"Kind":"service-intentions","Name":"db","Sources":[{"Name":"web","Action":"allow"},{"Name":"jobs","Action":"deny"}]}`)
			write(`{"Kind":"service-intentions","Name":"cache","Sources":[{"Name":"web","Action":"deny"},{"Name":"*","Action":"allow"}]}`)
			write(`{"Kind":"service-intentions","Name":"*","Sources":[{"Name":"jobs","Action":"allow"},{"Name":"batch","Action":"deny"}]}`)
			write(`{"Kind":"service-intentions","Name":"api","Sources":[{"Name":"web","Permissions":[
				{"Action":"deny","HTTP":{"Methods":["PUT","DELETE"]}},
				{"Action":"allow","HTTP":{"PathExact":"/exact"}},
				{"Action":"allow","HTTP":{"PathPrefix":"/v1","Header":[{"Name":"x-role","Exact":"Admin","IgnoreCase":true}]}},
				{"Action":"deny","HTTP":{"PathRegex":"/items/[0-9]+","Header":[{"Name":"x-no","Present":true}]}},
				{"Action":"allow","HTTP":{"PathRegex":"/items/[0-9]+","Header":[{"Name":"x-bad","Contains":"z","Invert":true}]}}]}]}`)

			tokens(t, c, roots.TrustDomain, allow)

			// Where connections decide, Consul is asked what it would say.
			for _, to := range []string{"db", "cache", "other"} {
				cfg, findings := Intentions(matched(t, c, to), allow, nil, roots.TrustDomain, "tcp")
				if len(findings) != 0 {
					t.Errorf("%s: %+v", to, findings)
				}
				p := compiled(t, cfg)
				for _, from := range []string{"web", "jobs", "batch", "else"} {
					var check struct{ Allowed bool }
					if err := json.Unmarshal(c.Do(t, "GET", "/v1/connect/intentions/check?source="+from+"&destination="+to, nil), &check); err != nil {
						t.Fatal(err)
					}
					uri := "spiffe://" + roots.TrustDomain + "/ns/default/dc/dc1/svc/" + from
					var authorized struct {
						Authorized bool
						Reason     string
					}
					body := json.RawMessage(fmt.Sprintf(`{"Target":%q,"ClientCertURI":%q,"ClientCertSerial":"01"}`, to, uri))
					if err := json.Unmarshal(c.Do(t, "POST", "/v1/agent/connect/authorize", body), &authorized); err != nil {
						t.Fatal(err)
					}
					v := p.CheckConn(callerID(t, uri))
					if v.Allowed != check.Allowed || v.Allowed != authorized.Authorized {
						t.Errorf("%s => %s: %+v; Consul says %t, %t (%s)", from, to, v, check.Allowed, authorized.Authorized, authorized.Reason)
					}
				}
			}

			// Permissions are decided where the request is; Consul only says that they are there.
			cfg, findings := Intentions(matched(t, c, "api"), allow, nil, roots.TrustDomain, "http")
			if len(findings) != 0 {
				t.Errorf("%+v", findings)
			}
			p := compiled(t, cfg)
			none := "intention web => api (precedence 9), no permission"
			for _, q := range []struct {
				method, target string
				fields         []string
				rule           string
				allowed        bool
			}{
				{"PUT", "/exact", nil, "intention web => api (precedence 9), permission 1", false},
				{"GET", "/exact?a=b", nil, "intention web => api (precedence 9), permission 2", true},
				{"GET", "/exact/", nil, none, allow},
				{"GET", "/v1/a", []string{"X-Role: aDMIN"}, "intention web => api (precedence 9), permission 3", true},
				{"GET", "/v1/a", []string{"X-Role: user"}, none, allow},
				{"GET", "/items/7", []string{"x-no: 1", "x-bad: a"}, "intention web => api (precedence 9), permission 4", false},
				{"GET", "/items/7", []string{"x-bad: a"}, "intention web => api (precedence 9), permission 5", true},
				{"GET", "/items/7", []string{"x-bad: z"}, none, allow},
			} {
				v := p.Check(callerID(t, "spiffe://"+roots.TrustDomain+"/ns/default/dc/dc2/svc/web"), head(t, q.method, q.target, q.fields...))
				if v.Rule != q.rule || v.Allowed != q.allowed {
					t.Errorf("%s %s %q: %+v, want %s", q.method, q.target, q.fields, v, q.rule)
				}
			}
			if v := p.Check(callerID(t, "spiffe://"+roots.TrustDomain+"/ns/default/dc/dc1/svc/batch"), head(t, "GET", "/")); v.Allowed || v.Rule != "intention batch => * (precedence 8)" && v.Rule != "intention batch => * (precedence 6)" {
				t.Errorf("batch: %+v", v)
			}
		})
	}
}
