package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run with -update and look at the difference. Got:\n%s", path, got)
	}
}

// sample is slice number i of a subject with the given CPU time.
func sample(i int, cpu float64) Sample {
	return Sample{Round: i, CPU: cpu, Busy: 90, P50: 10 * cpu, P99: 30 * cpu, P999: 50 * cpu, Requests: 1000}
}

func samples(cpu ...float64) []Sample {
	var list []Sample
	for i, c := range cpu {
		list = append(list, sample(i, c))
	}
	return list
}

func example() *Report {
	r := &Report{
		Machine: Machine{
			CPU: "Example CPU @ 3.00GHz", Cores: 2, MemoryMB: 8000, Kernel: "6.1.0", Arch: "amd64", Go: "go1.26.0",
			Versions: map[string]string{"nginx": "nginx version: nginx/1.22.1", "outrigger": "outrigger 0.1.0"},
			Load1:    0.25, StealPct: 1.5, ForeignPct: 0.4, ProxyCore: 1, LoadCore: 0,
			Date: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), DurationMS: 61000,
		},
		Settings: Settings{Form: "full", Slices: 3, SliceSeconds: 1.5, ResponseSize: 1024, Rate: 2000},
		Notes:    []string{"haproxy is left out: not installed: apt-get install haproxy"},
	}
	for _, n := range []int{1, 64} {
		r.Add([]Row{
			Summarise(H1Plain, n, "outrigger", samples(29, 28, 40)),
			Summarise(H1Plain, n, "nginx", samples(51, 39, 62)),
			Summarise(H1Plain, n, "reverseproxy", samples(151, 141, 190)),
		}, "haproxy", "nginx")
	}
	for _, scenario := range []string{H2, GRPCUnary, GRPCStream} {
		counted := samples(12, 11, 14)
		for i := range counted {
			counted[i].Instructions = 24_000
		}
		rows := []Row{
			Summarise(scenario, 64, "outrigger", counted),
			Summarise(scenario, 64, "envoy", samples(60, 55, 70)),
			Summarise(scenario, 64, "nghttpx", samples(17, 16, 20)),
		}
		for i := range rows {
			rows[i].Streams = 8
		}
		r.Add(rows, "envoy", "nghttpx")
	}
	r.Add([]Row{Summarise(WebSocket, 64, "outrigger", samples(15, 14, 16))}, "haproxy")
	flow := samples(150, 140, 160)
	for i := range flow {
		flow[i].Throughput = 2500
	}
	r.Add([]Row{Summarise(TCP, 16, "outrigger", flow), Summarise(TCP, 16, "haproxy", samples(200, 180, 210))}, "haproxy")
	r.Add([]Row{Summarise(MeshTCP, 16, "outrigger", flow), Summarise(MeshTCP, 16, "haproxy", flow)}, "haproxy")
	calls := []Row{Summarise(MeshGRPC, 64, "outrigger", samples(14, 13, 15)), Summarise(MeshGRPC, 64, "haproxy-h2", samples(25, 24, 90))}
	calls[0].Streams, calls[1].Streams = 8, 8
	r.Add(calls, "haproxy-h2")
	r.Leave(TCP, "nghttpx", "relays no TCP")
	r.Leave(TCP, "caddy", "relays no TCP")
	r.Leave(TCP, "caddy", "relays no TCP")
	r.Leave(MeshGRPC, "traefik", "traefik as inbound: not ready | refused")
	r.Leave(Endpoints+"10000", "traefik", "not ready within 15s")
	r.Profiles = []Profile{*NewProfile(H1Plain, 64, 0, exampleStacks())}
	r.Memory = []Memory{NewMemory(IdleH2, 5000, Heap{1 << 20, 1 << 20, 1 << 20, 1 << 20}, Heap{6 << 20, 11 << 20, 3 << 20, 0},
		[]Stack{{8 << 20, []string{modulePrefix + "proxy/http2.newConn", "main.main"}}, {1 << 20, []string{"bufio.NewReader"}}, {1 << 20, []string{"bufio.NewReader", "x"}}})}
	r.Times = []Time{{H1Plain, 41}, {TCP, 20}}
	r.Add([]Row{Summarise(Body+"100k", 16, "outrigger", samples(90, 80, 95))}, "haproxy")
	r.Add([]Row{Summarise(Body+"10m", 16, "outrigger", samples(9000, 8000, 9500))}, "haproxy")
	r.Add([]Row{Summarise(Endpoints+"1000", 64, "outrigger", samples(33, 30, 35))}, "haproxy")
	r.Add([]Row{Summarise(Cores+"2", 64, "outrigger", samples(36, 33, 38))}, "haproxy")
	broken := samples(145, 120, 0)
	broken[2] = Sample{Round: 2, Errors: 3, FirstError: "status \"502 Bad Gateway\""}
	r.Add([]Row{
		Summarise(MeshHop, 64, "outrigger", samples(90, 80, 100)),
		Summarise(MeshHop, 64, "nginx", broken),
	}, "haproxy", "nginx")
	rows := []Row{
		Summarise(Latency, 16, "direct", samples(0, 0, 0)),
		Summarise(Latency, 16, "outrigger", samples(30, 31, 32)),
		Summarise(Latency, 16, "nginx", samples(60, 61, 62)),
	}
	rows[0].P50, rows[0].P99, rows[0].P999 = 40, 90, 400
	for i := range rows {
		rows[i].Rate = 2000
	}
	SubtractDirect(rows, "direct")
	r.Add(rows, "haproxy", "nginx")
	idle := []Row{Summarise(Idle, 5000, "outrigger", samples(5.5, 5.6, 5.4)), Summarise(Idle, 5000, "nginx", samples(0.9, 0.9, 1.1))}
	idle[0].RSSStartKB, idle[1].RSSStartKB = 18000, 9000
	r.Add(idle, "haproxy", "nginx")
	r.Add([]Row{Summarise(IdleH2, 5000, "outrigger", samples(3.5, 3.6, 3.4))}, "haproxy")
	r.Add([]Row{
		Summarise(Handshake, 4, "outrigger", samples(1100, 1000, 1300)),
		Summarise(Handshake, 4, "nginx", samples(3000, 2900, 3300)),
	}, "haproxy", "nginx")
	return r
}

