package exchange

import (
	"reflect"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/outcome"
	"github.com/outrigger-mesh/outrigger/resilience/retry"
)

// What resets itself without touching everything leaves nothing all the same.
func TestNothingIsLeft(t *testing.T) {
	n := notes{
		attempts: 1, asked: true, verdict: retry.Decision{Wait: 1}, budget: 1, hasBudget: true, deadline: 1,
		wouldDeny: true, caller: time.Second, refused: time.Second,
	}
	for i := range 20 {
		n.answers.note(i, retry.Decision{Again: true, Wait: time.Second})
	}
	for i, v := 0, reflect.ValueOf(n); i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "draft" {
			t.Errorf("the test sets no %s", name)
		}
	}
	n.forget(nil)
	if !reflect.ValueOf(n).IsZero() {
		t.Errorf("left: %+v", n)
	}

	var u uploader
	u.read.Store(true)
	u.reason.Store(uint32(outcome.DownstreamGone))
	u.bytes.Store(1)
	u.end.Store(1)
	u.answered.Store(true)
	u.slow.Store(&slowness{})
	u.sent, u.final, u.lost, u.whole, u.keep, u.trailers = true, true, true, true, 1, []byte("x")
	u.reset()
	if !reflect.ValueOf(&u).Elem().IsZero() {
		t.Errorf("left: %+v", &u)
	}
}
