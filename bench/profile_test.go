package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/report"
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
     bytes:  [4kB]
         0   runtime.main
-----------+-------------------------------------------------------
`
	got, err := parseTraces([]byte(text), "us", 1000)
	if err != nil || len(got) != 3 || got[2].Value != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Value != 20 || !slices.Equal(got[0].Functions, []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "example.org/x.(*T[go.shape.int]).read"}) {
		t.Errorf("%+v", got[0])
	}
	if got[1].Value != 10 || !slices.Equal(got[1].Functions, []string{"runtime.futex"}) {
		t.Errorf("%+v", got[1])
	}
	if got, err := parseTraces(nil, "us", 1); err != nil || got != nil {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	for _, bad := range []string{"-----+-----\nfunction only\n", "-----+-----\n 5parsecs f\n"} {
		if _, err := parseTraces([]byte(bad), "us", 1); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseHeap(t *testing.T) {
	const text = "heap profile: 1: 2 [3: 4] @ heap/1048576\n0: 0 [1: 8] @ 0x1\n\n# runtime.MemStats\n# HeapAlloc = 3000\n# HeapSys = 9000\n# HeapReleased = 1000\n# Stack = 500 / 600\n# MSpan = 7 / 16\n# PauseNs = [1 2]\n# GCSys = 20\n"
	got, err := parseHeap([]byte(text))
	if want := (report.Heap{Stacks: 500, Objects: 3000, Free: 5000, Runtime: 27}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseHeap([]byte("# HeapAlloc = 1\n")); err == nil {
		t.Error("half of the accounting was taken")
	}
}

// TestMemoryProfile reads this process's own heap.
func TestMemoryProfile(t *testing.T) {
	if testing.Short() {
		t.Skip("runs go tool pprof")
	}
	kept := make([]byte, 8<<20)
	server := httptest.NewServer(http.HandlerFunc(pprof.Index))
	defer server.Close()
	r := &runner{o: &options{profile: true}, log: io.Discard, dir: t.TempDir()}
	b := &bed{admins: []netip.AddrPort{netip.MustParseAddrPort(server.Listener.Addr().String())}}
	heap, live, err := r.memory(t.Context(), b, true)
	if err != nil {
		t.Fatal(err)
	}
	if heap.Objects < uint64(len(kept)) || heap.Stacks == 0 || heap.Runtime == 0 {
		t.Errorf("%+v", heap)
	}
	m := report.NewMemory(report.Idle, 1024, report.Heap{}, heap, live)
	if len(m.Functions) == 0 || !strings.HasSuffix(m.Functions[0].Name, "TestMemoryProfile") || m.Functions[0].KB < 8 {
		t.Errorf("%+v", m.Functions)
	}
	runtime.KeepAlive(kept)
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
