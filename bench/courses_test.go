package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/bench/report"
)

// TestCourses lists what each form measures, and who takes part.
func TestCourses(t *testing.T) {
	full, err := parseOptions(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := parseOptions([]string{"-quick"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	names := func(o *options) string {
		var list []string
		for _, s := range o.scenarios {
			for _, c := range o.courses(s) {
				for _, l := range c.levels {
					list = append(list, c.name+":"+l.String())
				}
			}
		}
		return strings.Join(list, " ")
	}
	if got, want := names(quick), "h1-plain:16 h1-plain:64 mesh-hop:16 mesh-hop:64 h2:1 h2:8x8 grpc-unary:1 grpc-unary:8x8 grpc-stream:8x8 "+
		"websocket:64 tcp:16 mesh-grpc:1 mesh-grpc:8x8 body-100k:16 body-10m:16 endpoints-1000:64 guards-h1:64 guards-grpc:8x8"; got != want {
		t.Errorf("quick: %s", got)
	}
	for _, want := range []string{"body-1k:16", "mesh-tcp:16", "tcp:1", "endpoints-10:64", "endpoints-10000:64", "h1-plain-cores-2:64", "h1-plain:256"} {
		if !strings.Contains(names(full), want) {
			t.Errorf("full lacks %s", want)
		}
	}
	takers := func(scenario string) string {
		var list []string
		for _, s := range allSubjects(full, t.Logf) {
			if s.takes(full.courses(scenario)[0]) == nil {
				list = append(list, s.name())
			}
		}
		return strings.Join(list, " ")
	}
	for scenario, want := range map[string]string{
		report.H1Plain:  "outrigger haproxy nginx envoy nghttpx caddy traefik reverseproxy",
		report.MeshHop:  "outrigger haproxy haproxy-h2 nginx envoy envoy-h2 nghttpx caddy traefik reverseproxy",
		report.MeshGRPC: "outrigger haproxy-h2 nginx envoy nghttpx caddy traefik reverseproxy",
		guards:          "outrigger outrigger-bare",
		report.H2:       "outrigger haproxy envoy nghttpx caddy traefik reverseproxy",
	} {
		if got := takers(scenario); got != want {
			t.Errorf("%s: %s", scenario, got)
		}
	}
	for _, s := range allSubjects(full, t.Logf) {
		err := s.takes(full.courses(report.H2)[0])
		if s.name() == "nginx" && !errors.Is(err, errNotOffered) || s.name() == "haproxy-h2" && !errors.Is(err, errElsewhere) {
			t.Errorf("%s: %v", s.name(), err)
		}
	}
	if got := takers(report.MeshTCP); !strings.HasPrefix(got, "outrigger haproxy") || strings.Contains(got, "-h2") {
		t.Errorf("mesh-tcp: %s", got)
	}
	if got := takers(report.TCP); !strings.HasPrefix(got, "outrigger haproxy") || strings.Contains(got, "nghttpx") {
		t.Errorf("tcp: %s", got)
	}
}

func TestUpstreams(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:9000")
	if got := upstreams(at, 1); len(got) != 1 || got[0] != at {
		t.Errorf("%v", got)
	}
	seen := make(map[netip.AddrPort]bool)
	for _, a := range upstreams(at, 10_000) {
		if !a.Addr().IsLoopback() || a.Port() != 9000 || a == at {
			t.Fatal(a)
		}
		seen[a] = true
	}
	if len(seen) != 10_000 {
		t.Errorf("%d different addresses", len(seen))
	}
}

func TestProxyCores(t *testing.T) {
	for _, tt := range []struct {
		allowed     []int
		proxy, load int
		n           int
		want        []int
	}{
		{[]int{0, 1}, 1, 0, 1, []int{1}},
		{[]int{0, 1}, 1, 0, 2, []int{1, 0}},
		{[]int{0, 1, 2, 3}, 3, 0, 2, []int{3, 2}},
		{[]int{0}, -1, -1, 2, []int{-1}},
	} {
		r := &runner{allowed: tt.allowed, proxyCore: tt.proxy, loadCore: tt.load}
		if got := r.proxyCores(tt.n); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// TestFetchOnce holds that a program is fetched into the cache when it is
// missing, that a failed try leaves nothing, and that offline stays offline.
func TestFetchOnce(t *testing.T) {
	calls := 0
	broken := errors.New("no network")
	f := &fetched{label: "tool-h2", version: "1.2", cache: filepath.Join(t.TempDir(), "cache"), versions: []string{"version"}, say: t.Logf}
	f.fetch = func(_ context.Context, f *fetched, dir, to string) error {
		calls++
		if err := os.WriteFile(to, []byte("#!/bin/sh\necho tool 1.2\n"), 0o755); err != nil {
			return err
		}
		if calls == 1 {
			return broken
		}
		return nil
	}
	if _, err := f.prepare(t.Context(), t.TempDir()); !errors.Is(err, broken) || !errors.Is(err, errMissing) {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(f.cache); err != nil || len(entries) != 0 {
		t.Fatalf("left over: %v, %v", entries, err)
	}
	f.offline = true
	if _, err := f.prepare(t.Context(), t.TempDir()); !errors.Is(err, errMissing) || calls != 1 {
		t.Fatalf("%v after %d calls", err, calls)
	}
	f.offline = false
	for range 2 {
		if v, err := f.prepare(t.Context(), t.TempDir()); err != nil || v != "tool 1.2" || calls != 2 {
			t.Fatalf("%q, %v after %d calls", v, err, calls)
		}
	}
	if err := os.WriteFile(f.bin, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := f.prepare(t.Context(), t.TempDir()); !errors.Is(err, errMissing) {
		t.Fatalf("a program that does not run: %v", err)
	}
}

func TestExtract(t *testing.T) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	f, err := w.Create("tool/_bin/tool")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("program")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "tool")
	if err := extract(archive, "/_bin/tool", to); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "program" {
		t.Fatalf("%q, %v", text, err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode()&0o100 == 0 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if err := extract(archive, "/_bin/other", to); err == nil {
		t.Fatal("a file that is not there was found")
	}
}

// TestUnknownProtocolIsNoFailure gives Outrigger a program that refuses a
// protocol: it has no row, and the run has not failed.
func TestUnknownProtocolIsNoFailure(t *testing.T) {
	out := t.TempDir()
	script := filepath.Join(out, "old")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = version ] && echo outrigger 0 && exit 0\necho 'outrigger.yaml:5:1: protocol: must be http or tcp' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o, err := parseOptions([]string{"-subjects", "outrigger,reverseproxy", "-outrigger", script, "-scenarios", "h2", "-slices", "1", "-seconds", "0.05", "-out", out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := runBench(t.Context(), o, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	onlyThisProcess(t)
	if !strings.Contains(log.String(), "outrigger is left out of h2") || !strings.Contains(log.String(), "must be http or tcp") || !strings.Contains(log.String(), "| 8 × 8 | reverseproxy |") {
		t.Fatalf("log:\n%s", log.String())
	}
}
