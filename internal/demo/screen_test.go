package demo

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update and look at the change\n%s", path, got)
	}
}

func at(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }

func sampleEvents() []Event {
	list := []Event{
		{At: at(4), Kind: kindErrs, Instance: "api-2", Cause: "answers 500 to everything"},
		{At: at(4.005), Kind: kindRetryBurst, Instance: "api-2", Cause: "upstream_error", Count: 5},
		{At: at(4.018), Kind: kindEjected, Instance: "api-2", Cause: "consecutive_failures", For: "3.249s"},
		{At: at(7.334), Kind: kindProbation, Instance: "api-2", Cause: "consecutive_failures"},
		{At: at(7.35), Kind: kindRetryBurst, Instance: "api-2", Cause: "upstream_error", Count: 1},
		{At: at(7.355), Kind: kindEjected, Instance: "api-2", Cause: "probe_failed", For: "6.508s"},
		{At: at(9), Kind: kindRecovers, Instance: "api-2", Cause: "answers 200 again"},
		{At: at(12), Kind: kindKilled, Instance: "api-3", Cause: "SIGKILL to its sidecar 4712 and its application 4711"},
		{At: at(12.2), Kind: kindEjected, Instance: "api-3", Cause: "consecutive_failures", For: "3.49s"},
		{At: at(12.3), Kind: "breaker_open"},
		{At: at(12.4), Kind: kindRotated, Instance: "web"},
	}
	for i := range list {
		list[i].Seconds = list[i].At.Sub(began).Seconds()
	}
	return list
}

func sampleView() *view {
	return &view{
		Now: at(13), Began: began, Discovery: "file catalog",
		Recent:  figures{Requests: 2001, Failures: 1, Retries: 12, Seconds: 10, P50: 4351 * time.Microsecond, P99: 15359 * time.Microsecond},
		Total:   figures{Requests: 2600, Failures: 1, Retries: 12, Seconds: 13, P50: 4351 * time.Microsecond, P99: 150 * time.Millisecond},
		Breaker: "closed", Budget: 376.4, Ejections: 3,
		Clients: []string{"spiffe://demo.test/web"}, Servers: []string{"spiffe://demo.test/api"},
		WebAdmin: "127.0.0.1:20004", Events: sampleEvents(),
		Instances: []instance{
			{Name: "api-1", Address: "127.0.0.1:20011", Admin: "127.0.0.1:20012", State: "healthy", Health: "passing", Rate: 199.6},
			{Name: "api-2", Address: "127.0.0.1:20021", Admin: "127.0.0.1:20022", State: kindEjected, Health: "passing", Cause: "probe_failed", Until: at(13.86)},
			{
				Name: "api-3", Address: "127.0.0.1:20031", Admin: "127.0.0.1:20032", Condition: killed, State: kindEjected, Health: "passing",
				Cause: "consecutive_failures", Until: at(15.69), Failed: 2.4,
			},
		},
	}
}

func join(lines []string) string { return strings.Join(lines, "\n") + "\n" }

func TestRender(t *testing.T) {
	golden(t, "80x24.txt", join(sampleView().render(80, 24, false)))
	golden(t, "80x24.colour.txt", join(sampleView().render(80, 24, true)))

	v := sampleView()
	v.Duration, v.Discovery, v.NotSent, v.Breaker = 20*time.Second, "Consul http://127.0.0.1:8500", 17, "open"
	v.Instances[2].Health = "critical"
	golden(t, "120x36.txt", join(v.render(120, 36, false)))

	// At the very beginning nothing is known yet.
	v = &view{
		Now: began, Began: began, Discovery: "file catalog", WebAdmin: "127.0.0.1:20004",
		Instances: []instance{{Name: "api-1", Address: "127.0.0.1:20011", Admin: "127.0.0.1:20012"}},
	}
	golden(t, "beginning.txt", join(v.render(80, 24, false)))
}

func TestRenderFits(t *testing.T) {
	for width := 1; width < 130; width += 7 {
		for height := 1; height < 50; height += 6 {
			lines := sampleView().render(width, height, false)
			if len(lines) > height {
				t.Errorf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l); n > width {
					t.Errorf("%dx%d: %d columns: %q", width, height, n, l)
				}
			}
		}
	}
}

