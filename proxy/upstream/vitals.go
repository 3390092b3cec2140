package upstream

import "github.com/outrigger-mesh/outrigger/telemetry"

// Vitals are a cluster's sums and state, as those look at them who make faults
// on purpose.
type Vitals struct {
	telemetry.FaultTotals

	Cluster   string
	Direction telemetry.Direction
	Ejections uint64 // of the endpoints that are there
	Panicking bool
}

// Vitals returns those of all clusters, in the order of their names.
func (r *Registry) Vitals() []Vitals {
	all := r.all()
	list := make([]Vitals, len(all))
	for i, c := range all {
		v := &list[i]
		v.Cluster, v.Direction, v.FaultTotals = c.name, c.direction, c.metrics.FaultTotals()
		if s := c.set.Load(); s != nil {
			v.Panicking = s.panicking
		}
		for _, e := range c.list() {
			v.Ejections += e.metrics.Ejections.Value()
		}
	}
	return list
}
