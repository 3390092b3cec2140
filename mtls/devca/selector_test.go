package devca

import (
	"os"
	"testing"
)

func TestParseSelector(t *testing.T) {
	for in, want := range map[string]Selector{
		"unix:uid:0":              UID(0),
		"unix:uid:4294967295":     UID(4294967295),
		"unix:gid:1000":           GID(1000),
		"unix:pid:4711":           PID(4711),
		"unix:path:/usr/bin/a:b ": Exe("/usr/bin/a:b "),
	} {
		got, err := ParseSelector(in)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v", in, got, err)
		}
		if got.String() != in {
			t.Errorf("%q is written %q", in, got)
		}
		var text Selector
		b, _ := got.MarshalText()
		if err := text.UnmarshalText(b); err != nil || text != got {
			t.Errorf("%q: text round trip gives %+v, %v", in, text, err)
		}
	}
	for _, in := range []string{
		"", "unix", "unix:", "unix:uid", "unix:uid:", "unix:uid:-1", "unix:uid:x", "unix:uid:4294967296", "unix:pid:0",
		"unix:pid:99999999", "unix:path:bin/x", "unix:sha256:ab", "k8s:ns:default", "uid:0",
	} {
		if got, err := ParseSelector(in); err == nil {
			t.Errorf("%q: accepted as %+v", in, got)
		}
	}
}

func TestSelectorMatches(t *testing.T) {
	pid := os.Getpid()
	started, err := processStart(int32(pid))
	if err != nil {
		t.Fatal(err)
	}
	me := caller{pid: int32(pid), uid: 10, gid: 20, exe: "/bin/x", started: started}
	own, err := PID(pid).bind()
	if err != nil {
		t.Fatal(err)
	}
	successor := me
	successor.started++
	unknown := me
	unknown.started, unknown.exe = 0, ""
	for _, c := range []struct {
		name string
		sel  Selector
		who  caller
		want bool
	}{
		{"uid", UID(10), me, true},
		{"other uid", UID(20), me, false},
		{"gid", GID(20), me, true},
		{"other gid", GID(10), me, false},
		{"exe", Exe("/bin/x"), me, true},
		{"other exe", Exe("/bin/xy"), me, false},
		{"exe unknown", Exe(""), unknown, false},
		{"pid", own, me, true},
		{"same number, later process", own, successor, false},
		{"pid, start unknown", own, unknown, false},
		{"pid that was never bound", PID(pid), me, false},
		{"pid never bound, start unknown", PID(pid), unknown, false},
		{"empty", Selector{}, me, false},
	} {
		if got := c.sel.matches(c.who); got != c.want {
			t.Errorf("%s: got %t", c.name, got)
		}
	}
	if own.dead() || UID(0).dead() {
		t.Error("a living selector passes for dead")
	}
	own.started++
	if !own.dead() {
		t.Error("the selector of an ended process passes for living")
	}
	if _, err := (Selector{}).bind(); err == nil {
		t.Error("an empty selector was bound")
	}
}
