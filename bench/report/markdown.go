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

// Markdown is the generated part of docs/BENCHMARKS.md: tables and the chart.
func (r *Report) Markdown(chart string) string {
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
	fmt.Fprintf(&b, "Load average before the run %.2f; the hypervisor took %.1f %% of the CPU time during it.\n", m.Load1, m.StealPct)
	if len(m.Versions) > 0 {
		b.WriteString("\n")
		for _, name := range sortedKeys(m.Versions) {
			fmt.Fprintf(&b, "- %s: %s\n", name, m.Versions[name])
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\n**Note:** %s\n", note)
	}
	if chart != "" && len(r.byScenario(H1Plain))+len(r.byScenario(MeshHop)) > 0 {
		fmt.Fprintf(&b, "\n![CPU time per request of all subjects](%s)\n", chart)
	}
	r.cpuTable(&b, H1Plain, "HTTP/1.1 plain", "One proxy between client and origin, closed loop.")
	r.cpuTable(&b, MeshHop, "The mesh hop", "Client, sidecar, mutual TLS 1.3, sidecar, origin; both sidecars summed, closed loop.")
	r.latencyTable(&b)
	r.idleTable(&b)
	r.handshakeTable(&b)
	return b.String()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (r *Report) byScenario(name string) []Row {
	var rows []Row
	for _, row := range r.Rows {
		if row.Scenario == name {
			rows = append(rows, row)
		}
	}
	return rows
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

func (r *Report) cpuTable(b *strings.Builder, scenario, title, text string) {
	rows := r.byScenario(scenario)
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### %s\n\n%s CPU time in µs per request.\n\n", title, text)
	b.WriteString("| connections | subject | CPU median | best | spread | to HAProxy (best) | to nginx (best) | core busy | p50 µs | p99 µs | requests | errors |\n" +
		"|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range rows {
		fmt.Fprintf(b, "| %d | %s | %s | %s | ±%.0f %% | %s | %s | %.0f %% | %s | %s | %d | %d |\n",
			row.Connections, row.Subject, cell(row.CPU), cell(row.CPUMin), row.CPUSpread,
			r.ratio(row, "haproxy"), r.ratio(row, "nginx"), row.Busy, cell(row.P50), cell(row.P99), row.Requests, row.Errors)
	}
}

func (r *Report) latencyTable(b *strings.Builder) {
	rows := r.byScenario(Latency)
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### Latency at %g requests a second\n\nOpen loop over %d connections; latency counts from the intended start of each request. "+
		"Added is the figure less that of the direct connection. µs.\n\n", rows[0].Rate, rows[0].Connections)
	b.WriteString("| subject | p50 | p99 | p99.9 | added p50 | added p99 | added p99.9 | CPU per request | errors |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s | %d |\n", row.Subject, cell(row.P50), cell(row.P99), cell(row.P999),
			added(row.AddedP50), added(row.AddedP99), added(row.AddedP999), cell(row.CPU), row.Errors)
	}
}

func (r *Report) idleTable(b *strings.Builder) {
	rows := r.byScenario(Idle)
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### Memory\n\nResident memory of a freshly started proxy, and what each of %d idle keep-alive connections adds after one request. kB of 1024 bytes.\n\n", rows[0].Connections)
	b.WriteString("| subject | at start | per connection | to HAProxy | to nginx | errors |\n|---|--:|--:|--:|--:|--:|\n")
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %d |\n", row.Subject, row.RSSStartKB, added(row.KBPerConnection),
			r.ratio(row, "haproxy"), r.ratio(row, "nginx"), row.Errors)
	}
}

func (r *Report) handshakeTable(b *strings.Builder) {
	rows := r.byScenario(Handshake)
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n### Mutual TLS 1.3 handshakes\n\nFull handshakes with client certificates (ECDSA P-256, X25519), each on a new connection with one request. CPU time of the server side in µs per handshake.\n\n")
	b.WriteString("| subject | CPU median | best | spread | per CPU second | to HAProxy (best) | to nginx (best) | handshakes | errors |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range rows {
		fmt.Fprintf(b, "| %s | %s | %s | ±%.0f %% | %s | %s | %s | %d | %d |\n", row.Subject, cell(row.HandshakeCPU), cell(row.CPUMin), row.CPUSpread,
			cell(row.HandshakesPerCPU), r.ratio(row, "haproxy"), r.ratio(row, "nginx"), row.Requests, row.Errors)
	}
}