func TestGoldens(t *testing.T) {
	r := example()
	text, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", text)
	golden(t, "report.md", []byte(r.Markdown()))
	charts := r.Charts()
	for _, c := range charts {
		golden(t, c.File, c.SVG)
	}
	if len(charts) != 8 {
		t.Errorf("%d charts", len(charts))
	}
}

// TestFormForReaders holds the names that readers of latest.json rely on.
func TestFormForReaders(t *testing.T) {
	text, err := example().JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Machine map[string]any   `json:"machine"`
		Rows    []map[string]any `json:"rows"`
		Ratios  []map[string]any `json:"ratios"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	fields := map[string][]string{
		H2:        {"cpu_us_per_request", "cpu_us_min", "p50_us", "p99_us", "streams_per_connection"},
		GRPCUnary: {"cpu_us_per_request", "cpu_us_min", "p50_us", "p99_us", "streams_per_connection"},
		WebSocket: {"cpu_us_per_request", "cpu_us_min", "p50_us", "p99_us"},
		TCP:       {"cpu_us_per_mb", "cpu_us_min", "mb_per_cpu_second"},
		H1Plain:   {"cpu_us_per_request", "cpu_us_min", "p50_us", "p99_us"},
		MeshHop:   {"cpu_us_per_request", "cpu_us_min", "p50_us", "p99_us"},
		MeshGRPC:  {"cpu_us_per_request", "cpu_us_min", "p50_us", "p99_us", "streams_per_connection"},
		MeshTCP:   {"cpu_us_per_mb", "cpu_us_min", "mb_per_cpu_second"},
		Idle:      {"kb_per_connection"},
		IdleH2:    {"kb_per_connection"},
		Handshake: {"cpu_us_per_handshake", "handshakes_per_cpu_second"},
	}
	for _, row := range got.Rows {
		want := append([]string{"scenario", "connections", "subject", "requests", "errors"}, fields[row["scenario"].(string)]...)
		for _, name := range want {
			if _, ok := row[name]; !ok {
				t.Errorf("row %v has no %s", row, name)
			}
		}
	}
	if len(got.Machine) == 0 || len(got.Rows) == 0 || len(got.Ratios) == 0 {
		t.Error("a part is missing")
	}
	empty, err := (&Report{}).JSON()
	if err != nil || !bytes.Contains(empty, []byte(`"rows": []`)) || !bytes.Contains(empty, []byte(`"ratios": []`)) {
		t.Errorf("an empty report: %s, %v", empty, err)
	}
}

func TestSummarise(t *testing.T) {
	row := Summarise(H1Plain, 64, "x", samples(30, 10, 20, 50, 40))
	if row.CPU != 30 || row.CPUMin != 10 || row.CPUMax != 50 || row.CPUSpread != 33.33 || row.Requests != 5000 || row.P50 != 300 {
		t.Errorf("%+v", row)
	}
	// A slice without an answer counts its errors and gives no figure.
	list := samples(30, 0, 20)
	list[1] = Sample{Round: 1, Errors: 7, FirstError: "refused"}
	row = Summarise(H1Plain, 64, "x", list)
	if row.CPU != 25 || row.Errors != 7 || row.FirstError != "refused" || row.Slices != 3 || row.CPUMin != 20 {
		t.Errorf("%+v", row)
	}
	if row = Summarise(H1Plain, 1, "x", list[1:2]); row.CPU != 0 || row.Errors != 7 {
		t.Errorf("%+v", row)
	}
	if row = Summarise(Idle, 10, "x", samples(-0.5)); row.KBPerConnection == nil || *row.KBPerConnection != -0.5 || row.CPU != 0 {
		t.Errorf("%+v", row)
	}
}

func TestRatios(t *testing.T) {
	var r Report
	r.Add([]Row{
		Summarise(H1Plain, 64, "a", samples(10, 30, 20)),
		Summarise(H1Plain, 64, "b", samples(20, 40, 80)),
		Summarise(H1Plain, 64, "dead", nil),
	}, "b", "dead", "absent")
	want := []Ratio{{H1Plain, 64, "a", "b", 0.5, 0.5, 0.5}}
	if !slices.Equal(r.Ratios, want) {
		t.Errorf("got %+v, want %+v", r.Ratios, want)
	}
}

// TestQuantile compares with the definition on random lists: at the positions
// of the values themselves nothing is interpolated.
func TestQuantile(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for n := 2; n < 50; n++ {
		v := make([]float64, n)
		for i := range v {
			v[i] = rng.Float64()
		}
		slices.Sort(v)
		for i := range v {
			if got := quantile(v, float64(i)/float64(n-1)); math.Abs(got-v[i]) > 1e-9 {
				t.Fatalf("value %d of %d: got %v, want %v", i, n, got, v[i])
			}
		}
	}
	if quantile(nil, 0.5) != 0 || quantile([]float64{7}, 0.9) != 7 || quantile([]float64{1, 3}, 0.5) != 2 {
		t.Fatal("short lists")
	}
}

func TestSplice(t *testing.T) {
	page := "# Title\n\nprose\n\n" + begin + "\nold\n" + end + "\n\nmore prose\n"
	got, err := Splice([]byte(page), "\nnew table\n")
	want := "# Title\n\nprose\n\n" + begin + "\n\nnew table\n\n" + end + "\n\nmore prose\n"
	if err != nil || string(got) != want {
		t.Fatalf("got %q, %v", got, err)
	}
	again, err := Splice(got, "new table")
	if err != nil || !bytes.Equal(again, got) {
		t.Fatalf("a second time: %q, %v", again, err)
	}
	if got, err := Splice(nil, "x"); err != nil || !strings.Contains(string(got), "\nx\n") {
		t.Fatalf("no page: %q, %v", got, err)
	}
	for _, bad := range []string{"prose", begin, end + begin, begin + end + begin + end} {
		if _, err := Splice([]byte(bad), "x"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	hostile := &Report{}
	hostile.Add([]Row{Summarise(H1Plain, 1, `<&"`, samples(1)), Summarise(H1Plain, 1, "dead", nil)})
	for _, r := range []*Report{example(), hostile, {}} {
		for _, c := range r.Charts() {
			d := xml.NewDecoder(bytes.NewReader(c.SVG))
			for {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%v in\n%s", err, c.SVG)
				}
			}
		}
	}
	if len((&Report{}).Charts()) != 0 {
		t.Error("charts of nothing")
	}
}

// TestEveryRowHasATable holds that no scenario is left off the page.
func TestEveryRowHasATable(t *testing.T) {
	r := example()
	page := r.Markdown()
	for _, row := range r.Rows {
		if !slices.ContainsFunc(tables, func(t table) bool {
			return slices.ContainsFunc(r.rowsOf(t.scenario), func(o Row) bool { return o.Scenario == row.Scenario })
		}) {
			t.Errorf("no table for %s", row.Scenario)
		}
	}
	for _, want := range []string{"| 8 × 8 | nghttpx |", "| 100 KB | outrigger |", "| 10 MB |", "| 1000 | outrigger |", "| 24000 |", "| 6667 | 2500 |"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Count(page, "](benchmarks-") != 8 {
		t.Errorf("charts on the page: %d", strings.Count(page, "](benchmarks-"))
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b.txt")
	for _, text := range []string{"one", "two"} {
		if err := WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("left over: %v, %v", entries, err)
	}
	if err := WriteFile(filepath.Join(path, "below-a-file"), nil); err == nil {
		t.Fatal("no error")
	}
}
