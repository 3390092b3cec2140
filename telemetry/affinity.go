package telemetry

// AffinityResult is what became of a client's affinity to an endpoint.
type AffinityResult uint8

// The results.
const (
	AffinityKept  AffinityResult = iota // the cookie led to its endpoint
	AffinityLost                        // the cookie names none that may be used
	AffinityGiven                       // the client was given a cookie

	affinityCount
)

var affinityNames = [affinityCount]string{"kept", "lost", "given"}

// String returns the label value.
func (r AffinityResult) String() string { return nameOf(affinityNames[:], int(r)) }
