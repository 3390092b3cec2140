package http1

import (
	"strings"
	"testing"
)

func TestNamesAndValues(t *testing.T) {
	for name, want := range map[string]FieldID{"Cookie": Cookie, "USER-AGENT": UserAgent, "x-none": Other, "": Other, "cookie2": Other} {
		if got := FieldOf(name); got != want {
			t.Errorf("FieldOf(%q) = %s", name, got)
		}
	}
	for _, id := range []FieldID{Connection, KeepAlive, ProxyConnection, TE, TransferEncoding, Upgrade} {
		if !HopByHop(id) {
			t.Errorf("%s is passed on", id)
		}
	}
	for _, id := range []FieldID{Other, Host, Cookie, ContentLength, GRPCTimeout} {
		if HopByHop(id) {
			t.Errorf("%s concerns one connection", id)
		}
	}
	for s, want := range map[string]bool{"x_a": true, "X-A": true, "!#$%&'*+-.^_`|~9": true, "": false, "a b": false, "a:": false, "ä": false, "a\n": false} {
		if IsToken(s) != want {
			t.Errorf("IsToken(%q) = %t", s, !want)
		}
	}
	for s, want := range map[string]bool{"": true, "a b\tc": true, "ä": true, "a\r": false, "a\nb": false, "\x00": false, "\x7f": false, " a": false, "a\t": false} {
		if IsValue(s) != want {
			t.Errorf("IsValue(%q) = %t", s, !want)
		}
	}
	for s, want := range map[string]bool{
		"/": true, "/a%20b/;x=1,2": true, "/a'b": true, "": false, "a": false, "/a b": false, "/a?b": false, "/a#b": false, "/%2": false, "/%zz": false,
		"/ä": false, "/a\tb": false, "*": false, "//": true, "/aaaaaaaaaaaaaaaa": true, "/aaaaaaaaaaaaaaa\x01": false,
	} {
		if IsPath(s) != want {
			t.Errorf("IsPath(%q) = %t", s, !want)
		}
	}
}

func TestEqualFold(t *testing.T) {
	for _, c := range []struct {
		b, lower string
		want     bool
	}{
		{"X_Tenant", "x_tenant", true},
		{"x-a", "x-a", true},
		{"", "", true},
		{"a", "ab", false},
		{"[a", "{a", false},
		{"@", "`", false},
		{"A-LONGER-NAME", "a-longer-name", true},
		{"A-LONGER_NAME", "a-longer-name", false},
		{"\x0d", "-", false},
		{"Ä", "ä", false},
	} {
		if got := EqualFold([]byte(c.b), c.lower); got != c.want {
			t.Errorf("EqualFold(%q, %q) = %t", c.b, c.lower, got)
		}
	}
}

// TestDropNamed: only the fields of that name are left out, whatever their case.
func TestDropNamed(t *testing.T) {
	raw := []byte("GET / HTTP/1.1\r\nHost: a\r\nX_One: 1\r\nx-one: 2\r\nx_ONE: 3\r\nX_One2: 4\r\n\r\n")
	var r Request
	if n, err := r.Parse(raw, nil); n != len(raw) || err != nil {
		t.Fatal(n, err)
	}
	r.DropNamed(raw, "x_one")
	if got := string(r.AppendHead(nil, raw)); got != "GET / HTTP/1.1\r\nHost: a\r\nx-one: 2\r\nX_One2: 4\r\n" {
		t.Errorf("%q", got)
	}
}

// FuzzAppendHeadAs: a head with another path is a head, with that path, the same
// method, query and authority, and the fields that AppendHead writes.
func FuzzAppendHeadAs(f *testing.F) {
	f.Add("GET /a/b?x=/y HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n", "/v2", uint8(2))
	f.Add("POST http://h.example:80/a HTTP/1.1\r\nHost: b\r\nConnection: x\r\nX: 1\r\n\r\n", "/", uint8(0))
	f.Add("OPTIONS https://h?q HTTP/1.0\r\n\r\n", "/long/path", uint8(200))
	f.Fuzz(func(t *testing.T, head, to string, cut uint8) {
		raw := []byte(head)
		var r, again Request
		if n, err := r.Parse(raw, nil); n == 0 || err != nil || !IsPath(to) || r.Form != OriginForm && r.Form != AbsoluteForm {
			return
		}
		rest := r.Path
		rest.Off = min(rest.Off+uint32(cut), rest.End)
		if c := rest.Of(raw); len(c) > 0 && !IsPath("/"+string(c)) {
			return // cut within an escape
		}
		out := append(r.AppendHeadAs(nil, raw, to, rest), "\r\n"...)
		if !r.HasHost {
			out = append(out[:len(out)-2], "Host: x\r\n\r\n"...)
		}
		n, err := again.Parse(out, nil)
		if err != nil || n != len(out) {
			t.Fatalf("%q became %q: %d, %v", head, out, n, err)
		}
		if got, want := string(again.Path.Of(out)), to+string(rest.Of(raw)); got != want {
			t.Errorf("path %q, want %q", got, want)
		}
		if string(again.Query.Of(out)) != string(r.Query.Of(raw)) || string(again.MethodSpan.Of(out)) != string(r.MethodSpan.Of(raw)) ||
			r.HasHost && string(again.Host.Of(out)) != string(r.Host.Of(raw)) {
			t.Errorf("%q became %q", head, out)
		}
		_, fields, _ := strings.Cut(string(r.AppendHead(nil, raw)), "\r\n")
		if _, got, _ := strings.Cut(string(r.AppendHeadAs(nil, raw, to, rest)), "\r\n"); got != fields {
			t.Errorf("fields %q, want %q", got, fields)
		}
	})
}
