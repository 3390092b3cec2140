package hand

// Standing is what the orders make of one endpoint.
type Standing uint8

// The standings.
const (
	// Free: no order concerns it.
	Free Standing = iota
	// Ejected: it takes no traffic.
	Ejected
	// Pinned: it takes the traffic, with the others that are pinned.
	Pinned
	// PassedOver: it takes no traffic, as others are pinned.
	PassedOver
	// Needed: it is ejected and takes traffic nonetheless, as every endpoint of
	// the cluster is.
	Needed
)

// String returns the word used in the admin API.
func (s Standing) String() string {
	switch s {
	case Ejected:
		return "ejected"
	case Pinned:
		return "pinned"
	case PassedOver:
		return "passed_over"
	case Needed:
		return "needed"
	}
	return "free"
}

// Out says that an endpoint with this standing takes no traffic.
func (s Standing) Out() bool { return s == Ejected || s == PassedOver }

// Stand says where each of a cluster's endpoints stands, in the order in which
// they are given; nil without orders.
//
// Pinned endpoints take all traffic as long as one of them is there. Pins whose
// endpoints have all left have nothing to hold on to, and are as if they had not
// been given. Ejected endpoints take none as long as there is an endpoint that
// is not ejected, well or not; where all are, all are Needed.
func (o *Orders) Stand(endpoints []string) []Standing {
	if len(o.list) == 0 {
		return nil
	}
	all := make([]Standing, len(endpoints))
	pinned, ejected := 0, 0
	for i, e := range endpoints {
		switch x, ok := o.Of(e); {
		case !ok:
		case x.Act == Pin:
			all[i] = Pinned
			pinned++
		default:
			all[i] = Ejected
			ejected++
		}
	}
	for i := range all {
		switch {
		case pinned > 0 && all[i] == Free:
			all[i] = PassedOver
		case ejected == len(all) && all[i] == Ejected:
			all[i] = Needed
		}
	}
	return all
}
