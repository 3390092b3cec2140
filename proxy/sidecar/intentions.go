package sidecar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
)

// Peer is what is known of a cluster peer beside its name: without it, its
// callers cannot be told from others.
type Peer struct {
	Name        string // as Consul's intentions name it
	TrustDomain string
	Partition   string // that exports the services; empty for the default
}

// Intentions makes rules of the intentions for a service. The first that is for a
// caller decides about it, by its action, or by the first of its permissions
// that takes the request, else by the default; of requests from anybody else the
// default holds. protocol is the service's. What is not understood lets nobody
// pass, and a finding says so.
func Intentions(list []mesh.Intention, defaultAllow bool, providers map[string]*mesh.JWTProvider, trustDomain, protocol string, peers ...Peer) (authz.Config, []Finding) {
	n := &intended{
		providers: providers, domain: trustDomain, http: protocol == "http" || protocol == "http2" || protocol == "grpc", peers: peers,
		fallback: authz.Deny, cfg: authz.Defaults(), names: map[string]bool{},
	}
	n.cfg.Order, n.cfg.Default = authz.FirstMatch, authz.DefaultDenies
	if defaultAllow {
		n.fallback, n.cfg.Default = authz.Allow, authz.DefaultAllows
	}
	if _, err := mtls.ParseTrustDomain(trustDomain); err != nil {
		n.findings = append(n.findings, Finding{Kind: Refused, Entry: "intentions", Problem: "cannot be applied, so that nobody may call: " + err.Error(), Remedy: "see that Consul's certificate authority can be reached"})
		n.cfg.Rules = []authz.Rule{{Name: "the mesh has no trust domain", Action: authz.Deny, From: []string{"*"}}}
		return n.cfg, n.findings
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b mesh.Intention) int { return cmp.Compare(b.Precedence, a.Precedence) })
	seen := map[source]bool{}
	for i := range list {
		// A later intention for the same source has nobody left.
		if s := sourceOf(&list[i]); !seen[s] {
			seen[s] = true
			n.intention(&list[i])
		}
	}
	if n.strangers && defaultAllow {
		// The default is not for those whom an intention may mean.
		known := []string{"spiffe://" + trustDomain + "/*"}
		for _, p := range peers {
			known = append(known, "spiffe://"+p.TrustDomain+"/*")
		}
		n.cfg.Rules = append(n.cfg.Rules, authz.Rule{Name: "default policy (allow), but for unknown peers", From: known})
		n.cfg.Default = authz.DefaultDenies
	}
	return n.cfg, n.findings
}

// intended is one call of Intentions.
type intended struct {
	providers map[string]*mesh.JWTProvider
	domain    string
	http      bool
	peers     []Peer
	fallback  authz.Action
	cfg       authz.Config
	names     map[string]bool
	findings  []Finding
	// strangers says that some intention is about callers that cannot be told
	// from others.
	strangers bool
}

type source struct{ peer, group, partition, namespace, name string }

func sourceOf(i *mesh.Intention) source {
	return source{i.SourcePeer, i.SourceSamenessGroup, i.SourcePartition, i.SourceNS, i.SourceName}
}

// intention adds the rules of one.
func (n *intended) intention(i *mesh.Intention) {
	title := n.title(i)
	entry, field := "service-intentions "+i.DestinationName, "Sources["+sourceName(i)+"]"
	refuse := func(field, problem, remedy string) {
		n.findings = append(n.findings, Finding{Kind: Refused, Entry: entry, Field: field, Problem: problem, Remedy: remedy})
	}
	from, problem, remedy := n.from(i)
	if problem != "" {
		refuse(field, problem, remedy)
		if i.SourceSamenessGroup != "" && n.fallback == authz.Allow {
			n.cfg.Rules = append(n.cfg.Rules, authz.Rule{Name: title, Action: authz.Deny, From: []string{"*"}})
		}
		n.strangers = n.strangers || i.SourcePeer != ""
		return
	}
	rules, problem := n.rules(i, title, from)
	if problem == "" {
		authz.Config{Rules: rules, JWTProviders: n.cfg.JWTProviders}.Validate(func(at, what string) {
			if problem == "" {
				problem = at + ": " + what
			}
		})
	}
	if problem != "" {
		refuse(field, "is not understood, so that it lets nobody pass: "+problem, "write it in another manner")
		rules = []authz.Rule{{Name: title, Action: authz.Deny, From: []string{from}}}
	}
	n.cfg.Rules = append(n.cfg.Rules, rules...)
}

