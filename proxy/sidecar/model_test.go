package sidecar

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery/consul/mesh"
	"github.com/outrigger-mesh/outrigger/proxy/compile"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	clusters "github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/proxy/wire"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// asked is a request as the model sees it.
type asked struct {
	method, path, query string
	fields              [][2]string
}

func (q asked) head() []byte {
	target := q.path
	if q.query != "" {
		target += "?" + q.query
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: api\r\n", q.method, target)
	for _, f := range q.fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
	}
	return []byte(b.String() + "\r\n")
}

// way is where a request goes, and how: by target the share of such requests.
type way struct {
	none    bool // 404
	shares  map[string]float64
	timeout time.Duration // 0 none
	idle    time.Duration
}

func (w way) String() string {
	var b strings.Builder
	if w.none {
		return "nowhere"
	}
	for _, name := range slices.Sorted(maps.Keys(w.shares)) {
		fmt.Fprintf(&b, "%s %.2f%% ", name, 100*w.shares[name])
	}
	return fmt.Sprintf("%swithin %s, %s", b.String(), w.timeout, w.idle)
}

func (w way) like(o way) bool {
	if w.none || o.none {
		return w.none == o.none
	}
	if w.timeout != o.timeout || w.idle != o.idle {
		return false
	}
	for _, shares := range []map[string]float64{w.shares, o.shares} { // rounding may leave one out
		for name := range shares {
			if math.Abs(o.shares[name]-w.shares[name]) > 0.00016 {
				return false
			}
		}
	}
	return true
}

// walk follows a chain literally, as Consul's documentation describes it.
func walk(c *mesh.Chain, own *mesh.Registration, q asked) way {
	w := way{shares: map[string]float64{}, timeout: 15 * time.Second, idle: 5 * time.Minute}
	node := c.StartNode
	switch n := c.Nodes[node]; n.Type {
	case "resolver":
		if d := time.Duration(n.Resolver.RequestTimeout); d != 0 {
			w.timeout = max(d, 0)
		}
	case "router":
		at := slices.IndexFunc(n.Routes, func(r *mesh.ChainRoute) bool { return takes(r.Definition, q) })
		if at < 0 {
			return way{none: true}
		}
		node = n.Routes[at].NextNode
		if d := n.Routes[at].Definition; d != nil && d.Destination != nil {
			if t := time.Duration(d.Destination.RequestTimeout); t != 0 {
				w.timeout = max(t, 0)
			}
			if t := time.Duration(d.Destination.IdleTimeout); t != 0 {
				w.idle = max(t, 0)
			}
		}
	}
	spread(c, own, node, 1, w.shares)
	return w
}

func spread(c *mesh.Chain, own *mesh.Registration, node string, part float64, into map[string]float64) {
	n := c.Nodes[node]
	if n.Type == "resolver" {
		into[mesh.TargetName(c.Targets[n.Resolver.Target], own)] += part
		return
	}
	for _, s := range n.Splits {
		spread(c, own, s.NextNode, part*s.Weight/100, into)
	}
}

func takes(d *mesh.RouteDefinition, q asked) bool {
	if d == nil || d.Match == nil || d.Match.HTTP == nil {
		return true
	}
	m := d.Match.HTTP
	path, exact, prefix, regex := q.path, m.PathExact, m.PathPrefix, m.PathRegex
	if m.CaseInsensitive {
		path, exact, prefix = strings.ToLower(path), strings.ToLower(exact), strings.ToLower(prefix)
		if regex != "" {
			path, regex = q.path, "(?i)"+regex
		}
	}
	switch {
	case exact != "" && path != exact, prefix != "" && !strings.HasPrefix(path, prefix), regex != "" && !full(regex, path):
		return false
	case len(m.Methods) > 0 && !slices.Contains(m.Methods, q.method):
		return false
	}
	for _, h := range m.Header {
		var values []string
		for _, f := range q.fields {
			if strings.EqualFold(f[0], h.Name) {
				values = append(values, f[1])
			}
		}
		v := strings.Join(values, ",")
		var met bool
		switch {
		case h.Exact != "":
			met = v == h.Exact
		case h.Prefix != "":
			met = strings.HasPrefix(v, h.Prefix)
		case h.Suffix != "":
			met = strings.HasSuffix(v, h.Suffix)
		case h.Regex != "":
			met = full(h.Regex, v)
		default:
			if (len(values) > 0) == h.Invert {
				return false
			}
			continue
		}
		if len(values) == 0 || met == h.Invert { // Envoy: a value that is not there meets no condition on it
			return false
		}
	}
	for _, p := range m.QueryParam {
		met := false
		for pair := range strings.SplitSeq(q.query, "&") {
			name, value, _ := strings.Cut(pair, "=")
			met = met || q.query != "" && name == p.Name && (p.Present || p.Exact != "" && value == p.Exact || p.Regex != "" && full(p.Regex, value))
		}
		if !met {
			return false
		}
	}
	return true
}

