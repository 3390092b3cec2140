package advise

import (
	"fmt"

	"github.com/outrigger-mesh/outrigger/internal/rerun"
)

// What a proposal may cost at most.
const (
	mayFail  = .0005 // of the requests more fail
	mayLoad  = 5.0   // points of extra load in percent, where fewer fail for it
	mayDelay = 1.10  // times the p99, where nothing is gained for it
)

// worse says why b is worse than a; nothing where it is not.
func worse(a, b *rerun.Figures) string {
	more := float64(b.Bad) - float64(a.Bad)
	switch refused := count(b.RefusedGood) - count(a.RefusedGood); {
	case more > max(1, mayFail*float64(a.Requests)):
		return fmt.Sprintf("%d requests would fail in place of %d", b.Bad, a.Bad)
	case refused > max(1, mayFail*float64(a.Requests)):
		return fmt.Sprintf("%.0f good requests more would be refused", refused)
	case b.ExtraLoad > a.ExtraLoad+mayLoad:
		return fmt.Sprintf("%.1f %% more attempts would be made in place of %.1f %%", b.ExtraLoad, a.ExtraLoad)
	case b.ExtraLoad > a.ExtraLoad+.5 && more >= 0 && b.P99 >= a.P99*.95 && b.P999 >= a.P999*.8:
		return fmt.Sprintf("%.1f %% more attempts would be made in place of %.1f %%, for nothing", b.ExtraLoad, a.ExtraLoad)
	case a.P99 > 0 && b.P99 > a.P99*mayDelay && more >= 0:
		return fmt.Sprintf("the p99 would be %.1f ms in place of %.1f ms", b.P99, a.P99)
	}
	return ""
}

func count(n *uint64) float64 {
	if n == nil {
		return 0
	}
	return float64(*n)
}

// cost weighs what a policy comes to: a failure is worth ten attempts, and the tail
// counts a little: that of requests which a retry has saved is longer, and below some
// milliseconds it does not matter.
func cost(f *rerun.Figures) float64 {
	return 10*float64(f.Bad) + float64(f.Attempts) + .01*float64(f.Requests)*min(f.P99/max(f.P50, 5), 50)
}

// better reports whether b comes to clearly less than a.
func better(a, b *rerun.Figures) bool { return cost(b) < cost(a)-1 }
