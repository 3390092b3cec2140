package main

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/bench/load"
)

func TestParseTraces(t *testing.T) {
	const text = `File: outrigger
Type: cpu
Duration: 3.10s, Total samples = 2.65s (85.48%)
-----------+-------------------------------------------------------
       key:  [value]
     20000us   internal/runtime/syscall/linux.Syscall6
               syscall.RawSyscall6 (inline)
               example.org/x.(*T[go.shape.int]).read
-----------+-------------------------------------------------------
     10000us   runtime.futex
-----------+-------------------------------------------------------
`
	got, err := parseTraces([]byte(text))
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].CPUMS != 20 || !slices.Equal(got[0].Functions, []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "example.org/x.(*T[go.shape.int]).read"}) {
		t.Errorf("%+v", got[0])
	}
	if got[1].CPUMS != 10 || !slices.Equal(got[1].Functions, []string{"runtime.futex"}) {
		t.Errorf("%+v", got[1])
	}
	if got, err := parseTraces(nil); err != nil || got != nil {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	for _, bad := range []string{"-----+-----\nfunction only\n", "-----+-----\n 5parsecs f\n"} {
		if _, err := parseTraces([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestProfile takes the profile of a server that has Go's profiler: this
// process, which makes the load as well.
func TestProfile(t *testing.T) {
	if testing.Short() {
		t.Skip("samples for a second")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), 100)) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(ln)
	defer server.Close()
	at := netip.MustParseAddrPort(ln.Addr().String())
	var log bytes.Buffer
	r := &runner{o: &options{profile: true, seconds: 0.1}, log: &log, dir: t.TempDir()}
	beds := []*bed{{name: "a", entry: at}, {name: "b", entry: at, admins: []netip.AddrPort{at}, profiled: true}}
	r.profile(t.Context(), "h1-plain", level{4, 1}, beds, load.Config{Connections: 4})
	if len(r.report.Profiles) != 1 {
		t.Fatalf("log: %s", log.String())
	}
	p := r.report.Profiles[0]
	if p.Scenario != "h1-plain" || p.Connections != 4 || p.CPUMS <= 0 || len(p.Parts) == 0 || len(p.Functions) == 0 {
		t.Errorf("%+v", p)
	}
	// Without a profiler the run goes on.
	beds[1].admins = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	r.profile(t.Context(), "h2", level{4, 1}, beds, load.Config{Connections: 1})
	if len(r.report.Profiles) != 1 || r.failed || !strings.Contains(log.String(), "no profile of h2") {
		t.Errorf("%d profiles, log: %s", len(r.report.Profiles), log.String())
	}
}

func TestProfileLevel(t *testing.T) {
	o := &options{connections: []int{1, 16, 64, 256}}
	for scenario, want := range map[string]level{"h1-plain": {64, 1}, "grpc-unary": {8, 8}, "tcp": {16, 1}} {
		if got := o.courses(scenario)[0].profileLevel(); got != want {
			t.Errorf("%s: %v", scenario, got)
		}
	}
	o.connections = []int{256}
	if got := o.courses("mesh-hop")[0].profileLevel(); got != (level{256, 1}) {
		t.Errorf("only 256: %v", got)
	}
}

// TestFailedScenarioIsLeftOut gives one scenario an origin that cannot start:
// the others are measured.
func TestFailedScenarioIsLeftOut(t *testing.T) {
	out := t.TempDir()
	o, err := parseOptions([]string{"-subjects", "reverseproxy", "-scenarios", "h1-plain,websocket", "-connections", "1", "-slices", "1", "-seconds", "0.05", "-out", out}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	o.size = 1 << 25 // more than the origin serves
	var log bytes.Buffer
	if err := runBench(t.Context(), o, &log); !errors.Is(err, errFailed) {
		t.Fatalf("%v", err)
	}
	onlyThisProcess(t)
	if !strings.Contains(log.String(), "h1-plain is left out: origin") || !strings.Contains(log.String(), "| 64 | reverseproxy |") {
		t.Fatalf("log:\n%s", log.String())
	}
}