func full(re, s string) bool { return regexp.MustCompile("^(?:" + re + ")$").MatchString(s) }

const plaintextBase = `
identity: {workload_api: "unix:///run/agent.sock"}
discovery: {file: {path: catalog.yaml}}
policies: {"*": {transport: plaintext}}
`

// served is a compiled configuration.
type served struct {
	plan     *plan.Plan
	registry *clusters.Registry
	findings []Finding
	loaded   *config.Loaded
}

func serve(t testing.TB, s *mesh.Snapshot) served {
	t.Helper()
	base, err := config.ParseBase("base.yaml", []byte(plaintextBase))
	if err != nil {
		t.Fatal(err)
	}
	loaded, findings, err := Translate(base, s, nil)
	if err != nil {
		t.Fatalf("%v\n%v", err, findings)
	}
	loaded.Config.Service.Port = 0 // nobody calls
	draft, err := compile.Compile(compile.Input{Loaded: loaded, Version: 1})
	if err != nil {
		t.Fatalf("%v\n%v", err, findings)
	}
	m, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := clusters.NewRegistry(t.Context(), wire.NewSweeper(time.Now()), m, slog.New(slog.DiscardHandler))
	return served{draft.Build(r, m), r, findings, loaded}
}

func (s served) listener(t testing.TB, name string) *plan.Listener {
	t.Helper()
	for _, l := range s.plan.Listeners {
		if l.Name == "outbound:"+name {
			return l
		}
	}
	t.Fatalf("no listener for %s: %v", name, s.findings)
	return nil
}

// goes is where the plan sends a request.
func goes(t testing.TB, l *plan.Listener, q asked) (way, *plan.Route) {
	t.Helper()
	raw := q.head()
	var req http1.Request
	if _, err := req.Parse(raw, &http1.Limits{HeadBytes: 1 << 16, Fields: 100}); err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	r := l.Find(&req, raw)
	if r.Refuse == outcome.NoRoute {
		return way{none: true}, r
	}
	w := way{shares: map[string]float64{}}
	one := r
	if len(r.Split) == 0 {
		w.shares[r.Cluster.Name()] = 1
	}
	below := uint32(0)
	for _, s := range r.Split {
		w.shares[s.Route.Cluster.Name()] += float64(s.Below-below) / plan.Parts
		below, one = s.Below, s.Route
	}
	p := one.Policy
	if p == nil {
		p = one.Cluster.Policy()
	}
	w.timeout, w.idle = p.Timeout, p.StreamIdle
	return w, r
}

// of is a snapshot with one upstream api and its chain.
func of(c *mesh.Chain, trust string) *mesh.Snapshot {
	s := &mesh.Snapshot{TrustDomain: trust, Datacenter: "dc1", DefaultAllow: true, Chains: map[string]*mesh.Chain{"api": c}}
	s.Proxy.Kind, s.Proxy.ID, s.Proxy.Datacenter, s.Proxy.Port = "connect-proxy", "web-sidecar-proxy", "dc1", 21000
	s.Proxy.Proxy.DestinationServiceName, s.Proxy.Proxy.LocalServicePort = "web", 8080
	s.Proxy.Proxy.Upstreams = []mesh.Upstream{{DestinationName: "api", LocalBindPort: 15001}}
	return s
}

// pieces makes random chains.
type pieces struct {
	*rand.Rand
	c *mesh.Chain
	n int
}

func pick[T any](p *pieces, list ...T) T { return list[p.IntN(len(list))] }

