package consul

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// The keys of service and node metadata that mean something to the proxy.
const (
	metaRegion   = "region"
	metaZone     = "zone"
	metaPriority = "priority"
	metaDraining = "draining"
	// The names that Kubernetes gives to a node's place.
	metaTopologyRegion = "topology.kubernetes.io/region"
	metaTopologyZone   = "topology.kubernetes.io/zone"
)

// maxPlace bounds the name of a region or zone, maxNote what is told of a drain.
const (
	maxPlace = 128
	maxNote  = 256
)

// placeOf returns where an instance runs: by the locality of the service, by its
// metadata, by the locality of its node, or by the node's metadata.
func placeOf(e *api.ServiceEntry) (region, zone string) {
	take := func(r, z string) {
		region, zone = cmp.Or(region, bounded(r, maxPlace)), cmp.Or(zone, bounded(z, maxPlace))
	}
	if l := e.Service.Locality; l != nil {
		take(l.Region, l.Zone)
	}
	take(e.Service.Meta[metaRegion], e.Service.Meta[metaZone])
	if e.Node != nil {
		if l := e.Node.Locality; l != nil {
			take(l.Region, l.Zone)
		}
		m := e.Node.Meta
		take(m[metaRegion], m[metaZone])
		take(m[metaTopologyRegion], m[metaTopologyZone])
	}
	return region, zone
}

// priorityOf returns the level that an instance's metadata gives it.
func priorityOf(e *api.ServiceEntry) uint16 {
	n, err := strconv.ParseUint(e.Service.Meta[metaPriority], 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// drainOf returns why an instance is to get nothing new: it or its node is in
// maintenance, or its metadata say so.
func drainOf(e *api.ServiceEntry) string {
	for _, c := range e.Checks {
		what := ""
		switch {
		case c == nil:
		case c.CheckID == api.NodeMaint:
			what = "node in maintenance"
		case strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix):
			what = "in maintenance"
		}
		if what != "" {
			if c.Notes != "" {
				what += ": " + bounded(c.Notes, maxNote)
			}
			return what
		}
	}
	if v := e.Service.Meta[metaDraining]; v != "" {
		if on, err := strconv.ParseBool(v); err != nil || on {
			return "its metadata say draining: " + bounded(v, maxNote)
		}
	}
	return ""
}

func bounded(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}
