package mesh

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"sync"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// gates are the mesh gateways of the datacenters through which targets are
// reached, each followed while somebody uses it.
type gates struct {
	client *consul.Client

	mu  sync.Mutex
	all map[string]*gate // by datacenter, with "wan" behind it for the addresses for others
	wg  sync.WaitGroup
}

// gate is the mesh gateways of one datacenter.
type gate struct {
	cancel context.CancelFunc
	users  int

	mu      sync.Mutex
	parts   map[string][]discovery.Endpoint // by the name of the service
	names   int                             // how many there are
	listed  bool
	err     error
	changed chan struct{} // closed when something does
}

// use returns the gateways of a datacenter; release them by the function.
func (g *gates) use(datacenter string, wan bool) (*gate, func()) {
	key := datacenter
	if wan {
		key += " wan"
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.all[key]
	if one == nil {
		ctx, cancel := context.WithCancel(context.Background())
		one = &gate{cancel: cancel, parts: map[string][]discovery.Endpoint{}, changed: make(chan struct{})}
		g.all[key] = one
		g.wg.Go(func() { one.follow(ctx, g.client, datacenter, wan) })
	}
	one.users++
	return one, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if one.users--; one.users == 0 {
			one.cancel()
			delete(g.all, key)
		}
	}
}

// follow follows the gateways until ctx ends.
func (g *gate) follow(ctx context.Context, client *consul.Client, datacenter string, wan bool) {
	var each discovery.Each
	var wg sync.WaitGroup
	wg.Go(func() {
		each.Run(ctx, nil, func(ctx context.Context, name string) {
			step(ctx, client, consul.Query{
				Path: "/v1/health/service/" + url.PathEscape(name), Params: map[string]string{"dc": datacenter},
				Need: "service:read on " + name + " and node:read",
			}, func(r consul.Reply) (int, error) {
				in, err := consul.DecodeInstances(r.Body, consul.Reading{WAN: wan})
				if err != nil {
					return 0, err
				}
				g.set(func() { g.parts[name], g.err = in.Endpoints, nil })
				return len(in.Endpoints), nil
			}, func(err error) { g.set(func() { g.err = err }) })
		})
	})
	step(ctx, client, consul.Query{
		Path: "/v1/catalog/services", Need: "service:read on the mesh gateways",
		Params: map[string]string{"dc": datacenter, "filter": `ServiceKind == "mesh-gateway"`},
	}, func(r consul.Reply) (int, error) {
		var names map[string][]string
		if err := json.Unmarshal(r.Body, &names); err != nil {
			return 0, err
		}
		g.set(func() {
			g.names, g.listed, g.err = len(names), true, nil
			for name := range g.parts {
				if _, ok := names[name]; !ok {
					delete(g.parts, name)
				}
			}
		})
		each.Set(slices.Sorted(maps.Keys(names)))
		return len(names), nil
	}, func(err error) { g.set(func() { g.err = err }) })
	wg.Wait()
}

func (g *gate) set(what func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	what()
	close(g.changed)
	g.changed = make(chan struct{})
}

// endpoints returns the gateways, whether all are known, what is closed when that
// changes, and why not all are known.
func (g *gate) endpoints() ([]discovery.Endpoint, bool, <-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []discovery.Endpoint
	for _, part := range g.parts {
		all = append(all, part...)
	}
	return discovery.SortEndpoints(all), g.listed && len(g.parts) >= g.names, g.changed, g.err
}

// step asks a query again and again until ctx ends.
func step(ctx context.Context, client *consul.Client, q consul.Query, take func(consul.Reply) (int, error), fail func(error)) {
	walk := client.Walk()
	for ctx.Err() == nil {
		pause, early := walk.Step(ctx, q, take, fail)
		if pause > 0 {
			discovery.Sleep(ctx, pause, early)
		}
	}
}