func (p *pieces) resolver() string {
	subset := pick(p, "", "v1", "v2")
	service := pick(p, "api", "users", "cart")
	dc := pick(p, "dc1", "dc1", "dc2")
	id := service + ".default.default." + dc
	if subset != "" {
		id = subset + "." + id
	}
	p.c.Targets[id] = &mesh.Target{ID: id, Service: service, ServiceSubset: subset, Namespace: "default", Partition: "default", Datacenter: dc, ConnectTimeout: mesh.Duration(5 * time.Second)}
	node := "resolver:" + id
	if p.c.Nodes[node] == nil {
		p.c.Nodes[node] = &mesh.Node{Type: "resolver", Name: id, Resolver: &mesh.Resolver{
			Target: id, RequestTimeout: mesh.Duration(pick(p, 0, 0, time.Second, -time.Second)),
		}}
	}
	return node
}

func (p *pieces) splitter(depth int) string {
	p.n++
	node := fmt.Sprintf("splitter:s%d.default.default", p.n)
	n := &mesh.Node{Type: "splitter", Name: node[len("splitter:"):]}
	left := 10_000
	for left > 0 {
		part := 1 + p.IntN(left)
		if len(n.Splits) == 3 {
			part = left
		}
		left -= part
		var next string
		if depth > 0 && p.IntN(3) == 0 {
			next = p.splitter(depth - 1)
		} else {
			next = p.resolver()
		}
		n.Splits = append(n.Splits, &mesh.ChainSplit{Weight: float64(part) / 100, NextNode: next})
	}
	p.c.Nodes[node] = n
	return node
}

func (p *pieces) next() string {
	if p.IntN(3) == 0 {
		return p.splitter(2)
	}
	return p.resolver()
}

var paths = []string{"/", "/a", "/A", "/a/b", "/ab", "/b", "/a/B/c"}

func (p *pieces) definition() *mesh.RouteDefinition {
	d := &mesh.RouteDefinition{Destination: &mesh.RouteDestination{
		RequestTimeout: mesh.Duration(pick(p, 0, 0, time.Second, -time.Second)), IdleTimeout: mesh.Duration(pick(p, 0, time.Minute, -1)),
		NumRetries: pick[uint32](p, 0, 0, 3, 30), RetryOn: pick(p, nil, []string{"5xx"}, []string{"retriable-4xx", "cancelled"}),
	}}
	if p.IntN(8) == 0 {
		return d
	}
	var v struct {
		Match *struct {
			HTTP *struct {
				PathExact, PathPrefix, PathRegex string
				CaseInsensitive                  bool
				Header                           []mesh.HeaderMatch
				QueryParam                       []mesh.QueryMatch
				Methods                          []string
			}
		}
	}
	v.Match = new(struct {
		HTTP *struct {
			PathExact, PathPrefix, PathRegex string
			CaseInsensitive                  bool
			Header                           []mesh.HeaderMatch
			QueryParam                       []mesh.QueryMatch
			Methods                          []string
		}
	})
	v.Match.HTTP = new(struct {
		PathExact, PathPrefix, PathRegex string
		CaseInsensitive                  bool
		Header                           []mesh.HeaderMatch
		QueryParam                       []mesh.QueryMatch
		Methods                          []string
	})
	h := v.Match.HTTP
	switch p.IntN(4) {
	case 0:
		h.PathExact = pick(p, paths...)
	case 1:
		h.PathPrefix = pick(p, paths...)
	case 2:
		h.PathRegex = pick(p, "/a.*", "/[ab]", ".*/B/.*", "/a|/b")
	}
	h.CaseInsensitive = p.IntN(3) == 0
	if p.IntN(3) == 0 {
		h.Methods = pick(p, []string{"GET"}, []string{"POST", "PUT"})
	}
	for p.IntN(3) == 0 {
		m := mesh.HeaderMatch{Name: pick(p, "x-a", "X-B"), Invert: p.IntN(3) == 0}
		switch p.IntN(5) {
		case 0:
			m.Exact = pick(p, "1", "12")
		case 1:
			m.Prefix = "1"
		case 2:
			m.Suffix = "2"
		case 3:
			m.Regex = "[0-9]+"
		default:
			m.Present = true
		}
		h.Header = append(h.Header, m)
	}
	for p.IntN(4) == 0 {
		m := mesh.QueryMatch{Name: pick(p, "q", "r")}
		switch p.IntN(3) {
		case 0:
			m.Exact = pick(p, "1", "2")
		case 1:
			m.Regex = "[0-9]?"
		default:
			m.Present = true
		}
		h.QueryParam = append(h.QueryParam, m)
	}
	d.Match = v.Match
	return d
}

