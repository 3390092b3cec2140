package file

import (
	"math"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// describe fills in what d is beside where it listens.
func (p *endpoint) describe(d *discovery.Endpoint, at []any, m *mistakes) {
	const longest = 128
	d.Region, d.Zone = p.Region, p.Zone
	for key, name := range map[string]string{"region": p.Region, "zone": p.Zone} {
		if len(name) > longest {
			m.add(append(at, key), "is longer than %d bytes", longest)
		}
	}
	if p.Priority != nil {
		if *p.Priority < 0 || *p.Priority > math.MaxUint16 {
			m.add(append(at, "priority"), "%d is out of range; use 0 (used first) to %d", *p.Priority, math.MaxUint16)
		} else {
			d.Priority = uint16(*p.Priority)
		}
	}
	if p.Metadata != nil {
		if d.Meta != nil {
			m.add(append(at, "metadata"), "is given beside meta, which means the same; keep one")
		}
		d.Meta = p.Metadata
	}
	switch p.State {
	case "", "active":
	case "draining":
		d.Draining = "the catalog says draining"
	default:
		m.add(append(at, "state"), "unknown state %q; use active or draining", p.State)
	}
}
