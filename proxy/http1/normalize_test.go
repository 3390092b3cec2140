package http1

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// modelPath is what becomes of a path, one step after the other; refused and
// moved say what else.
func modelPath(path string, n *Normalization) (out string, refused, moved bool) {
	lower := strings.ToLower(path)
	slash := strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c")
	if slash && n.Slashes == RejectSlashes || n.Path && strings.Contains(path, "%00") {
		return path, true, false
	}
	if n.Slashes >= RedirectSlashes {
		path = strings.NewReplacer("%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`).Replace(path)
	}
	if n.Path {
		var b strings.Builder
		for i := 0; i < len(path); i++ {
			if path[i] == '%' {
				c := unhex(path[i+1])<<4 | unhex(path[i+2])
				if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", rune(c)) {
					b.WriteByte(c)
				} else {
					b.WriteString(path[i : i+3])
				}
				i += 2
				continue
			}
			b.WriteByte(path[i])
		}
		segments := strings.Split(strings.ReplaceAll(b.String(), `\`, "/"), "/")[1:]
		var kept []string
		for i, s := range segments {
			last := i == len(segments)-1
			switch {
			case s == "..":
				kept = kept[:max(len(kept)-1, 0)]
			case s != ".":
				kept = append(kept, s)
				continue
			}
			if last {
				kept = append(kept, "")
			}
		}
		path = "/" + strings.Join(kept, "/")
	}
	for n.MergeSlashes && strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path, false, slash && n.Slashes == RedirectSlashes
}

// checkNormalize brings a request with this path into form and compares all of
// the head with the model.
func checkNormalize(t *testing.T, before, path, behind string, n *Normalization) {
	t.Helper()
	head := func(path string) []byte {
		return []byte(before + path + behind + " HTTP/1.1\r\nHost: h\r\nX_A: 1\r\nX-B: 2\r\n\r\nbody")
	}
	raw := head(path)
	var r, want Request
	size, err := r.Parse(raw, nil)
	if err != nil || size == 0 || r.Form != OriginForm && r.Form != AbsoluteForm || string(r.Path.Of(raw)) != path {
		return // refused by the parser, or a '?' in path
	}
	out, refused, moved := modelPath(path, n)
	wanted := head(out)
	if m, err := want.Parse(wanted, nil); err != nil || m == 0 {
		t.Fatalf("%q became %q: %v", path, out, err)
	}
	got, err := r.Normalize(raw, n)
	if got != moved || (err != nil) != refused {
		t.Fatalf("%+v: %q: moved %t, %v; want %t, refused %t", *n, path, got, err, moved, refused)
	}
	if a, b := string(r.AppendHead(nil, raw)), string(want.AppendHead(nil, wanted)); a != b {
		t.Fatalf("%+v: %q:\n%q\n%q", *n, path, a, b)
	}
	for _, s := range [][2]Span{{r.MethodSpan, want.MethodSpan}, {r.Target, want.Target}, {r.Path, want.Path}, {r.Query, want.Query}, {r.Host, want.Host}, {r.Authority, want.Authority}} {
		if a, b := string(s[0].Of(raw)), string(s[1].Of(wanted)); a != b {
			t.Fatalf("%+v: %q: %q, want %q", *n, path, a, b)
		}
	}
	if string(raw[size:]) != "body" {
		t.Fatalf("%q: behind the head is %q", path, raw[size:])
	}
	if refused {
		return
	}
	if again, err := r.Normalize(raw, n); again || err != nil || string(r.Path.Of(raw)) != out {
		t.Fatalf("%+v: %q became %q, and then %q, %v", *n, path, out, r.Path.Of(raw), err)
	}
	if n.Path {
		for s := range strings.SplitSeq(out, "/") {
			if d := strings.ReplaceAll(strings.ToLower(s), "%2e", "."); d == "." || d == ".." {
				t.Fatalf("%q became %q", path, out)
			}
		}
	}
}

func normalizationOf(bits uint8) *Normalization {
	return &Normalization{Path: bits&1 != 0, MergeSlashes: bits&2 != 0, Slashes: EscapedSlashes(bits >> 2 & 3)}
}

// TestNormalizePath: the cases by hand.
func TestNormalizePath(t *testing.T) {
	path, merge := &Normalization{Path: true}, &Normalization{Path: true, MergeSlashes: true}
	forward := &Normalization{Path: true, Slashes: ForwardSlashes}
	for _, c := range []struct {
		n        *Normalization
		in, want string
	}{
		{path, "/a/../b", "/b"},
		{path, "/a/%2e%2E/b", "/b"},
		{path, "/../../x", "/x"},
		{path, "/a/.", "/a/"},
		{path, "/a/b/..", "/a/"},
		{path, "/..", "/"},
		{path, "/a//../b", "/a/b"},
		{path, `/a\..\b`, "/b"},
		{path, "/%61%7e%2f%5c%20%c3", "/a~%2f%5c%20%c3"},
		{path, "/a/..;/b", "/a/..;/b"},
		{path, "/a/...", "/a/..."},
		{path, "/%252e%252e/", "/%252e%252e/"},
		{path, "/a//b", "/a//b"},
		{path, "/a/..%2f../b", "/a/..%2f../b"},
		{merge, "//a///b/", "/a/b/"},
		{forward, "/a%2f..%5Cb", "/b"},
		{&Normalization{Slashes: ForwardSlashes}, "/a%2f..%5Cb%61", `/a/..\b%61`},
		{&Normalization{MergeSlashes: true}, "/a//../b%61", "/a/../b%61"},
	} {
		if got, refused, _ := modelPath(c.in, c.n); got != c.want || refused {
			t.Errorf("the model makes %q of %q, want %q", got, c.in, c.want)
		}
		for _, before := range []string{"GET ", "\r\nGET ", "DELETE http://h.example:80"} {
			checkNormalize(t, before, c.in, "?x=/../%2f//", c.n)
		}
	}
}

// TestNormalizeModel compares with the model, for paths made of what matters.
func TestNormalizeModel(t *testing.T) {
	parts := []string{"/", "/", "/", ".", "..", "a", "b;", "%2e", "%2E", "%2f", "%5C", "%61", "%00", "%25", "%20", `\`, "_"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		var b strings.Builder
		b.WriteByte('/')
		for range rnd.IntN(12) {
			b.WriteString(parts[rnd.IntN(len(parts))])
		}
		before := []string{"GET ", "OPTIONS https://other"}[rnd.IntN(2)]
		checkNormalize(t, before, b.String(), []string{"", "?", "?a/../b"}[rnd.IntN(3)], normalizationOf(uint8(rnd.IntN(16))))
	}
}

func FuzzNormalize(f *testing.F) {
	for i, path := range []string{"/a/../b", "/%2e%2e%2f", `/\..\`, "//a//.", "/%00", "/.%2e/%61", "/x"} {
		f.Add(path, uint8(i*5), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, path string, bits uint8, absolute bool) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		before := "PUT "
		if absolute {
			before = "PUT http://a"
		}
		checkNormalize(t, before, path, "?q", normalizationOf(bits))
	})
}

// TestNormalizeUnderscores: what is dropped is found by no name, and only that.
func TestNormalizeUnderscores(t *testing.T) {
	const head = "GET /a/../b HTTP/1.1\r\nX_User: 1\r\nHost: a\r\nx-user: 2\r\n_: 3\r\n\r\n"
	raw := []byte(head)
	var r Request
	if _, err := r.Parse(raw, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Normalize(raw, &Normalization{Path: true, Underscores: RejectUnderscores}); err != ErrUnderscore || string(raw) != head {
		t.Errorf("%v, %q", err, raw)
	}
	if _, err := r.Normalize(raw, &Normalization{Underscores: DropUnderscores}); err != nil {
		t.Error(err)
	}
	if got, want := string(r.AppendHead(nil, raw)), "GET /a/../b HTTP/1.1\r\nHost: a\r\nx-user: 2\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if _, ok := r.Lookup(raw, "x_user"); ok {
		t.Error("a dropped field is found")
	}
	if v, ok := r.Lookup(raw, "x-user"); !ok || string(v.Of(raw)) != "2" {
		t.Error("x-user is gone")
	}
}

// TestNormalizeLeavesOthers: targets that are no path stay as they are.
func TestNormalizeLeavesOthers(t *testing.T) {
	for _, line := range []string{"OPTIONS *", "CONNECT a:80", "GET http://a", "GET http://a?/../"} {
		head := line + " HTTP/1.1\r\nHost: a\r\n\r\n"
		raw := []byte(head)
		var r Request
		if _, err := r.Parse(raw, nil); err != nil {
			t.Fatal(err)
		}
		if moved, err := r.Normalize(raw, &Normalization{Path: true, MergeSlashes: true, Slashes: RedirectSlashes}); moved || err != nil || string(raw) != head {
			t.Errorf("%q: %t, %v, %q", line, moved, err, raw)
		}
	}
}

func TestNormalizeAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	n := &Normalization{Path: true, MergeSlashes: true, Slashes: RedirectSlashes, Underscores: DropUnderscores}
	for _, path := range []string{"/api/v1/users.json", "/a/../%62//c%2f"} {
		head := []byte("GET " + path + " HTTP/1.1\r\nHost: a\r\nX_A: 1\r\n\r\n")
		raw := make([]byte, len(head))
		var r Request
		if got := testing.AllocsPerRun(100, func() {
			copy(raw, head)
			r.Reset()
			if _, err := r.Parse(raw, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Normalize(raw, n); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("%s: %v allocations", path, got)
		}
	}
}
