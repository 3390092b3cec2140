package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"reflect"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/discovery/consul"
)

// absentPause is the time between two looks for a registration that is not there.
const absentPause = time.Second

// registrationName is the name of the registration in statuses.
const registrationName = "sidecar/registration"

// followRegistration follows the sidecar's own registration until ctx ends.
func (f *Follower) followRegistration(ctx context.Context) {
	backoff := discovery.Backoff{Base: 200 * time.Millisecond, Max: 10 * time.Second}
	for ctx.Err() == nil {
		id, pause := f.me.ProxyID, absentPause
		early := f.client.TokenChanged()
		err := errAbsent
		if id == "" && f.me.Node == "" {
			id, err = f.findSidecar(ctx)
			if err != nil && !errors.Is(err, errAbsent) {
				signal(f.trouble)
				pause = max(absentPause/5, backoff.Next(rand.Uint64()))
			}
		}
		if id != "" || f.me.Node != "" {
			f.followID(ctx, id)
			err = errAbsent
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAbsent) {
			backoff.Reset()
			err = f.absent()
		}
		f.track.Fail(registrationName, err)
		discovery.Sleep(ctx, pause, early)
	}
}

// findSidecar returns the ID of the sidecar that the agent has for the service.
func (f *Follower) findSidecar(ctx context.Context) (string, error) {
	q := f.registrationQuery("")
	r, err := f.client.Ask(ctx, q)
	if err != nil {
		return "", err
	}
	reg, err := f.readRegistration(r, "")
	if err != nil {
		return "", err
	}
	return reg.ID, nil
}

// followID follows the registration with an ID, or on a node without an agent
// that beside the service, until it is gone or ctx ends.
func (f *Follower) followID(ctx context.Context, id string) {
	walk, q, gone := f.client.Walk(), f.registrationQuery(id), false
	for ctx.Err() == nil && !gone {
		pause, early := walk.Step(ctx, q, func(r consul.Reply) (int, error) {
			reg, err := f.readRegistration(r, id)
			if errors.Is(err, errAbsent) {
				gone = true
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			f.registered(reg)
			f.track.Confirm(registrationName, r.Index, len(reg.Proxy.Upstreams), "")
			return 0, nil
		}, func(err error) {
			f.track.Fail(registrationName, err)
			signal(f.trouble)
		})
		if pause > 0 && !gone {
			discovery.Sleep(ctx, pause, early)
		}
	}
}

// errAbsent says that there is no such registration.
var errAbsent = errors.New("not registered")

// absent words errAbsent for an operator.
func (f *Follower) absent() error {
	where := "with the agent at " + f.client.Where()
	if f.me.Node != "" {
		where = fmt.Sprintf("under node %q in the catalog", f.me.Node)
	}
	if f.me.ProxyID != "" {
		return fmt.Errorf("no sidecar with the ID %q is registered %s; waiting for it", f.me.ProxyID, where)
	}
	return fmt.Errorf("no sidecar for the service %q is registered %s; waiting for it", f.me.For, where)
}

// registrationQuery asks for the registration with an ID or, when that is
// empty, for those beside the service.
func (f *Follower) registrationQuery(id string) consul.Query {
	filter := fmt.Sprintf(`Kind == "connect-proxy" and Proxy.DestinationServiceID == %q`, f.me.For)
	q := consul.Query{Need: "service:read on the sidecar", Optional: true, Fresh: true}
	switch {
	case f.me.Node != "":
		if id != "" {
			filter = fmt.Sprintf("ID == %q", id)
		}
		q.Path = "/v1/catalog/node-services/" + url.PathEscape(f.me.Node)
		q.Need += " and node:read"
		q.Params = map[string]string{"merge-central-config": "1", "filter": filter, "dc": f.cfg.Datacenter}
	case id != "":
		q.Path, q.ByHash = "/v1/agent/service/"+url.PathEscape(id), true
	default:
		q.Path = "/v1/agent/services"
		q.Params = map[string]string{"filter": filter}
	}
	return q
}

// readRegistration decodes the answer to registrationQuery.
func (f *Follower) readRegistration(r consul.Reply, id string) (*Registration, error) {
	if r.Missing {
		return nil, errAbsent
	}
	var found []*Registration
	datacenter, node := "", ""
	switch {
	case f.me.Node != "":
		var answer struct {
			Node     *struct{ Node, Datacenter string }
			Services []*Registration
		}
		if err := json.Unmarshal(r.Body, &answer); err != nil {
			return nil, err
		}
		if answer.Node != nil {
			node, datacenter = answer.Node.Node, answer.Node.Datacenter
		}
		found = answer.Services
	case id != "":
		reg := new(Registration)
		if err := json.Unmarshal(r.Body, reg); err != nil {
			return nil, err
		}
		found = append(found, reg)
	default:
		var answer map[string]*Registration
		if err := json.Unmarshal(r.Body, &answer); err != nil {
			return nil, err
		}
		for _, reg := range answer {
			found = append(found, reg)
		}
	}
	switch {
	case len(found) == 0 || found[0] == nil:
		return nil, errAbsent
	case len(found) > 1:
		return nil, fmt.Errorf("%d sidecars are registered for the service %q; name one in discovery.consul.sidecar.proxy_id", len(found), f.me.For)
	}
	reg := found[0]
	switch {
	case reg.Kind == "connect-proxy" || reg.Connect.Native:
	case reg.Kind == "":
		return nil, fmt.Errorf("%q is a service, not a sidecar; register a sidecar beside it (connect { sidecar_service {} }), and give the service's ID to --consul-sidecar-for", reg.ID)
	default:
		return nil, fmt.Errorf("%q is of kind %s; this proxy is a sidecar and runs connect-proxy only", reg.ID, reg.Kind)
	}
	if reg.OwnService() == "" {
		return nil, fmt.Errorf("the registration of %q does not say which service the sidecar stands beside", reg.ID)
	}
	if reg.Datacenter == "" {
		reg.Datacenter = datacenter
	}
	if reg.Node == "" {
		reg.Node = node
	}
	return reg, nil
}

// OwnService is the name of the service that the sidecar stands beside.
func (r *Registration) OwnService() string {
	if r.Kind == "connect-proxy" {
		return r.Proxy.DestinationServiceName
	}
	return r.Service
}

// registered takes over a registration.
func (f *Follower) registered(reg *Registration) {
	f.mu.Lock()
	old := f.state.reg
	f.mu.Unlock()
	if old != nil && reflect.DeepEqual(old, reg) {
		return
	}
	if old == nil {
		f.log.Info("sidecar found in consul", "id", reg.ID, "service", reg.OwnService(), "upstreams", len(reg.Proxy.Upstreams))
	}
	f.change(func(s *state) { s.reg = reg })
	f.replan()
}
