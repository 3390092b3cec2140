package http2

import "testing"

// Every byte at every place of values of many lengths.
func TestValidValue(t *testing.T) {
	for n := range 40 {
		for at := range n {
			for b := range 256 {
				v := make([]byte, n)
				for i := range v {
					v[i] = 'a' + byte(i)%26
				}
				v[at] = byte(b)
				want := b >= 0x20 && b != 0x7f || b == '\t'
				if edge := at == 0 || at == n-1; edge && (b == ' ' || b == '\t') {
					want = false
				}
				if validValue(v) != want {
					t.Fatalf("%q: %v", v, !want)
				}
			}
		}
	}
	if !validValue(nil) {
		t.Error("an empty value")
	}
}
