package sidecar

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/mtls/jwt"
)

// requirement makes what a rule asks for of an intention's JWT. A provider that
// is not there, or not understood, is a problem: nobody has its tokens.
func (n *intended) requirement(j *mesh.JWTRequirement) (*authz.JWT, string) {
	if len(j.Providers) == 0 {
		return nil, "Providers is empty"
	}
	r := &authz.JWT{}
	for _, p := range j.Providers {
		if problem := n.provider(p.Name); problem != "" {
			return nil, fmt.Sprintf("Providers[%s] %s", p.Name, problem)
		}
		one := authz.JWTProvider{Name: p.Name}
		for _, c := range p.VerifyClaims {
			one.Claims = append(one.Claims, authz.JWTClaim{Path: slices.Clone(c.Path), Value: c.Value})
		}
		r.Providers = append(r.Providers, one)
	}
	return r, ""
}

// provider puts a provider into the configuration, once.
func (n *intended) provider(name string) (problem string) {
	if slices.ContainsFunc(n.cfg.JWTProviders, func(p jwt.Provider) bool { return p.Name == name }) {
		return ""
	}
	entry := n.providers[name]
	if entry == nil {
		return "is no jwt-provider that is known"
	}
	p, problem := n.made(entry)
	if problem == "" {
		p.Validate(func(field, what string) {
			if problem == "" {
				problem = field + ": " + what
			}
		})
	}
	if problem != "" {
		return "is not understood: " + problem
	}
	n.cfg.JWTProviders = append(n.cfg.JWTProviders, p)
	return ""
}

// made translates a jwt-provider entry.
func (n *intended) made(e *mesh.JWTProvider) (p jwt.Provider, problem string) {
	differs := func(field, what, remedy string) {
		n.findings = append(n.findings, Finding{Kind: Differs, Entry: "jwt-provider " + e.Name, Field: field, Problem: what, Remedy: remedy})
	}
	p = jwt.Provider{Name: e.Name, Issuer: e.Issuer, Audiences: slices.Clone(e.Audiences), ClockSkew: time.Duration(e.ClockSkewSeconds) * time.Second}
	if len(e.Unknown) > 0 {
		return p, "it has the unknown field " + strings.Join(e.Unknown, ", ")
	}
	set := e.JSONWebKeySet
	switch {
	case set == nil || (set.Local == nil) == (set.Remote == nil):
		return p, "JSONWebKeySet has not one of Local and Remote"
	case set.Local != nil && set.Local.JWKS != "":
		b, err := base64.StdEncoding.DecodeString(set.Local.JWKS)
		if err != nil {
			return p, "JSONWebKeySet.Local.JWKS is no base64"
		}
		p.Keys.Inline = string(b)
	case set.Local != nil:
		p.Keys.File = set.Local.Filename
	default:
		r := set.Remote
		p.Keys.URL, p.Keys.Refresh = r.URI, time.Duration(r.CacheDuration)
		p.Keys.Timeout = time.Duration(r.RequestTimeoutMs) * time.Millisecond
		retries(&p.Keys, r.RetryPolicy)
		if c := r.JWKSCluster; c != nil {
			p.Keys.ConnectTimeout = within(time.Duration(c.ConnectTimeout), 0, jwt.MaxTimeout)
			if c.DiscoveryType != "" {
				differs("JSONWebKeySet.Remote.JWKSCluster.DiscoveryType", "is not followed: the name is looked up for each fetch", "")
			}
			if t := c.TLSCertificates; t != nil && t.TrustedCA != nil {
				if t.TrustedCA.Filename == "" {
					return p, "JWKSCluster.TLSCertificates.TrustedCA is given in another manner than by Filename"
				}
				p.Keys.CA = t.TrustedCA.Filename
			}
		}
	}
	for i, l := range e.Locations {
		switch {
		case l.Header != nil:
			p.Locations = append(p.Locations, jwt.Location{Header: l.Header.Name, Prefix: l.Header.ValuePrefix, Forward: l.Header.Forward})
		case l.QueryParam != nil:
			p.Locations = append(p.Locations, jwt.Location{Query: l.QueryParam.Name})
		case l.Cookie != nil:
			p.Locations = append(p.Locations, jwt.Location{Cookie: l.Cookie.Name})
		default:
			return p, fmt.Sprintf("Locations[%d] names no place", i)
		}
	}
	if f := e.Forwarding; f != nil {
		p.ForwardPayload, p.PadPayload = f.HeaderName, f.PadForwardPayloadHeader
	}
	if e.CacheConfig != nil {
		p.Cache = e.CacheConfig.Size
	}
	return p, ""
}

// retries translates how often, and after what pauses, keys are asked for again.
// What is left out is as Envoy has it: 1s, and ten times the first pause.
func retries(k *jwt.Keys, p *mesh.JWKSRetryPolicy) {
	if p == nil {
		return
	}
	k.RetryTimes = within(p.NumRetries, 0, jwt.MaxRetries)
	k.RetryBase = jwt.DefaultRetryBase
	if b := p.RetryPolicyBackOff; b != nil {
		k.RetryBase = within(cmp.Or(time.Duration(b.BaseInterval), jwt.DefaultRetryBase), time.Millisecond, jwt.MaxRetry)
		k.RetryMax = time.Duration(b.MaxInterval)
	}
	k.RetryMax = within(cmp.Or(k.RetryMax, min(10*k.RetryBase, jwt.MaxRetry)), k.RetryBase, jwt.MaxRetry)
}

// within is v, or the bound that it passes.
func within[T cmp.Ordered](v, least, most T) T { return min(max(v, least), most) }
