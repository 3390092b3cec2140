package discovery

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever is followed, confirmed and fails, Each and Status tell of the services
// that are followed, by name.
func TestTrackerByModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		var tr Tracker
		type known struct {
			WatchStatus
			confirmed time.Time
		}
		model := map[string]*known{}
		for range 2000 {
			name := fmt.Sprintf("s%d", random.IntN(20))
			switch random.IntN(10) {
			case 0:
				var names []string
				next := map[string]*known{}
				for range random.IntN(15) {
					n := fmt.Sprintf("s%d", random.IntN(20))
					names = append(names, n)
					if next[n] = model[n]; next[n] == nil {
						next[n] = &known{WatchStatus: WatchStatus{Service: n}}
					}
				}
				model = next
				if got, want := tr.Follow(names), slices.Sorted(maps.Keys(next)); !slices.Equal(got, want) {
					t.Fatalf("Follow(%q) = %q, want %q", names, got, want)
				}
			case 1, 2:
				tr.Fail(name, errors.New("no"))
				if k := model[name]; k != nil {
					k.LastError = "no"
				}
			case 3:
				time.Sleep(time.Duration(random.IntN(1000)))
			default:
				index := random.Uint64()
				tr.Confirm(name, index, 3, "careful")
				if k := model[name]; k != nil {
					k.WatchStatus = WatchStatus{Service: name, Index: index, Endpoints: 3, Warning: "careful"}
					k.confirmed = time.Now()
				}
			}
			want := []WatchStatus{}
			for _, n := range slices.Sorted(maps.Keys(model)) {
				s := model[n].WatchStatus
				if s.Age = -1; !model[n].confirmed.IsZero() {
					s.Age = time.Since(model[n].confirmed)
				}
				want = append(want, s)
			}
			each := []WatchStatus{}
			tr.Each(func(s *WatchStatus) { each = append(each, *s) })
			if status := tr.Status(); !slices.Equal(status, want) || !slices.Equal(each, want) {
				t.Fatalf("Status is %v, Each %v, want %v", status, each, want)
			}
		}
	})
}
