package upstream

// Seen is what the last pick of an exchange looked at.
type Seen struct {
	Algorithm     string
	Usable, Total int // endpoints of the cluster
	// Panicking: so few were available that others were used, too.
	Panicking bool
	// Compared are the best candidates, none where nothing was compared.
	Compared [2]struct {
		Endpoint *Endpoint
		Score    float64 // the lower one wins: nanoseconds, or requests in flight, by weight
	}
	Count int // of Compared
}

// Panicking reports whether at the last Pick so few were available that others
// were used, too.
func (t *Tried) Panicking() bool { return t.set != nil && t.set.panicking }

// Seen returns what the last Pick looked at.
func (t *Tried) Seen() (v Seen) {
	s := t.set
	if s == nil {
		return v
	}
	v.Algorithm, v.Usable, v.Total, v.Panicking = s.name, s.picker.Len(), s.total, s.panicking
	if t.source != 0 && t.source != noSource {
		v.Algorithm = s.abroad
	}
	if t.held {
		v.Algorithm = "session affinity"
	}
	if t.seen.Compared == 0 {
		return v
	}
	v.Count = len(v.Compared)
	for i := range v.Compared {
		c := &v.Compared[i]
		c.Endpoint = s.endpoints[s.picker.Member(t.seen.Position[i]).Index]
		c.Score = t.seen.Cost[i] / t.seen.Weight[i]
	}
	return v
}
