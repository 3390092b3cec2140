package authz

import (
	"net/url"
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/", "/"},
		{"//", "/"},
		{"/a", "/a"},
		{"/a/", "/a/"},
		{"///a///b//", "/a/b/"},
		{"/.../..a/.b", "/.../..a/.b"},
		{"/%7Euser/%41%2D", "/~user/A-"},
		{"/%25%32%65", "/%2e"},
		{"/caf%C3%A9/a%20b%3F%23", "/café/a b?#"},
		{"/a;v=1/b", "/a;v=1/b"},
	} {
		got, ok := normalize([]byte("kept"), []byte(c.in), false)
		if !ok || string(got) != "kept"+c.want {
			t.Errorf("%q: got %q, %t, want %q", c.in, got, ok, c.want)
		}
	}
	for _, in := range []string{"/.", "/..", "/a/.", "/a/..", "/a/b/..", "/a/./b", "/a//../b", "/%2e%2e/a", "/a/%2E", "/.;x/a", "/a/..;x"} {
		if got, ok := normalize(nil, []byte(in), false); ok {
			t.Errorf("%q: got %q, want a refusal", in, got)
		}
	}
}

// slowNormalize is the reference: split, decode, walk.
func slowNormalize(path string) (string, bool) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "#\\") {
		return "", false
	}
	var out []string
	segments := strings.Split(path[1:], "/")
	for i, raw := range segments {
		s, err := url.PathUnescape(raw)
		if err != nil || strings.ContainsAny(s, "/\\") || strings.HasPrefix(s, ".;") || strings.HasPrefix(s, "..;") ||
			strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) >= 0 {
			return "", false
		}
		last := i == len(segments)-1
		switch {
		case s == "." || s == "..":
			return "", false
		case s != "" || last:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/"), true
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "//a/../b", "/%2e%2e/%41", "/%2f", "/a%5c", "/..;/x", "/a/./", "a", "/%zz", "/\x00", "/a#b", "/%25%32%66"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, wantOK := slowNormalize(s)
		got, ok := normalize(nil, []byte(s), false)
		if ok != wantOK || ok && string(got) != want {
			t.Fatalf("%q: got %q, %t, reference %q, %t", s, got, ok, want, wantOK)
		}
		if plain([]byte(s)) && (!ok || string(got) != s) {
			t.Fatalf("%q passes for normal, but its normal form is %q, %t", s, got, ok)
		}
		if len(got) > len(s) {
			t.Fatalf("%q grew to %q", s, got)
		}
	})
}
