package balance

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHashMistakes: what is said about each, by field.
func TestHashMistakes(t *testing.T) {
	type validates interface {
		Validate(add func(field, problem string))
	}
	for _, c := range []struct {
		of   validates
		want string
	}{
		{HashOn{Header: "x-user"}, ""},
		{HashOn{Cookie: &HashCookie{Name: "sid"}}, ""},
		{HashOn{Query: "user[id]"}, ""},
		{HashOn{SourceIP: true}, ""},
		{HashOn{Identity: true}, ""},
		{HashOn{}, "-"},
		{HashOn{Header: "x", Identity: true}, "-"},
		{HashOn{Header: "x user"}, "header"},
		{HashOn{Query: "a=b"}, "query"},
		{HashCookie{Name: "sid", TTL: time.Hour, Path: "/a"}, ""},
		{HashCookie{Name: "", TTL: 1500 * time.Millisecond, Path: "a"}, "name path ttl"},
		{HashCookie{Name: "sid", TTL: time.Hour, Session: true}, "session"},
		{HashCookie{Name: "a;b"}, "name"},
		{HashCookie{Name: "a", Path: "/a; Domain=example.org"}, "path"},
		{Affinity{Name: "srv", TTL: maxTTL}, ""},
		{Affinity{Name: "srv\r\nx: y", Path: "/a\r\n", TTL: maxTTL + time.Second}, "name path ttl"},
		{Affinity{Name: strings.Repeat("a", 65), TTL: -time.Second}, "name ttl"},
	} {
		var got []string
		c.of.Validate(func(field, problem string) {
			if field == "" {
				field = "-"
			}
			got = append(got, field)
			if problem == "" {
				t.Errorf("%+v: nothing is said about %s", c.of, field)
			}
		})
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: mistakes in %q, want %q", c.of, s, c.want)
		}
	}
}

// TestKeyOf: proxies of all versions agree on keys, and similar texts do not.
func TestKeyOf(t *testing.T) {
	for text, want := range map[string]uint64{"": 0xf52a15e9a9b5e89b, "10.0.0.1:8080": KeyOf([]byte("10.0.0.1:8080"))} {
		if got := KeyOf(text); got != want {
			t.Errorf("the key of %q is %#x, want %#x", text, got, want)
		}
	}
	counts := make([]int, 64)
	shares := make([]float64, 64)
	for i := range 64_000 {
		counts[KeyOf(fmt.Sprintf("user-%d", i))>>58]++
	}
	for i := range shares {
		shares[i] = 1
	}
	fits(t, counts, shares)
}

func TestWords(t *testing.T) {
	list := []HashOn{{Header: "x-user"}, {Cookie: &HashCookie{Name: "sid"}}, {Query: "u"}, {SourceIP: true}, {Identity: true}}
	if got, want := fmt.Sprint(list), "[header:x-user cookie:sid query:u source_ip identity]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	cfg := Default()
	if got := cfg.Summary(); got != "p2c_ewma" {
		t.Error(got)
	}
	if got := fmt.Sprintf("%+v", cfg); !strings.Contains(got, "Affinity:off") {
		t.Error(got)
	}
	cfg.Affinity = &Affinity{Name: "srv"}
	if got := fmt.Sprintf("%+v", cfg); !strings.Contains(got, "Affinity:cookie:srv") {
		t.Error(got)
	}
	cfg.Algorithm, cfg.Hash, cfg.BoundedLoadPercent = Maglev, list[:2], 150
	if got, want := cfg.Summary(), "maglev by header:x-user, else cookie:sid, at most 150% of the fair load, affinity by cookie:srv"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestKey: the first item that a request has is enough, or is combined with those
// behind it; Envoy's terminal policies end the list where anything was found.
func TestKey(t *testing.T) {
	type item struct {
		combine, found bool
		key            uint64
	}
	for _, c := range []struct {
		name  string
		items []item
		want  uint64
		some  bool
		asked int
	}{
		{"the first is enough", []item{{false, true, 3}, {false, true, 5}}, 3, true, 1},
		{"what is missing is passed over", []item{{false, false, 3}, {false, true, 5}}, 5, true, 2},
		{"two are combined", []item{{true, true, 3}, {false, true, 5}, {false, true, 9}}, 3<<1 ^ 5, true, 2},
		{"an end ends it, found or not", []item{{true, true, 3}, {false, false, 5}, {false, true, 9}}, 3, true, 2},
		{"three, the highest bit goes round", []item{{true, true, 1 << 63}, {true, true, 0}, {true, true, 4}}, 2 ^ 4, true, 3},
		{"none", []item{{true, false, 3}, {false, false, 5}}, 0, false, 2},
	} {
		var k Key
		asked := 0
		for _, i := range c.items {
			asked++
			if k.Add(&HashOn{Combine: i.combine}, i.key, i.found) {
				break
			}
		}
		if k.Value != c.want || k.Some != c.some || asked != c.asked {
			t.Errorf("%s: %x %t after %d", c.name, k.Value, k.Some, asked)
		}
	}
}
