package report

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The generated part of a page stands between these two lines.
const (
	begin = "<!-- bench:begin (generated, do not edit) -->"
	end   = "<!-- bench:end -->"
)

// Splice puts the generated part between the markers of page and leaves the
// rest as it is. An empty page gets the markers and nothing else.
func Splice(page []byte, generated string) ([]byte, error) {
	if len(bytes.TrimSpace(page)) == 0 {
		page = []byte("# Benchmarks\n\n" + begin + "\n" + end + "\n")
	}
	from, to := bytes.Index(page, []byte(begin)), bytes.Index(page, []byte(end))
	if from < 0 || to < from {
		return nil, fmt.Errorf("the page has no pair of lines %q and %q around the place for the tables: put them back", begin, end)
	}
	if bytes.Count(page, []byte(begin)) > 1 || bytes.Count(page, []byte(end)) > 1 {
		return nil, errors.New("the page has the markers of the generated part more than once: leave one pair")
	}
	var out bytes.Buffer
	out.Write(page[:from+len(begin)])
	out.WriteString("\n\n" + strings.TrimSpace(generated) + "\n\n")
	out.Write(page[to:])
	return out.Bytes(), nil
}

// Markdown is the generated part of docs/BENCHMARKS.md: tables, each group of
// them below its chart.
func (r *Report) Markdown() string {
	var b strings.Builder
	m, s := r.Machine, r.Settings
	fmt.Fprintf(&b, "Measured on %s: %s, %d cores, %d MB, Linux %s %s, %s. ",
		m.Date.UTC().Format("2 January 2006"), m.CPU, m.Cores, m.MemoryMB, m.Kernel, m.Arch, m.Go)
	if m.ProxyCore >= 0 {
		fmt.Fprintf(&b, "Proxy on core %d, load generator and origin on core %d. ", m.ProxyCore, m.LoadCore)
	} else {
		b.WriteString("Nothing pinned to a core. ")
	}
	fmt.Fprintf(&b, "The %s form: %d slices of %g s for each figure, responses of %d bytes, access logs %s. ",
		s.Form, s.Slices, s.SliceSeconds, s.ResponseSize, map[bool]string{true: "on", false: "off"}[s.AccessLog])
	if m.Instructions != "" {
		fmt.Fprintf(&b, "Instructions %s. ", m.Instructions)
	}
	fmt.Fprintf(&b, "Load average before the run %.2f; during it the hypervisor took %.1f %% of the CPU time and other processes %.1f %%. The run took %s.\n", m.Load1, m.StealPct, m.ForeignPct, r.took())
	if len(m.Versions) > 0 {
		b.WriteString("\n")
		for _, name := range sortedKeys(m.Versions) {
			fmt.Fprintf(&b, "- %s: %s\n", name, m.Versions[name])
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\n**Note:** %s\n", note)
	}
	r.goalTable(&b)
	r.glance(&b)
	r.profileTable(&b)
	r.memoryTable(&b)
	charts := r.Charts()
	drawn := ""
	for _, t := range tables {
		rows := r.rowsOf(t.scenario)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n", t.title)
		if i := slices.IndexFunc(charts, func(c Chart) bool { return c.File == t.chart }); i >= 0 && drawn != t.chart {
			drawn = t.chart
			fmt.Fprintf(&b, "![%s](%s)\n\n", charts[i].Title, charts[i].File)
		}
		t.write(r, &b, t, rows)
		r.absent(&b, t.scenario)
	}
	return b.String()
}

// table is one table of the page.
type table struct {
	scenario    string // name, or what a family of names begins with
	title, text string
	column      string // head of the first column
	chart       string // file of the chart that it belongs to
	write       func(r *Report, b *strings.Builder, t table, rows []Row)
}

// Files of the charts.
const (
	chartHTTP1       = "benchmarks-http1.svg"
	chartMesh        = "benchmarks-mesh.svg"
	chartHTTP2       = "benchmarks-http2.svg"
	chartStreams     = "benchmarks-streams.svg"
	chartBodies      = "benchmarks-bodies.svg"
	chartEndpoints   = "benchmarks-endpoints.svg"
	chartLatency     = "benchmarks-latency.svg"
	chartConnections = "benchmarks-connections.svg"
)

var tables = []table{
	{H1Plain, "HTTP/1.1 plain", "One proxy between client and origin, closed loop.", "connections", chartHTTP1, cpuTable},
	{Cores, "HTTP/1.1 plain on more cores", "The same with as many workers as cores, 64 connections. With fewer than three cores in the machine the load generator shares them.", "cores", chartHTTP1, cpuTable},
	{MeshHop, "The mesh hop", "Client, sidecar, mutual TLS 1.3, sidecar, origin; both sidecars summed, closed loop.", "connections", chartMesh, cpuTable},
	{MeshGRPC, "gRPC over the mesh hop", "Unary calls from an HTTP/2 client through both sidecars to an HTTP/2 server, a message of 128 bytes each way; connections × streams on each. Between the sidecars HTTP/2 or, in Outrigger, its own transport.", "streams", chartMesh, cpuTable},
	{MeshTCP, "TCP over the mesh hop", " through two sidecars with mutual TLS 1.3 in between", "connections", chartMesh, tcpTable},
	{H2, "HTTP/2", "Cleartext HTTP/2 by prior knowledge on both sides, GET with ten header fields, answers of 128 bytes; connections × streams on each.", "streams", chartHTTP2, cpuTable},
	{GRPCUnary, "gRPC, unary", "The same with calls: a message of 128 bytes each way, and trailers.", "streams", chartHTTP2, cpuTable},
	{GRPCStream, "gRPC, streaming", "Endless calls on which messages of 128 bytes go there and back, one under way on each; a request is a message there and back.", "streams", chartHTTP2, cpuTable},
	{WebSocket, "WebSocket", "Messages of 128 bytes there and back; a request is a message there and back.", "connections", chartStreams, cpuTable},
	{TCP, "TCP", " through one relay", "connections", chartStreams, tcpTable},
	{Body, "Bodies", "HTTP/1.1 plain with answers of other sizes, 16 connections.", "body", chartBodies, cpuTable},
	{Endpoints, "Endpoints", "HTTP/1.1 plain in front of many endpoints, which are all one origin at as many addresses; 64 connections.", "endpoints", chartEndpoints, cpuTable},
	{Guards, "What the guards cost", "Outrigger with every guard on, where none has to act, and the same program with none (`outrigger-bare`), in front of four endpoints: HTTP/1.1 plain, 64 connections, and unary gRPC calls, 8 × 8.", "protocol", "", cpuTable},
	{Latency, "Latency at a fixed rate", "", "", chartLatency, latencyTable},
	{Idle, "Memory of idle connections", "keep-alive connections", "", chartConnections, idleTable},
	{IdleH2, "Memory of idle HTTP/2 connections", "HTTP/2 connections", "", chartConnections, idleTable},
	{Handshake, "Mutual TLS 1.3 handshakes", "", "", chartConnections, handshakeTable},
}

// rowsOf are the rows of a scenario, or of a family of them.
func (r *Report) rowsOf(scenario string) []Row {
	var rows []Row
	for _, row := range r.Rows {
		if within(row.Scenario, scenario) {
			rows = append(rows, row)
		}
	}
	return rows
}

// label is what stands in the first column: what varies within a table.
func (row Row) label() string {
	for _, family := range []string{Body, Endpoints, Cores} {
		if rest, ok := strings.CutPrefix(row.Scenario, family); ok {
			switch rest[len(rest)-1] {
			case 'k':
				return strings.TrimSuffix(rest, "k") + " KB"
			case 'm':
				return strings.TrimSuffix(rest, "m") + " MB"
			}
			return rest
		}
	}
	load := strconv.Itoa(row.Connections)
	switch {
	case row.Streams > 1:
		load = fmt.Sprintf("%d × %d", row.Connections/row.Streams, row.Streams)
	case slices.Contains([]string{H2, GRPCUnary, GRPCStream, MeshGRPC}, row.Scenario):
		load = fmt.Sprintf("%d × 1", row.Connections)
	}
	switch row.Scenario {
	case Guards + "h1":
		return "HTTP/1.1, " + load
	case Guards + "grpc":
		return "gRPC, " + load
	}
	return load
}

// peerNames are the peers that have a column of ratios, and their names in its head.
var peerNames = []struct{ subject, name string }{
	{"haproxy", "HAProxy"}, {"haproxy-h2", "HAProxy H2"}, {"nginx", "nginx"}, {"envoy", "Envoy"}, {"envoy-h2", "Envoy H2"}, {"nghttpx", "nghttpx"}, {Bare, "no guard"},
}

// ratioColumns writes the heads of the ratio columns that rows need, and
// returns what writes the cells of a row.
func (r *Report) ratioColumns(b *strings.Builder, rows []Row, best string) func(row Row) string {
	var peers []string
	for _, p := range peerNames {
		if slices.ContainsFunc(rows, func(row Row) bool { return row.Subject == p.subject }) {
			peers = append(peers, p.subject)
			fmt.Fprintf(b, " to %s%s |", p.name, best)
		}
	}
	return func(row Row) string {
		var cells strings.Builder
		for _, p := range peers {
			fmt.Fprintf(&cells, " %s |", r.ratio(row, p))
		}
		return cells.String()
	}
}

// rule is the line below a table's head, which has been written from start on:
// column number text is flush left.
func rule(b *strings.Builder, start, text int) {
	columns := strings.Count(b.String()[start:], "|") - 1
	b.WriteString("\n|")
	for i := range columns {
		if i == text {
			b.WriteString("---|")
		} else {
			b.WriteString("--:|")
		}
	}
	b.WriteString("\n")
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ratio is the cell that compares a row with a peer: by medians and, in
// brackets, by best slices.
func (r *Report) ratio(row Row, peer string) string {
	for _, q := range r.Ratios {
		if q.Scenario == row.Scenario && q.Connections == row.Connections && q.Subject == row.Subject && q.Peer == peer {
			if row.CPUMin == 0 {
				return fmt.Sprintf("%.2f", q.Median)
			}
			return fmt.Sprintf("%.2f (%.2f)", q.Median, q.Best)
		}
	}
	if row.Subject == peer {
		return "1"
	}
	return "–"
}

// number prints three significant digits, and no dash for a true zero.
func number(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10 || v <= -10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func cell(v float64) string {
	if v == 0 {
		return "–"
	}
	return number(v)
}

func added(v *float64) string {
	if v == nil {
		return "–"
	}
	return number(*v)
}

func cpuTable(r *Report, b *strings.Builder, t table, rows []Row) {
	fmt.Fprintf(b, "%s CPU time in µs per request.\n\n", t.text)
	start := b.Len()
	fmt.Fprintf(b, "| %s | subject | CPU median | best | spread |", t.column)
	ratios := r.ratioColumns(b, rows, " (best)")
	counted := slices.ContainsFunc(rows, func(row Row) bool { return row.Instructions > 0 })
	if counted {
		b.WriteString(" instructions |")
	}
	b.WriteString(" core busy | p50 µs | p99 µs | requests | errors |")
	rule(b, start, 1)
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s | ±%.0f %% |%s", row.label(), row.Subject, cell(row.CPU), cell(row.CPUMin), row.CPUSpread, ratios(row))
		if counted {
			fmt.Fprintf(b, " %s |", cell(row.Instructions))
		}
		fmt.Fprintf(b, " %.0f %% | %s | %s | %d | %d |\n", row.Busy, cell(row.P50), cell(row.P99), row.Requests, row.Errors)
	}
}

func tcpTable(r *Report, b *strings.Builder, t table, rows []Row) {
	fmt.Fprintf(b, "Bytes without end from the origin to the client%s. CPU time in µs per MB of 10⁶ bytes.\n\n", t.text)
	start := b.Len()
	b.WriteString("| connections | subject | CPU median | best | spread | MB per CPU second | MB/s |")
	ratios := r.ratioColumns(b, rows, " (best)")
	b.WriteString(" core busy | errors |")
	rule(b, start, 1)
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s | ±%.0f %% | %s | %s |%s %.0f %% | %d |\n", row.label(), row.Subject, cell(row.CPUPerMB), cell(row.CPUMin),
			row.CPUSpread, cell(row.MBPerCPU), cell(row.MBPerSec), ratios(row), row.Busy, row.Errors)
	}
}