// Words of a process must not move the cursor.
func TestRenderIsPrintable(t *testing.T) {
	v := sampleView()
	v.Events = []Event{{At: at(1), Kind: kindLost, Instance: "api-1", Cause: "it said\x1b[2J\r\nboo\u0085"}}
	for _, l := range v.render(80, 24, false) {
		if strings.ContainsAny(l, "\x1b\r\n\u0085") {
			t.Errorf("%q", l)
		}
	}
	if f := frame([]string{"a", "b"}); f != "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J" {
		t.Errorf("frame %q", f)
	}
}

func TestSentence(t *testing.T) {
	in := func(c condition, state, health string, left float64) instance {
		return instance{Name: "api-2", Condition: c, State: state, Health: health, Until: at(10 + left)}
	}
	for _, c := range []struct {
		in   instance
		want string
	}{
		{in(works, "healthy", "passing", 0), "All 1 instances of api are well and share the traffic."},
		{in(erring, "healthy", "passing", 0), "api-2 now answers 500; failed requests are retried on another instance."},
		{in(erring, kindEjected, "passing", 2.1), "api-2 answers 500 and is ejected; one request probes it in 3 s."},
		{in(erring, kindEjected, "passing", -1), "api-2 answers 500 and is ejected; one request is about to probe it."},
		{in(erring, kindProbation, "passing", 0), "api-2 answers 500 and is on probation; one request is about to probe it."},
		{in(killed, "healthy", "passing", 0), "api-2 was killed; requests that meet it are retried on another instance."},
		{in(killed, kindEjected, "passing", 1), "api-2 is dead and ejected; one request probes it in 1 s."},
		{in(killed, kindProbation, "passing", 0), "api-2 is dead and on probation; one request is about to probe it."},
		{in(killed, kindEjected, "critical", 1), "api-2 is dead, and Consul lists it as critical."},
		{in(starting, kindEjected, "passing", 1), "api-2 is started again."},
		{in(works, kindEjected, "passing", 1), "api-2 is well again but still ejected; one request probes it in 1 s."},
		{in(works, kindProbation, "passing", 1), "api-2 is on probation; one request is about to probe it."},
		{in(works, "healthy", "critical", 1), "api-2 is up again; Consul does not list it as passing yet."},
	} {
		v := &view{Now: at(10), Instances: []instance{c.in}}
		if got := v.sentence(); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestPlainLines(t *testing.T) {
	v := sampleView()
	var b strings.Builder
	b.WriteString(v.heading() + "\n" + v.statusLine() + "\n")
	for i := range v.Events {
		b.WriteString(v.Events[i].line() + "\n")
	}
	lost := Event{At: at(14), Seconds: 14, Kind: kindLost, Instance: "api-1", Cause: "ended"}
	restarted := Event{At: at(24), Seconds: 24, Kind: kindRestarted, Instance: "api-3"}
	back := Event{At: at(28), Seconds: 28, Kind: kindReadmitted, Endpoint: "127.0.0.1:9", Cause: "probe_passed"}
	b.WriteString(lost.line() + "\n" + restarted.line() + "\n" + back.line() + "\n")
	golden(t, "plain.txt", b.String())
}

func TestPercentNeverRoundsUp(t *testing.T) {
	for _, c := range []struct {
		requests, failures uint64
		want               string
	}{{0, 0, "100.00%"}, {1e6, 0, "100.00%"}, {1e6, 1, "99.99%"}, {1000, 1, "99.90%"}, {3, 3, "0.00%"}} {
		if got := percent(figures{Requests: c.requests, Failures: c.failures}); got != c.want {
			t.Errorf("%d of %d: %s, want %s", c.failures, c.requests, got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		s     string
		width int
		want  string
	}{
		{"one two three", 20, "one two three|"},
		{"one two three", 7, "one two|three"},
		{"one two three four", 7, "one two|three …"},
		{"", 7, "|"},
	} {
		if got := strings.Join(wrap(c.s, c.width, 2), "|"); got != c.want {
			t.Errorf("%q in %d: %q, want %q", c.s, c.width, got, c.want)
		}
	}
}
