package proxy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/telemetry"
)

// A reload moves the access log, and one that cannot leaves it where it is.
func TestApplyAccessLog(t *testing.T) {
	dir := t.TempDir()
	text := upstreams(t)
	with := func(path string) string {
		return strings.Replace(text, `access_log: {path: "off"}`, `access_log: {path: "`+path+`"}`, 1)
	}
	r := run(t, text)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write := func(name string) {
		if r.access.Takes(true) {
			r.access.Write(&telemetry.Record{Listener: name})
		}
	}
	write("nobody asked")
	for _, path := range []string{a, b} {
		if err := r.Apply(r.same(t, with(path))); err != nil {
			t.Fatal(err)
		}
		write("to " + filepath.Base(path))
	}
	err := r.Apply(r.same(t, with(filepath.Join(dir, "none", "c"))))
	if err == nil || !strings.Contains(err.Error(), "telemetry.access_log.path: access log: cannot open the file") {
		t.Errorf("a file that cannot be: %v", err)
	}
	write("still to b")
	some := r.same(t, with(b))
	some.Config.Telemetry.AccessLog.SamplePercent = 0
	if err := r.Apply(some); err != nil {
		t.Fatal(err)
	}
	write("left out")
	r.stop()
	if err := <-r.end; err != nil {
		t.Error(err)
	}
	for path, want := range map[string][]string{a: {"to a"}, b: {"to b", "still to b"}} {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range want {
			if !strings.Contains(string(got), `"listener":"`+name+`"`) {
				t.Errorf("%s has no record %q: %s", path, name, got)
			}
		}
		if strings.Count(string(got), "\n") != len(want) {
			t.Errorf("%s has other records, too: %s", path, got)
		}
	}
}