func randomChain(r *rand.Rand) *mesh.Chain {
	p := &pieces{Rand: r, c: &mesh.Chain{ServiceName: "api", Protocol: "http", Datacenter: "dc1", Nodes: map[string]*mesh.Node{}, Targets: map[string]*mesh.Target{}}}
	switch p.IntN(4) {
	case 0:
		p.c.StartNode = p.resolver()
	case 1:
		p.c.StartNode = p.splitter(3)
	default:
		p.c.StartNode = "router:api.default.default"
		n := &mesh.Node{Type: "router", Name: "api.default.default"}
		for range 1 + p.IntN(6) {
			n.Routes = append(n.Routes, &mesh.ChainRoute{Definition: p.definition(), NextNode: p.next()})
		}
		p.c.Nodes[p.c.StartNode] = n
	}
	for _, n := range p.c.Nodes {
		if n.Resolver == nil || p.IntN(3) > 0 {
			continue
		}
		n.Resolver.Failover = &struct {
			Targets []string
			Policy  *struct {
				Mode    string
				Regions []string
			}
		}{}
		for _, id := range slices.Sorted(maps.Keys(p.c.Targets)) {
			if id != n.Resolver.Target && p.IntN(3) == 0 {
				n.Resolver.Failover.Targets = append(n.Resolver.Failover.Targets, id)
			}
		}
	}
	return p.c
}

func (p *pieces) request() asked {
	q := asked{method: pick(p, "GET", "POST", "DELETE"), path: pick(p, paths...), query: pick(p, "", "", "q=1", "r=2&q", "q=x&r=1", "q=2")}
	for _, name := range []string{"X-A", "x-b"} {
		if p.IntN(2) == 0 {
			q.fields = append(q.fields, [2]string{name, pick(p, "1", "12", "2", "x")})
		}
	}
	return q
}

// TestChainModel: for random chains every request goes where a literal walk of the
// chain says, as often, within the same times, and targets fail over to the same.
func TestChainModel(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := randomChain(r)
		snap := of(c, "td")
		s := serve(t, snap)
		l := s.listener(t, "api")
		p := &pieces{Rand: r}
		for range 60 {
			q := p.request()
			want := walk(c, &snap.Proxy, q)
			if got, route := goes(t, l, q); !got.like(want) {
				t.Fatalf("seed %d: %s goes by %s to %s; the chain says %s\n%v", seed, q.head(), route.Name, got, want, s.findings)
			}
		}
		for _, n := range c.Nodes {
			if n.Resolver == nil {
				continue
			}
			var want []string
			if f := n.Resolver.Failover; f != nil {
				for _, id := range f.Targets {
					if want = append(want, mesh.TargetName(c.Targets[id], &snap.Proxy)); len(want) == config.MaxFailover {
						break
					}
				}
			}
			name := mesh.TargetName(c.Targets[n.Resolver.Target], &snap.Proxy)
			if p, ok := s.loaded.Config.Policies[name]; ok && p.Failover != nil && !slices.Equal(p.Failover, want) {
				t.Fatalf("seed %d: %s fails over to %v, want %v", seed, name, p.Failover, want)
			} else if !ok && slices.ContainsFunc(s.plan.Clusters, func(c *clusters.Cluster) bool { return c.Name() == name }) {
				t.Fatalf("seed %d: %s has no policy", seed, name)
			}
		}
	}
}

// line is the request line that an endpoint would get.
func line(t testing.TB, l *plan.Listener, q asked) string {
	t.Helper()
	raw := q.head()
	var req http1.Request
	if _, err := req.Parse(raw, &http1.Limits{HeadBytes: 1 << 16, Fields: 100}); err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(l.Find(&req, raw).AppendHead(nil, &req, raw)), "\r\n")
	return head
}
