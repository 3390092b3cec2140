package config

import (
	"slices"
	"strings"
	"testing"
)

func TestIdentityTLS(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*Config)
		want string // the path and words of the problem
	}{
		{"fine", func(c *Config) {
			c.Identity.TLS = IdentityTLS{
				Incoming: TLSRange{Min: "1.2", CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}},
				Outgoing: TLSRange{Max: "1.2"},
			}
			c.Identity.Bundles = map[string]string{"o.test": "/o.pem"}
			c.Policies = map[string]Policy{"api": DefaultPolicy()}
			p := c.Policies["api"]
			p.ServerName = "v2.api.default.dc1.internal.11111111-2222-3333-4444-555555555555.consul"
			c.Policies["api"] = p
		}, ""},
		{"turned round", func(c *Config) { c.Identity.TLS.Incoming = TLSRange{Min: "1.3", Max: "1.2"} }, "identity.tls.incoming.min is 1.3, above max"},
		{"suite without forward secrecy", func(c *Config) {
			c.Identity.TLS.Outgoing = TLSRange{Min: "1.2", CipherSuites: []string{"TLS_RSA_WITH_AES_128_GCM_SHA256"}}
		}, "identity.tls.outgoing.cipher_suites[0] is"},
		{"suites for nothing", func(c *Config) {
			c.Identity.TLS.Outgoing = TLSRange{CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}}
		}, "identity.tls.outgoing.cipher_suites are never used"},
		{"no trust domain", func(c *Config) { c.Identity.Bundles = map[string]string{"O": "/o.pem"} }, "identity.bundles.O"},
		{"no file", func(c *Config) { c.Identity.Bundles = map[string]string{"o.test": ""} }, `identity.bundles."o.test" is empty`},
		{"an address", func(c *Config) {
			p := DefaultPolicy()
			p.ServerName = "10.0.0.1"
			c.Policies = map[string]Policy{"api": p}
		}, "policies.api.server_name is \"10.0.0.1\""},
		{"everybody's name", func(c *Config) {
			p := DefaultPolicy()
			p.ServerName = "gateway"
			c.Policies = map[string]Policy{AnyService: p}
		}, "policies.*.server_name would be"},
		{"plaintext", func(c *Config) {
			p := DefaultPolicy()
			p.ServerName, p.Transport = "api", TransportPlaintext
			c.Policies = map[string]Policy{"api": p}
		}, "policies.api.server_name is never sent"},
	} {
		cfg := inCode()
		c.set(cfg)
		var got []string
		cfg.WithDefaults().Validate(func(field, problem string) { got = append(got, field+" "+problem) })
		if c.want == "" && len(got) > 0 || c.want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, c.want) }) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	c := inCode()
	c.Identity.MinTLS = "1.3"
	c.Identity.TLS.Outgoing.Max = "1.2"
	if got := c.WithDefaults().Identity.TLS; got.Incoming.Min != "1.3" || got.Outgoing.Min != "1.2" || got.Incoming.Max != "1.3" {
		t.Errorf("defaults of TLS: %+v", got)
	}
}
