package exchange

import (
	"strings"
	"testing"
)

// modelNamed takes the whole list apart first.
func modelNamed(list, separator, name string) (string, bool) {
	for _, pair := range strings.Split(list, separator) {
		pair = strings.Trim(pair, " \t")
		if n, v, ok := strings.Cut(pair, "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// FuzzNamed compares the search for a cookie or parameter with the model.
func FuzzNamed(f *testing.F) {
	for _, list := range []string{"", "sid=1", "a=b; sid=2;c=d", "sid", "sid=;sid=3", " sid=4\t", "xsid=1&sid=5=6", ";;=;sid=\x00", "SID=1"} {
		f.Add(list, "sid", true)
		f.Add(list, "sid", false)
	}
	f.Fuzz(func(t *testing.T, list, name string, cookie bool) {
		separator := "&"
		if cookie {
			separator = ";"
		}
		got, ok := named([]byte(list), []byte(separator), name)
		if want, found := modelNamed(list, separator, name); string(got) != want || ok != found {
			t.Errorf("%q in %q: %q %v, the model says %q %v", name, list, got, ok, want, found)
		}
	})
}
