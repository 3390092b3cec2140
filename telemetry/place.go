package telemetry

// Place is how far away an endpoint is, in the order and with the words of the
// balancer.
type Place uint8

// The places.
const (
	PlaceZone      Place = iota // the proxy's own
	PlaceRegion                 // another zone of it
	PlaceElsewhere              // or not known

	placeCount
)

var placeNames = [placeCount]string{"zone", "region", "elsewhere"}

// String returns the label value.
func (p Place) String() string { return nameOf(placeNames[:], int(p)) }

// Placed counts an attempt by where its endpoint is, and whether that is of a
// later priority.
func (c *Cluster) Placed(p Place, later bool) {
	if p < placeCount {
		c.count().places[p].Inc()
	}
	if later {
		c.count().failovers.Inc()
	}
}

// FailedOver counts an attempt that went to an endpoint of another service, as the
// cluster had none that was available, or an earlier attempt had failed with it.
func (c *Cluster) FailedOver() { c.count().failovers.Inc() }

func (c *Cluster) collectPlaces(s *scrape) {
	counts := c.counted()
	for i := range counts.places {
		s.cell(mPlaces, uint16(i), counts.places[i].Value(), Place(i).String(), "")
	}
	s.counter(mFailovers, counts.failovers.Value())
}
