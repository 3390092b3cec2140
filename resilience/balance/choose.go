package balance

// Candidate is an endpoint with what is known about its fitness.
type Candidate struct {
	Member
	// Healthy says that discovery and health checks have nothing against it.
	Healthy bool
	// Ejected says that outlier detection has taken it out.
	Ejected bool
}

// available says that nothing speaks against using c.
func (c *Candidate) available() bool { return c.Healthy && !c.Ejected }

// Choose applies the panic rule: which of all endpoints may be used.
//
// As long as the available ones (healthy and not ejected) are at least
// PanicPercent of all, they are used and panicking is false.
//
// Below that the verdicts are more likely wrong, or the few that are left more
// likely to break under the load, than so many endpoints bad; panicking is
// true. The verdict that rests on less, this proxy's own ejections, is dropped
// first: when the healthy ones, ejected or not, are at least PanicPercent of
// all (and there is one), they are used. Otherwise all are used (Envoy's
// healthy_panic_threshold has only this last step).
//
// With PanicPercent 0 there is no panic, and with nothing available nothing is
// used. Of no endpoints none is used, without panic. The order is kept; all is
// neither changed nor kept.
func Choose(cfg Config, all []Candidate) (use []Member, panicking bool) {
	available, healthy := 0, 0
	for i := range all {
		if all[i].Healthy {
			healthy++
		}
		if all[i].available() {
			available++
		}
	}
	enough := func(n int) bool { return float64(n)*100 >= cfg.PanicPercent*float64(len(all)) }
	switch {
	case enough(available):
		return members(all, available, (*Candidate).available), false
	case healthy > 0 && enough(healthy):
		return members(all, healthy, func(c *Candidate) bool { return c.Healthy }), true
	default:
		return members(all, len(all), func(*Candidate) bool { return true }), true
	}
}

// members returns those n of all that satisfy want.
func members(all []Candidate, n int, want func(*Candidate) bool) []Member {
	if n == 0 {
		return nil
	}
	use := make([]Member, 0, n)
	for i := range all {
		if want(&all[i]) {
			use = append(use, all[i].Member)
		}
	}
	return use
}
