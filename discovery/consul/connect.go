package consul

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// maxMeshWeight is the greatest weight of an instance in the mesh; Consul gives
// Envoy no greater one.
const maxMeshWeight = 128

// Reading says how the instances of a service in the mesh are read.
type Reading struct {
	// WAN takes the addresses that are meant for other datacenters.
	WAN bool
	// OnlyPassing makes instances with a warning critical.
	OnlyPassing bool
}

// Instances are those of a service in the mesh.
type Instances struct {
	Endpoints []discovery.Endpoint
	// Warning tells of instances that cannot be used.
	Warning string
	// PeerSNI and PeerIdentities are what the gateway of a peer is asked for
	// and may present, PeerProtocol what is spoken there; empty for a service
	// of the own cluster.
	PeerSNI        string
	PeerIdentities []string
	PeerProtocol   string
	// Places are those of the instances, each once; a prepared query may find
	// several services.
	Places []Place
	// Names are those of the services as which the instances are registered,
	// each once: in a mesh mostly that of their sidecars.
	Names []string
}

// Place is whose instance it is.
type Place struct{ Service, Namespace, Partition, Datacenter string }

// connectEntry is an instance with what Consul's own client leaves out.
type connectEntry struct {
	Node    *api.Node
	Service *connectService
	Checks  api.HealthChecks
}

type connectService struct {
	api.AgentService
	Connect *struct {
		Native   bool
		PeerMeta *struct {
			SNI      []string
			SpiffeID []string
			Protocol string
		}
	}
}

// DecodeInstances reads the answer of /v1/health/connect and of
// /v1/health/service.
func DecodeInstances(body []byte, how Reading) (Instances, error) {
	var entries []*connectEntry
	if err := json.Unmarshal(body, &entries); err != nil {
		return Instances{}, err
	}
	if entries == nil {
		return Instances{}, errors.New("the answer is null instead of a list")
	}
	return instances(entries, how), nil
}

// DecodeExecuted reads the answer of an executed prepared query.
func DecodeExecuted(body []byte, how Reading) (Instances, error) {
	var answer struct {
		Nodes      []*connectEntry
		Datacenter string
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Instances{}, err
	}
	for _, e := range answer.Nodes {
		if e != nil && e.Node != nil && e.Node.Datacenter == "" {
			e.Node.Datacenter = answer.Datacenter
		}
	}
	return instances(answer.Nodes, how), nil
}

func instances(entries []*connectEntry, how Reading) Instances {
	in := Instances{Endpoints: make([]discovery.Endpoint, 0, len(entries))}
	left, example := 0, ""
	places := map[Place]bool{}
	for _, e := range entries {
		if e == nil || e.Service == nil {
			left, example = left+1, "an entry without a service"
			continue
		}
		if !slices.Contains(in.Names, e.Service.Service) {
			in.Names = append(in.Names, e.Service.Service)
		}
		if c := e.Service.Connect; c != nil && c.PeerMeta != nil && in.PeerIdentities == nil {
			in.PeerIdentities, in.PeerProtocol = c.PeerMeta.SpiffeID, c.PeerMeta.Protocol
			if len(c.PeerMeta.SNI) > 0 {
				in.PeerSNI = c.PeerMeta.SNI[0]
			}
		}
		ep, err := meshEndpoint(e, how)
		if err != nil {
			left, example = left+1, fmt.Sprintf("%q %v", e.Service.ID, err)
			continue
		}
		in.Endpoints = append(in.Endpoints, ep)
		p := Place{e.Service.Service, e.Service.Namespace, e.Service.Partition, ep.Datacenter}
		if x := e.Service.Proxy; x != nil && x.DestinationServiceName != "" {
			p.Service = x.DestinationServiceName
		}
		if !places[p] {
			places[p] = true
			in.Places = append(in.Places, p)
		}
	}
	if left > 0 {
		in.Warning = fmt.Sprintf("%d of %d instances are not used: %s", left, len(entries), example)
	}
	in.Endpoints = discovery.SortEndpoints(in.Endpoints)
	return in
}

// meshEndpoint is endpointOf by the rules that Consul has for Envoy: the
// addresses for other datacenters, health and weights.
func meshEndpoint(e *connectEntry, how Reading) (discovery.Endpoint, error) {
	entry := &api.ServiceEntry{Node: e.Node, Service: &e.Service.AgentService, Checks: e.Checks}
	if how.WAN {
		s := e.Service.AgentService
		if wan, ok := s.TaggedAddresses["wan"]; ok && wan.Address != "" {
			s.Address, s.Port = wan.Address, cmp.Or(wan.Port, s.Port)
		} else if s.Address == "" && e.Node != nil {
			s.Address = cmp.Or(e.Node.TaggedAddresses["wan"], e.Node.Address)
		}
		entry.Service = &s
	}
	ep, err := endpointOf(entry)
	if err != nil {
		return ep, err
	}
	w := e.Service.Weights
	weight := w.Passing
	if w.Passing == 0 && w.Warning == 0 {
		weight = 1 // none are given
	}
	ep.Health = discovery.Passing
	switch status(e.Checks) {
	case api.HealthPassing:
	case api.HealthWarning:
		ep.Health, weight = discovery.Warning, w.Warning
		if how.OnlyPassing {
			ep.Health = discovery.Critical
		}
	default:
		ep.Health = discovery.Critical
	}
	if weight < 1 {
		ep.Health, weight = discovery.Critical, 1
	}
	ep.Weight = uint32(min(weight, maxMeshWeight))
	return ep, nil
}
