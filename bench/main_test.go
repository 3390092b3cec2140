package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/origin"
	"github.com/outrigger-mesh/outrigger/bench/peers"
	"github.com/outrigger-mesh/outrigger/bench/procstat"
	"github.com/outrigger-mesh/outrigger/bench/report"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// TestMain lets this test binary stand in for the bench program: the runner
// starts itself again as origin and as reverse proxy.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "origin" || os.Args[1] == "reverseproxy") {
		main()
		os.Exit(0)
	}
	testkit.VerifyNoLeaks(m)
}

// onlyThisProcess fails when the runner left a child behind.
func onlyThisProcess(t *testing.T) {
	t.Helper()
	tree, err := procstat.Tree(os.Getpid())
	if err != nil || !slices.Equal(tree, []int{os.Getpid()}) {
		t.Errorf("processes left: %v, %v", tree, err)
	}
}

// TestRunEndToEnd runs all scenarios with the reverse proxy, as short as they go.
func TestRunEndToEnd(t *testing.T) {
	out := t.TempDir()
	page := filepath.Join(out, "docs", "BENCHMARKS.md")
	prose := "# Benchmarks\n\nprose before\n\n<!-- bench:begin (generated, do not edit) -->\n<!-- bench:end -->\n\nprose after\n"
	if err := report.WriteFile(page, []byte(prose)); err != nil {
		t.Fatal(err)
	}
	o, err := parseOptions([]string{"-quick", "-subjects", "reverseproxy", "-connections", "2", "-slices", "1", "-seconds", "0.1", "-idle", "20", "-rate", "50", "-out", out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := runBench(t.Context(), o, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	onlyThisProcess(t)
	text, err := os.ReadFile(filepath.Join(out, "bench", "results", "latest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got report.Report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, row := range got.Rows {
		seen[row.Scenario+" "+row.Subject] = true
		if row.Errors > 0 || row.Requests == 0 {
			t.Errorf("%+v", row)
		}
		if (row.Scenario == report.H1Plain || row.Scenario == report.MeshHop) && (row.CPU <= 0 || row.CPU < row.CPUMin || row.P99 < row.P50) {
			t.Errorf("%+v", row)
		}
	}
	for _, want := range []string{
		"h1-plain reverseproxy", "mesh-hop reverseproxy", "latency direct", "latency reverseproxy", "idle reverseproxy", "handshake reverseproxy",
		"mesh-grpc reverseproxy", "h2 reverseproxy", "grpc-unary reverseproxy", "grpc-stream reverseproxy", "websocket reverseproxy", "body-100k reverseproxy", "body-10m reverseproxy", "endpoints-1000 reverseproxy",
	} {
		if !seen[want] {
			t.Errorf("no row %s", want)
		}
	}
	md, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(md), "prose before") || !strings.Contains(string(md), "prose after") || !strings.Contains(string(md), "| reverseproxy |") {
		t.Errorf("page: %v\n%s", err, md)
	}
	if svg, err := os.ReadFile(filepath.Join(out, "docs", "benchmarks-http1.svg")); err != nil || !bytes.Contains(svg, []byte("reverseproxy")) {
		t.Errorf("chart: %v", err)
	}
}

// TestInterrupt ends a run in its middle: nothing is written, nothing is left.
func TestInterrupt(t *testing.T) {
	out := t.TempDir()
	o, err := parseOptions([]string{"-subjects", "reverseproxy", "-scenarios", "h1-plain", "-seconds", "4", "-out", out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	log := &watch{text: "\nh1-plain\n", seen: cancel}
	if err := runBench(ctx, o, log); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	onlyThisProcess(t)
	if entries, err := os.ReadDir(out); err != nil || len(entries) > 0 {
		t.Errorf("written: %v, %v", entries, err)
	}
}

// watch calls seen when text is written.
type watch struct {
	text string
	seen func()
}

func (w *watch) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.seen()
	}
	return len(p), nil
}

// TestTimeLimit writes what there is when the time is over.
func TestTimeLimit(t *testing.T) {
	out := t.TempDir()
	o, err := parseOptions([]string{"-subjects", "reverseproxy", "-scenarios", "h1-plain", "-seconds", "4", "-limit", "3s", "-out", out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := runBench(t.Context(), o, io.Discard); !errors.Is(err, errFailed) {
		t.Fatalf("%v", err)
	}
	onlyThisProcess(t)
	text, err := os.ReadFile(filepath.Join(out, "bench", "results", "latest.json"))
	if err != nil || !bytes.Contains(text, []byte("time limit")) {
		t.Fatalf("%s, %v", text, err)
	}
}

// TestBrokenSubject gives Outrigger a program that ends at once: it is told
// and left out, and the others are measured.
func TestBrokenSubject(t *testing.T) {
	out := t.TempDir()
	script := filepath.Join(out, "broken")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = version ] && echo outrigger 0 && exit 0\necho no such luck >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o, err := parseOptions([]string{"-subjects", "outrigger,reverseproxy", "-outrigger", script, "-scenarios", "h1-plain", "-connections", "1", "-slices", "1", "-seconds", "0.05", "-out", out}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := runBench(t.Context(), o, &log); !errors.Is(err, errFailed) {
		t.Fatalf("%v", err)
	}
	onlyThisProcess(t)
	if !strings.Contains(log.String(), "no such luck") || !strings.Contains(log.String(), "outrigger is left out of h1-plain") || !strings.Contains(log.String(), "| reverseproxy |") {
		t.Fatalf("log:\n%s", log.String())
	}
}

func TestMissingPeerNamesItsPackage(t *testing.T) {
	t.Setenv("PATH", "")
	d := &debian{label: "no-such-proxy", pkg: "some-package"}
	_, err := d.prepare(t.Context(), "")
	if !errors.Is(err, errMissing) || !strings.Contains(err.Error(), "apt-get install some-package") {
		t.Fatal(err)
	}
}

// TestPeersTakeTheirConfigs asks the installed peers to check what the
// templates make.
func TestPeersTakeTheirConfigs(t *testing.T) {
	all, err := makeCerts(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o, err := parseOptions(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cached := func(name string) string {
		for _, s := range allSubjects(o, t.Logf) {
			if f, ok := s.(*fetched); ok && f.label == name {
				f.offline = true
				if _, err := f.prepare(t.Context(), t.TempDir()); err == nil {
					return f.bin
				}
			}
		}
		return ""
	}
	for _, peer := range []struct {
		name    string
		carries string
		check   func(bin, dir, conf string) []string
	}{
		{"nginx", nginxCarries(), func(bin, dir, conf string) []string { return []string{bin, "-t", "-p", dir, "-c", conf} }},
		{"haproxy", everything, func(bin, _, conf string) []string { return []string{bin, "-c", "-f", conf} }},
		{"envoy", everything, func(bin, _, conf string) []string {
			return []string{bin, "--mode", "validate", "-l", "error", "-c", conf + ".yaml"}
		}},
		{"caddy", noTCP, func(bin, _, conf string) []string {
			return []string{bin, "validate", "--config", conf, "--adapter", "caddyfile"}
		}},
	} {
		bin := findProgram(peer.name)
		if bin == "" {
			bin = cached(peer.name)
		}
		if bin == "" {
			t.Logf("%s is not installed: its configurations are not checked", peer.name)
			continue
		}
		var variants []peers.Params
		for _, role := range []peers.Role{peers.Plain, peers.Outbound, peers.Inbound} {
			variants = append(variants, peers.Params{Role: role, Protocol: peers.HTTP}, peers.Params{Role: role, Protocol: peers.HTTP, AccessLog: true})
			if peer.name == "haproxy" || peer.name == "envoy" {
				variants = append(variants, peers.Params{Role: role, Protocol: peers.HTTP, HopH2: true})
			}
		}
		for _, protocol := range strings.Fields(peer.carries) {
			variants = append(variants, peers.Params{Role: peers.Plain, Protocol: peers.Protocol(protocol)})
			if protocol != string(peers.HTTP2) { // no scenario has it between sidecars
				variants = append(variants, peers.Params{Role: peers.Outbound, Protocol: peers.Protocol(protocol)}, peers.Params{Role: peers.Inbound, Protocol: peers.Protocol(protocol)})
			}
		}
		var given ports
		for _, p := range variants {
			p.Dir, p.Certs, p.Cores, p.Upstreams = t.TempDir(), all.web, 2, make([]netip.AddrPort, 2)
			for _, a := range []*netip.AddrPort{&p.Listen, &p.Upstreams[0], &p.Upstreams[1], &p.Admin} {
				port, err := given.free()
				if err != nil {
					t.Fatal(err)
				}
				*a = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
			}
			conf, err := writeConfig(p, peer.name, "conf")
			if err != nil {
				t.Fatal(err)
			}
			if peer.name == "envoy" { // it goes by the suffix
				if err := os.Rename(conf, conf+".yaml"); err != nil {
					t.Fatal(err)
				}
			}
			argv := peer.check(bin, p.Dir, conf)
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("[WARNING]")) {
				t.Errorf("%s as %s with %s: %v\n%s", peer.name, p.Role, p.Protocol, err, out)
			}
		}
	}
}

// TestReverseProxyFeatures looks at what arrives behind the pair of sidecars.
func TestReverseProxyFeatures(t *testing.T) {
	all, err := makeCerts(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	heads := make(chan http.Header, 1)
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heads <- r.Header
		io.WriteString(w, "ok")
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go app.Serve(ln)
	defer app.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	upstream := netip.MustParseAddrPort(ln.Addr().String())
	var logs []string
	var given ports
	for _, p := range []peers.Params{{Role: peers.Inbound, Certs: all.origin}, {Role: peers.Outbound, Certs: all.web}} {
		p.Dir, p.AccessLog, p.Protocol, p.Upstreams = t.TempDir(), true, peers.HTTP, []netip.AddrPort{upstream}
		logs = append(logs, filepath.Join(p.Dir, "access.log"))
		for _, a := range []*netip.AddrPort{&p.Listen, &p.Admin} {
			port, err := given.free()
			if err != nil {
				t.Fatal(err)
			}
			*a = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
		}
		upstream = p.Listen
		go func() { ended <- serveReverseProxy(ctx, p) }()
		if err := awaitAdmin(t.Context(), "http://"+p.Admin.String()+"/metrics", func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequest("GET", "http://"+upstream.String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-Client-Cert", "URI=spiffe://evil.test/web")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("status %s", resp.Status)
	}
	h := <-heads
	if got := h.Get("X-Forwarded-Client-Cert"); got != "URI=spiffe://bench.test/web" {
		t.Errorf("client certificate %q", got)
	}
	if len(h.Get("X-Request-Id")) != 32 || h.Get("X-Forwarded-For") != "127.0.0.1, 127.0.0.1" || h.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("header %v", h)
	}
	cancel()
	for range logs {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, path := range logs {
		var record struct{ Status int }
		text, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(text, &record) != nil || record.Status != 200 {
			t.Errorf("access log %q, %v", text, err)
		}
	}
}

func TestCerts(t *testing.T) {
	all, err := makeCerts(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []peers.Certs{all.web, all.origin} {
		cfg, err := tlsConfig(c)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() == c.PeerID || leaf.IsCA {
			t.Errorf("URIs %v, CA %v", leaf.URIs, leaf.IsCA)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: cfg.RootCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Error(err)
		}
		pair, err := os.ReadFile(c.Pair)
		if err != nil {
			t.Fatal(err)
		}
		first, rest := pem.Decode(pair)
		second, _ := pem.Decode(rest)
		if first.Type != "CERTIFICATE" || second.Type != "PRIVATE KEY" {
			t.Errorf("pair of %s and %s", first.Type, second.Type)
		}
		if info, err := os.Stat(c.Key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key: %v, %v", info.Mode(), err)
		}
	}
	if _, err := tlsConfig(peers.Certs{Cert: "/nowhere"}); err == nil {
		t.Error("no error without files")
	}
	broken := all.web
	broken.Bundle = broken.Key
	if _, err := tlsConfig(broken); err == nil {
		t.Error("a bundle without a certificate was taken")
	}
}

func TestChooseCores(t *testing.T) {
	tests := []struct {
		allowed             []int
		proxy, load         int
		wantProxy, wantLoad int
		ok                  bool
	}{
		{[]int{0, 1}, -1, -1, 1, 0, true},
		{[]int{3, 5, 9}, -1, -1, 9, 3, true},
		{[]int{0}, -1, -1, -1, -1, true},
		{[]int{0, 1}, 0, -1, 0, 1, true},
		{[]int{0, 1}, -1, 1, 0, 1, true},
		{[]int{0, 1, 2, 3}, 2, 2, 2, 2, true}, // asked for: both on one core
		{[]int{0, 1}, 7, -1, 0, 0, false},
		{[]int{0, 1}, -1, 7, 0, 0, false},
	}
	for _, tt := range tests {
		p, l, err := chooseCores(tt.allowed, tt.proxy, tt.load)
		if (err == nil) != tt.ok || p != tt.wantProxy || l != tt.wantLoad {
			t.Errorf("%+v: got %d, %d, %v", tt, p, l, err)
		}
	}
}

func TestOptions(t *testing.T) {
	full, err := parseOptions(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := parseOptions([]string{"--quick", "--slices", "9"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(full.connections, []int{1, 16, 64, 256}) || full.slices != 5 || full.form() != "full" || len(full.scenarios) != len(scenarioNames) || len(full.subjects) != 0 {
		t.Errorf("%+v", full)
	}
	if !slices.Equal(quick.connections, []int{16, 64}) || quick.slices != 9 || quick.seconds != 0.4 || quick.limit != 5*time.Minute || len(quick.subjects) != len(quickSubjects) || len(quick.scenarios) != len(scenarioNames)-len(fullOnly) || !full.profile || quick.profile {
		t.Errorf("%+v", quick)
	}
	for want, args := range map[string][]string{
		"no scenario":      {"-scenarios", "h1-plain,h9"},
		"not a number":     {"-connections", "0"},
		"-slices":          {"-slices", "0"},
		"-seconds":         {"-seconds", "NaN"},
		"-idle":            {"-idle", "-1"},
		"unknown argument": {"quick"},
		"provided but not": {"-no-such-flag"},
	} {
		if _, err := parseOptions(args, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := parseOptions([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: %v", err)
	}
}

func TestMachine(t *testing.T) {
	m := describeMachine(time.Now())
	if m.CPU == "" || m.Cores < 1 || m.MemoryMB < 1 || m.Kernel == "" {
		t.Errorf("%+v", m)
	}
	if got := procField([]byte("a: b\nmodel name\t: X: Y\n"), "model name"); got != "X: Y" {
		t.Errorf("%q", got)
	}
	from, err := parseTicks([]byte("cpu  100 0 100 700 0 0 0 100 50 0\ncpu0 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := parseTicks([]byte("cpu 150 0 150 800 0 0 0 150 50 0"))
	if err != nil {
		t.Fatal(err)
	}
	if got := stealPercent(from, to); got != 20 {
		t.Errorf("steal %v %%", got)
	}
	// 100 ticks are a second, of which this program used three quarters; 250 passed.
	to.own = from.own + 750*time.Millisecond
	if got := foreignPercent(from, to); got != 10 {
		t.Errorf("foreign %v %%", got)
	}
	if to.own += time.Hour; foreignPercent(from, to) != 0 || foreignPercent(to, from) != 0 {
		t.Error("foreign time below zero, or over no time")
	}
	if now, err := readTicks(); err != nil || now.own <= 0 || now.busy == 0 || now.busy >= now.all {
		t.Errorf("%+v, %v", now, err)
	}
	if stealPercent(to, from) != 0 || stealPercent(to, to) != 0 {
		t.Error("steal over no time")
	}
	for _, bad := range []string{"", "cpu 1 2", "cpux 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 -8"} {
		if _, err := parseTicks([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := readTicks(); err != nil {
		t.Error(err)
	}
}

// TestSliceOfDeadSubject counts a subject that takes no connection as an error in each slice.
func TestSliceOfDeadSubject(t *testing.T) {
	port, err := new(ports).free()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{name: "dead", entry: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))}
	r := &runner{o: &options{slices: 2, seconds: 0.05}, log: io.Discard}
	got, err := r.rounds(t.Context(), []*bed{b}, r.o.sliceTime(), func(*bed) load.Config { return load.Config{Connections: 1} })
	if err != nil || len(got[0]) != 2 || got[0][0].Errors != 1 || !strings.Contains(got[0][1].FirstError, "refused") {
		t.Fatalf("%+v, %v", got, err)
	}
}

// TestRoundsTakeTurns holds that each round begins with another subject, after
// one that is not measured.
func TestRoundsTakeTurns(t *testing.T) {
	s, err := origin.Listen(origin.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Kind: origin.HTTP1, Size: 10})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	r := &runner{o: &options{slices: 3, seconds: 0.02}, log: io.Discard}
	beds := []*bed{{name: "a", entry: s.Addr()}, {name: "b", entry: s.Addr()}, {name: "c", entry: s.Addr()}}
	var order []string
	got, err := r.rounds(ctx, beds, r.o.sliceTime(), func(b *bed) load.Config {
		order = append(order, b.name)
		return load.Config{Connections: 1}
	})
	cancel()
	if e := <-ended; e != nil || err != nil {
		t.Fatal(err, e)
	}
	if strings.Join(order, "") != "abc"+"abcbcacab" || len(got[2]) != 3 || got[2][1].Round != 1 {
		t.Fatalf("order %v, samples %+v", order, got)
	}
}

func TestTLSConfigDemandsTLS13(t *testing.T) {
	all, err := makeCerts(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := tlsConfig(all.web)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.MinVersion != tls.VersionTLS13 || cfg.ClientAuth != tls.RequireAndVerifyClientCert || cfg.InsecureSkipVerify {
		t.Fatalf("%+v", cfg)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 5000)+"end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path); len(got) != 2000 || !strings.HasSuffix(got, "end") {
		t.Fatalf("%d bytes", len(got))
	}
}