func latencyTable(_ *Report, b *strings.Builder, _ table, rows []Row) {
	fmt.Fprintf(b, "%g requests a second, open loop over %d connections; latency counts from the intended start of each request. "+
		"Added is the figure less that of the direct connection. µs.\n\n", rows[0].Rate, rows[0].Connections)
	b.WriteString("| subject | p50 | p99 | p99.9 | added p50 | added p99 | added p99.9 | CPU per request | errors |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s | %d |\n", row.Subject, cell(row.P50), cell(row.P99), cell(row.P999),
			added(row.AddedP50), added(row.AddedP99), added(row.AddedP999), cell(row.CPU), row.Errors)
	}
}

func idleTable(r *Report, b *strings.Builder, t table, rows []Row) {
	fmt.Fprintf(b, "Resident memory of a freshly started proxy, and what each of %d idle %s adds after one request. kB of 1024 bytes.\n\n", rows[0].Connections, t.text)
	start := b.Len()
	b.WriteString("| subject | at start | per connection |")
	ratios := r.ratioColumns(b, rows, "")
	b.WriteString(" errors |")
	rule(b, start, 0)
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %d | %s |%s %d |\n", row.Subject, row.RSSStartKB, added(row.KBPerConnection), ratios(row), row.Errors)
	}
}

func handshakeTable(r *Report, b *strings.Builder, _ table, rows []Row) {
	b.WriteString("Full handshakes with client certificates (ECDSA P-256, X25519), each on a new connection with one request. CPU time of the server side in µs per handshake.\n\n")
	start := b.Len()
	b.WriteString("| subject | CPU median | best | spread | per CPU second |")
	ratios := r.ratioColumns(b, rows, " (best)")
	b.WriteString(" handshakes | errors |")
	rule(b, start, 0)
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | ±%.0f %% | %s |%s %d | %d |\n", row.Subject, cell(row.HandshakeCPU), cell(row.CPUMin), row.CPUSpread,
			cell(row.HandshakesPerCPU), ratios(row), row.Requests, row.Errors)
	}
}