// title names the intention where it decides; each has another.
func (n *intended) title(i *mesh.Intention) string {
	t := fmt.Sprintf("intention %s => %s (precedence %d)", sourceName(i), qualified(i.DestinationPartition, i.DestinationNS, i.DestinationName), i.Precedence)
	for unique, k := t, 2; n.names[t]; k++ {
		t = fmt.Sprintf("%s #%d", unique, k)
	}
	n.names[t] = true
	return t
}

func sourceName(i *mesh.Intention) string {
	s := qualified(i.SourcePartition, i.SourceNS, i.SourceName)
	switch {
	case i.SourcePeer != "":
		return s + " of peer " + i.SourcePeer
	case i.SourceSamenessGroup != "":
		return s + " of sameness group " + i.SourceSamenessGroup
	}
	return s
}

func qualified(partition, namespace, name string) string {
	if namespace != "" && namespace != "default" {
		name = namespace + "/" + name
	}
	if partition != "" && partition != "default" {
		name = partition + "/" + name
	}
	return name
}

// from is the pattern of the callers that i is about: in any datacenter, as Consul
// has it.
func (n *intended) from(i *mesh.Intention) (pattern, problem, remedy string) {
	domain, partition := n.domain, i.SourcePartition
	switch {
	case i.SourceSamenessGroup != "":
		return "", "is about a sameness group, which only Consul Enterprise has: it lets nobody pass", "name the services"
	case i.SourcePeer != "":
		p := slices.IndexFunc(n.peers, func(p Peer) bool { return p.Name == i.SourcePeer })
		if p < 0 {
			return "", "is about callers of the peer " + i.SourcePeer + ", whose trust domain is not known: none of them may call", "name the peer's trust domain and supply its bundle"
		}
		domain, partition = n.peers[p].TrustDomain, n.peers[p].Partition
	}
	pattern = "spiffe://" + domain
	if partition != "" && partition != "default" {
		pattern += "/ap/" + partition
	}
	pattern += "/ns/" + cmp.Or(i.SourceNS, "default") + "/dc/*/svc/" + i.SourceName
	authz.Config{Rules: []authz.Rule{{From: []string{pattern}}}}.Validate(func(_, what string) { problem = "lets nobody pass: " + what })
	return pattern, problem, "name services by letters, digits, dashes, dots and underscores"
}

// rules are those of one intention. problem says what is not understood of it.
func (n *intended) rules(i *mesh.Intention, title, from string) (rules []authz.Rule, problem string) {
	action, ok := actions[i.Action]
	switch {
	case len(i.Unknown) > 0:
		return nil, "it has the unknown field " + strings.Join(i.Unknown, ", ")
	case i.SourceType != "" && i.SourceType != "consul":
		return nil, fmt.Sprintf("SourceType is %q", i.SourceType)
	case len(i.Permissions) == 0 && !ok:
		return nil, fmt.Sprintf("Action is %q", i.Action)
	case len(i.Permissions) > 0 && i.Action != "":
		return nil, "it has both an Action and Permissions"
	case !n.http && i.JWT != nil:
		return nil, "JWT is required, and a connection that is not HTTP carries none"
	case len(i.Permissions) > 0 && !n.http:
		// As Consul has it: a connection meets no permission.
		return []authz.Rule{{Name: title + ", has permissions, which only HTTP can have", Action: authz.Deny, From: []string{from}}}, ""
	}
	if i.JWT != nil {
		r := authz.Rule{Name: title + ", JWT", Action: authz.Require, From: []string{from}}
		if r.JWT, problem = n.requirement(i.JWT); problem != "" {
			return nil, "JWT." + problem
		}
		rules = append(rules, r)
	}
	if len(i.Permissions) == 0 {
		return append(rules, authz.Rule{Name: title, Action: action, From: []string{from}}), ""
	}
	for k := range i.Permissions {
		p, r := &i.Permissions[k], authz.Rule{Name: fmt.Sprintf("%s, permission %d", title, k+1), From: []string{from}}
		if problem := n.permission(p, &r); problem != "" {
			return nil, fmt.Sprintf("Permissions[%d].%s", k, problem)
		}
		if p.JWT != nil {
			// What the permission takes goes to no later one, with or without a token.
			asks := r
			asks.Name, asks.Action = r.Name+", JWT", authz.Require
			if asks.JWT, problem = n.requirement(p.JWT); problem != "" {
				return nil, fmt.Sprintf("Permissions[%d].JWT.%s", k, problem)
			}
			rules = append(rules, asks)
		}
		rules = append(rules, r)
	}
	return append(rules, authz.Rule{Name: title + ", no permission", Action: n.fallback, From: []string{from}}), ""
}

