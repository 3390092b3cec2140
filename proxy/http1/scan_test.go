package http1

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func slowScan(b []byte, i int, stop func(c byte) bool) int {
	for i < len(b) && !stop(b[i]) {
		i++
	}
	return i
}

func stopsText(c byte) bool { return c != '\t' && (c < 0x20 || c == 0x7f) }

func stopsTarget(c byte) bool { return c <= 0x20 || c >= 0x7f || c == '#' }

func stopsName(c byte) bool { return c <= 0x20 || c == ':' }

// Every byte at every position of two words, in front of and behind every other
// kind of byte that could disturb the arithmetic.
func TestScanEachByte(t *testing.T) {
	fillers := []byte{'a', 'Z', '-', 0x20, 0x21, '9', ';', '\t', 0x7e, 0x80, 0x9f, 0xba, 0xfe, 0xff}
	for _, filler := range fillers {
		for pos := range 19 {
			for c := range 256 {
				b := []byte(strings.Repeat(string([]byte{filler}), 19))
				b[pos] = byte(c)
				if got, want := scanText(b, 0), slowScan(b, 0, stopsText); got != want {
					t.Fatalf("scanText(%q) = %d, want %d", b, got, want)
				}
				if got, want := scanTarget(b, 0), slowScan(b, 0, stopsTarget); got != want {
					t.Fatalf("scanTarget(%q) = %d, want %d", b, got, want)
				}
				if got, want := scanName(b, 0), slowScan(b, 0, stopsName); got != want {
					t.Fatalf("scanName(%q) = %d, want %d", b, got, want)
				}
			}
		}
	}
}

func TestScanRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const common = "abcXYZ019-_;=, \t:\x7f\x1f\xff\x80\x7e\r\n\x00"
	for range 20000 {
		b := make([]byte, rnd.IntN(40))
		for i := range b {
			b[i] = common[rnd.IntN(len(common)-rnd.IntN(len(common)-1))]
		}
		from := rnd.IntN(len(b) + 1)
		if got, want := scanText(b, from), slowScan(b, from, stopsText); got != want {
			t.Fatalf("scanText(%q, %d) = %d, want %d", b, from, got, want)
		}
		if got, want := scanTarget(b, from), slowScan(b, from, stopsTarget); got != want {
			t.Fatalf("scanTarget(%q, %d) = %d, want %d", b, from, got, want)
		}
		if got, want := scanName(b, from), slowScan(b, from, stopsName); got != want {
			t.Fatalf("scanName(%q, %d) = %d, want %d", b, from, got, want)
		}
	}
}

func TestClasses(t *testing.T) {
	const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	target := ""
	for c := byte(0x21); c < 0x7f; c++ {
		if c != '#' {
			target += string(c)
		}
	}
	for _, tt := range []struct {
		class   uint8
		members string
	}{
		{classToken, alnum + "!#$%&'*+-.^_`|~"},
		{classTarget, target},
		{classHost, alnum + "-._~!$&'()*+;="},
		{classHex, "0123456789abcdefABCDEF"},
	} {
		for c := range 256 {
			want := strings.IndexByte(tt.members, byte(c)) >= 0
			if got := classes[c]&tt.class != 0; got != want {
				t.Errorf("class %d, byte %#x: %v, want %v", tt.class, c, got, want)
			}
		}
	}
}

// A name is known in any case of its letters and in no other variation.
func TestLookupField(t *testing.T) {
	for id := Other + 1; id < fieldIDs; id++ {
		name := id.String()
		if name == "" || name == "other" {
			t.Fatalf("FieldID %d has no name", id)
		}
		mixed := []byte(name)
		for i := range mixed {
			if i%2 == 0 && mixed[i] >= 'a' && mixed[i] <= 'z' {
				mixed[i] -= 0x20
			}
		}
		for _, variant := range []string{name, strings.ToUpper(name), string(mixed)} {
			if got := lookupField([]byte(variant)); got != id {
				t.Errorf("%q is %v", variant, got)
			}
		}
		for i := range name {
			for c := 0x21; c < 256; c++ {
				other := []byte(name)
				other[i] = byte(c)
				if strings.EqualFold(string(other), name) {
					continue
				}
				if got := lookupField(other); got == id {
					t.Errorf("%q is taken for %v", other, id)
				}
			}
		}
		for _, other := range []string{name + "x", name[1:], name[:len(name)-1], "x" + name} {
			if got := lookupField([]byte(other)); got != Other {
				t.Errorf("%q is taken for %v", other, got)
			}
		}
	}
	if lookupField(nil) != Other || FieldID(200).String() != "other" || Other.String() != "other" {
		t.Error("unknown names are not Other")
	}
	if fieldIDs > 64 {
		t.Errorf("%d names do not fit into a word", fieldIDs)
	}
}

func TestEqualFoldBytes(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			x, y := []byte{byte(a)}, []byte{byte(b)}
			want := a == b
			if a < 128 && b < 128 {
				want = strings.EqualFold(string(x), string(y))
			}
			if got := equalFoldBytes(x, y); got != want {
				t.Errorf("%q and %q: %v", x, y, got)
			}
		}
	}
	if equalFoldBytes([]byte("ab"), []byte("a")) {
		t.Error("names of different lengths are equal")
	}
}

// equalFold compares words; byte by byte it must come to the same.
func TestEqualFoldOfKnownNames(t *testing.T) {
	slow := func(name []byte, lower string) bool {
		if len(name) != len(lower) {
			return false
		}
		for i := range name {
			if name[i]|0x20 != lower[i] {
				return false
			}
		}
		return true
	}
	for _, lower := range append(fieldNames[:], "a", "ab", "abc", "close", "1234567") {
		for n := range len(lower) + 1 {
			for _, name := range []string{lower[:n], strings.ToUpper(lower[:n]), lower[:n] + "-"} {
				if got, want := equalFold([]byte(name), lower), slow([]byte(name), lower); got != want {
					t.Errorf("%q and %q: %v", name, lower, got)
				}
			}
		}
		for i := range len(lower) {
			for c := byte(0x20); c < 0x7f; c++ {
				name := []byte(lower)
				name[i] = c
				if got, want := equalFold(name, lower), slow(name, lower); got != want {
					t.Errorf("%q and %q: %v", name, lower, got)
				}
			}
		}
	}
}
