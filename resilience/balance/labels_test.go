package balance

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestLabels compares with a map, whatever the order in which labels come.
func TestLabels(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		want := map[string]string{}
		var list []Label
		for range rnd.IntN(12) {
			l := Label{fmt.Sprint("k", rnd.IntN(8)), fmt.Sprint(rnd.IntN(3))}
			if _, ok := want[l.Key]; !ok {
				want[l.Key] = l.Value
			}
			list = append(list, l)
		}
		l, cut := NewLabels(list)
		if got := maps.Collect(l.All()); cut || !maps.Equal(got, want) {
			t.Fatalf("%v becomes %v (cut %v), want %v", list, got, cut, want)
		}
		for i := range 9 {
			k := fmt.Sprint("k", i)
			got, ok := l.Get(k)
			if w, has := want[k]; got != w && has || ok != has {
				t.Fatalf("%v: %s is %q, %v", l, k, got, ok)
			}
		}
		var again []Label
		for k, v := range want { // in any order
			again = append(again, Label{k, v})
		}
		if same, _ := NewLabels(again); same != l {
			t.Fatalf("%q and %q are not equal", same, l)
		}
		some, all := map[string]string{}, true
		for range rnd.IntN(3) {
			k, v := fmt.Sprint("k", rnd.IntN(8)), fmt.Sprint(rnd.IntN(3))
			if _, ok := some[k]; !ok {
				some[k] = v
				got, ok := want[k]
				all = all && ok && got == v
			}
		}
		var ask []Label
		for k, v := range some {
			ask = append(ask, Label{k, v})
		}
		if sel, _ := NewLabels(ask); l.Has(sel) != all {
			t.Fatalf("%v has %v: %v", l, sel, !all)
		}
	}
}

// TestLabelBounds: what is beyond the bounds is left out and said.
func TestLabelBounds(t *testing.T) {
	var many, long []Label
	for i := range MaxLabels + 1 {
		many = append(many, Label{fmt.Sprintf("%04d", i), "v"})
	}
	for i := range 9 {
		long = append(long, Label{fmt.Sprint(i), strings.Repeat("x", maxLabelValue)})
	}
	for name, test := range map[string]struct {
		list []Label
		want int
	}{
		"too many":   {many, MaxLabels},
		"too long":   {long, 7},
		"zero byte":  {[]Label{{"a", "1\x00b"}, {"c\x00", ""}, {"d", ""}}, 1},
		"no key":     {[]Label{{"", "x"}}, 0},
		"long value": {[]Label{{"a", strings.Repeat("x", maxLabelValue+1)}, {"b", "1"}}, 1},
	} {
		l, cut := NewLabels(test.list)
		n := 0
		for range l.All() {
			n++
		}
		if !cut || n != test.want || len(l) > MaxLabelBytes {
			t.Errorf("%s: %d labels of %d bytes, cut %v; want %d", name, n, len(l), cut, test.want)
		}
	}
	if s := mustLabels("b", "2", "a", "1").String(); s != "a=1, b=2" {
		t.Errorf("in words: %q", s)
	}
}

func mustLabels(pairs ...string) Labels {
	var list []Label
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, Label{pairs[i], pairs[i+1]})
	}
	l, _ := NewLabels(list)
	return l
}