var actions = map[string]authz.Action{"allow": authz.Allow, "deny": authz.Deny}

// permission adds what p says to r.
func (n *intended) permission(p *mesh.Permission, r *authz.Rule) (problem string) {
	var ok bool
	if r.Action, ok = actions[p.Action]; !ok {
		return fmt.Sprintf("Action is %q", p.Action)
	}
	h := p.HTTP
	if h == nil {
		return ""
	}
	paths := 0
	for _, path := range [...]string{h.PathExact, h.PathPrefix, h.PathRegex} {
		if path != "" {
			paths++
		}
	}
	switch {
	case paths > 1:
		return "HTTP has several conditions on the path"
	case strings.Contains(h.PathRegex, "%"):
		return "HTTP.PathRegex has a %, and paths are compared with percent-encoding undone"
	}
	if h.PathExact != "" {
		r.Paths = []string{strings.ReplaceAll(h.PathExact, "*", "%2A")}
	}
	if k := slices.IndexFunc(h.Methods, func(m string) bool {
		return strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") != ""
	}); k >= 0 {
		return fmt.Sprintf("HTTP.Methods has %q", h.Methods[k])
	}
	r.PathPrefix, r.PathRegex, r.Methods = h.PathPrefix, h.PathRegex, slices.Clone(h.Methods)
	for _, m := range h.Header {
		c := authz.Header{
			Name: m.Name, Exact: m.Exact, Prefix: m.Prefix, Suffix: m.Suffix, Contains: m.Contains, Regex: m.Regex, Present: m.Present,
			Invert: m.Invert, IgnoreCase: m.IgnoreCase && m.Regex == "", // Envoy heeds it for no expression
		}
		if strings.EqualFold(c.Name, ":authority") {
			c.Name = "host"
		}
		r.Headers = append(r.Headers, c)
	}
	return ""
}

// intentions puts the intentions to use. Whom to let in is not for a file to say.
func (t *translation) intentions() {
	if !t.Config.Service.Called() {
		return
	}
	protocol := cmp.Or(t.Config.Inbound.Protocol, t.Config.Service.Protocol)
	if protocol == config.ProtocolAuto {
		protocol = config.ProtocolHTTP // rules for requests refuse connections by themselves
	}
	cfg, findings := Intentions(t.s.Intentions, t.s.DefaultAllow, t.s.Providers, t.s.TrustDomain, string(protocol))
	t.findings = append(t.findings, findings...)
	t.permissive(&cfg)
	t.compareSlashes(&cfg)
	must(t, &t.Config.Authorization, cfg, "authorization", "Consul intentions")
	t.Came("authorization.order", "Consul intentions")
	if cfg.EncodedSlashes != authz.RefuseSlashes {
		t.Came("authorization.encoded_slashes", "Consul mesh HTTP.Incoming.RequestNormalization")
	}
	t.Came("authorization.default", "Consul's default policy for intentions")
	for i := range cfg.Rules {
		r := &cfg.Rules[i]
		for key, said := range map[string]bool{
			"name": true, "action": true, "from": true, "methods": len(r.Methods) > 0, "paths": len(r.Paths) > 0,
			"path_prefix": r.PathPrefix != "", "path_regex": r.PathRegex != "", "jwt": r.JWT != nil,
		} {
			if said {
				t.Came(fmt.Sprintf("authorization.rules[%d].%s", i, key), "Consul "+r.Name)
			}
		}
	}
}
