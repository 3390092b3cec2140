package hand

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const s = time.Second

func eject(endpoint string, until time.Duration) Order {
	return Order{Endpoint: endpoint, Act: Eject, Until: until, By: "127.0.0.1:1"}
}

func pin(endpoint string, until time.Duration) Order {
	return Order{Endpoint: endpoint, Act: Pin, Until: until, By: "127.0.0.1:1"}
}

func words(all []Standing) string {
	var list []string
	for _, x := range all {
		list = append(list, x.String())
	}
	return strings.Join(list, " ")
}

func TestStand(t *testing.T) {
	for _, c := range []struct {
		name   string
		orders []Order
		list   string
		want   string
	}{
		{"no orders", nil, "a b c", ""},
		{"one ejected", []Order{eject("b", 9*s)}, "a b c", "free ejected free"},
		{"all but one", []Order{eject("a", 9*s), eject("b", 9*s)}, "a b c", "ejected ejected free"},
		{"all", []Order{eject("a", 9*s), eject("b", 9*s)}, "a b", "needed needed"},
		{"the last that is not has left", []Order{eject("a", 9*s)}, "a", "needed"},
		{"it is not there", []Order{eject("z", 9*s)}, "a b", "free free"},
		{"one pinned", []Order{pin("b", 9*s)}, "a b c", "passed_over pinned passed_over"},
		{"two pinned", []Order{pin("b", 9*s), pin("c", 9*s)}, "a b c", "passed_over pinned pinned"},
		{"the pinned has left", []Order{pin("z", 9*s)}, "a b", "free free"},
		{"the pinned has left, another is ejected", []Order{pin("z", 9*s), eject("a", 9*s)}, "a b", "ejected free"},
		{"pinned and ejected", []Order{pin("b", 9*s), eject("a", 9*s)}, "a b c", "ejected pinned passed_over"},
		{"all others ejected", []Order{pin("b", 9*s), eject("a", 9*s)}, "a b", "ejected pinned"},
		{"nobody there", []Order{pin("b", 9*s)}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o Orders
			if err := o.Give(c.orders...); err != nil {
				t.Fatal(err)
			}
			if got := words(o.Stand(strings.Fields(c.list))); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestOut(t *testing.T) {
	for s, want := range map[Standing]bool{Free: false, Ejected: true, Pinned: false, PassedOver: true, Needed: false} {
		if s.Out() != want {
			t.Errorf("%v: %v", s, s.Out())
		}
	}
}

func TestOrdersEnd(t *testing.T) {
	var o Orders
	_ = o.Give(eject("a", 5*s), eject("b", 7*s))
	if got := o.Expire(5*s - 1); got != nil {
		t.Errorf("too early: %v", got)
	}
	if got := o.Expire(5 * s); len(got) != 1 || got[0].Endpoint != "a" {
		t.Errorf("at its time: %v", got)
	}
	if _, ok := o.Of("a"); ok || o.Len() != 1 {
		t.Errorf("%v", o.All())
	}
}

func TestRelease(t *testing.T) {
	var o Orders
	_ = o.Give(eject("a", 5*s), pin("b", 7*s), pin("c", 7*s))
	if got := o.Release("z"); got != nil {
		t.Errorf("one without order: %v", got)
	}
	if got := o.Release("b"); len(got) != 1 || got[0].Endpoint != "b" || words(o.Stand([]string{"a", "b", "c"})) != "ejected passed_over pinned" {
		t.Errorf("%v, left %v", got, o.All())
	}
	if got := o.Release(""); len(got) != 2 || o.Len() != 0 {
		t.Errorf("all: %v, left %v", got, o.All())
	}
}

// A new set of pins replaces the one before; ejections of others stay.
func TestPinsReplacePins(t *testing.T) {
	var o Orders
	_ = o.Give(pin("a", 5*s), pin("b", 5*s))
	_ = o.Give(eject("d", 5*s))
	_ = o.Give(pin("c", 9*s))
	if got := words(o.Stand([]string{"a", "b", "c", "d"})); got != "passed_over passed_over pinned ejected" {
		t.Error(got)
	}
	_ = o.Give(pin("d", 9*s))
	if x, _ := o.Of("d"); x.Act != Pin || o.Len() != 1 {
		t.Errorf("the later order does not count: %v", o.All())
	}
}

func TestTooMany(t *testing.T) {
	var o Orders
	for i := range MaxOrders {
		if err := o.Give(eject(fmt.Sprint(i), s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Give(eject("0", 2*s), eject("more", s)); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if x, _ := o.Of("0"); x.Until != s {
		t.Error("half of what was refused was taken")
	}
	if err := o.Give(eject("0", 2*s)); err != nil {
		t.Errorf("in place of an earlier one: %v", err)
	}
}

func TestClamp(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{0: DefaultFor, -s: DefaultFor, s: s, MaxFor: MaxFor, MaxFor + 1: MaxFor} {
		if got := Clamp(d); got != want {
			t.Errorf("%v: %v, want %v", d, got, want)
		}
	}
}

// model is the slow reference: a map from endpoint to its last order.
type model map[string]Order

func (m model) stand(list []string) string {
	pinned := func(e string) bool { x, ok := m[e]; return ok && x.Act == Pin }
	ejected := func(e string) bool { x, ok := m[e]; return ok && x.Act == Eject }
	anyPinned := slices.ContainsFunc(list, pinned)
	allEjected := !slices.ContainsFunc(list, func(e string) bool { return !ejected(e) })
	var out []string
	for _, e := range list {
		switch {
		case ejected(e) && allEjected:
			out = append(out, "needed")
		case ejected(e):
			out = append(out, "ejected")
		case pinned(e):
			out = append(out, "pinned")
		case anyPinned:
			out = append(out, "passed_over")
		default:
			out = append(out, "free")
		}
	}
	return strings.Join(out, " ")
}

func TestModel(t *testing.T) {
	names := strings.Fields("a b c d e f")
	r := rand.New(rand.NewPCG(4, 7))
	for range 300 {
		var o Orders
		m := model{}
		now := time.Duration(0)
		for step := range 40 {
			now += time.Duration(r.IntN(2000)) * time.Millisecond
			var pick []string
			for _, n := range names {
				if r.IntN(3) == 0 {
					pick = append(pick, n)
				}
			}
			until := now + time.Duration(1+r.IntN(8000))*time.Millisecond
			switch r.IntN(4) {
			case 0:
				for _, n := range pick {
					_ = o.Give(eject(n, until))
					m[n] = eject(n, until)
				}
			case 1:
				var list []Order
				for _, n := range pick {
					list = append(list, pin(n, until))
				}
				if len(list) > 0 {
					for n, x := range m {
						if x.Act == Pin {
							delete(m, n)
						}
					}
				}
				for _, x := range list {
					m[x.Endpoint] = x
				}
				_ = o.Give(list...)
			case 2:
				for _, n := range pick {
					o.Release(n)
					delete(m, n)
				}
			case 3:
				o.Expire(now)
				for n, x := range m {
					if x.Until <= now {
						delete(m, n)
					}
				}
			}
			if o.Len() != len(m) {
				t.Fatalf("step %d: %v, want %v", step, o.All(), m)
			}
			stood := o.Stand(names)
			if len(m) == 0 {
				if stood != nil {
					t.Fatalf("without orders %v", stood)
				}
				continue
			}
			if got, want := words(stood), m.stand(names); got != want {
				t.Fatalf("step %d: %q, want %q of %v", step, got, want, m)
			}
		}
	}
}
