package telemetry

// LoadResult is what became of a report of load by an endpoint.
type LoadResult uint8

// The results.
const (
	LoadTaken      LoadResult = iota // it counts, once the blackout is over
	LoadIncomplete                   // requests per second or utilization is missing
	LoadMalformed                    // it cannot be read
	LoadExpired                      // it was the endpoint's last, and has become too old

	loadResultCount
)

var loadNames = [loadResultCount]string{"ok", "incomplete", "malformed", "expired"}

// String returns the label value.
func (r LoadResult) String() string { return nameOf(loadNames[:], int(r)) }

// LoadReport counts a report of load.
func (c *Cluster) LoadReport(r LoadResult) {
	if r < loadResultCount {
		c.count().loads[r].Inc()
	}
}
