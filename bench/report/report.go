// Package report turns the measured slices of a benchmark run into rows and ratios and writes them as JSON, Markdown and SVG.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Scenario names, as they stand in the results. Those that end in a hyphen are
// followed by what varies: body-100k, endpoints-1000, h1-plain-cores-2.
const (
	H1Plain    = "h1-plain"
	MeshHop    = "mesh-hop"
	H2         = "h2"
	GRPCUnary  = "grpc-unary"
	GRPCStream = "grpc-stream"
	WebSocket  = "websocket"
	TCP        = "tcp"
	MeshGRPC   = "mesh-grpc" // unary calls through two sidecars
	MeshTCP    = "mesh-tcp"  // the relay through two sidecars
	Body       = "body-"
	Endpoints  = "endpoints-"
	Cores      = "h1-plain-cores-"
	Guards     = "guards-" // all guards on, against none
	Latency    = "latency"
	Idle       = "idle"
	IdleH2     = "idle-h2"
	Handshake  = "handshake"
)

// Bare is the subject that is Outrigger with no guard on.
const Bare = "outrigger-bare"

// Report is one run of the benchmark.
type Report struct {
	Machine  Machine  `json:"machine"`
	Settings Settings `json:"settings"`
	Rows     []Row    `json:"rows"`
	Ratios   []Ratio  `json:"ratios"`
	// Absent are the subjects that have no row in a scenario, and why.
	Absent []Absence `json:"absent,omitempty"`
	// Notes tell what the run left out as a whole and why: a subject that is
	// not installed, a scenario that failed, a time limit reached.
	Notes []string `json:"notes,omitempty"`
	// Goals are those that the run has figures for.
	Goals []Goal `json:"goals,omitempty"`
	// Profiles tell where Outrigger's time went.
	Profiles []Profile `json:"profiles,omitempty"`
	// Memory tells what Outrigger's idle connections consist of.
	Memory []Memory `json:"memory_profiles,omitempty"`
	// Times are how long the scenarios took, as they stand on the command line.
	Times []Time `json:"times,omitempty"`
}

// Machine is where a run took place.
type Machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	MemoryMB int               `json:"memory_mb"`
	Kernel   string            `json:"kernel"`
	Arch     string            `json:"arch"`
	Go       string            `json:"go"`
	Versions map[string]string `json:"versions"`  // subject -> what it says of itself
	Load1    float64           `json:"load1"`     // load average of the last minute before the run
	StealPct float64           `json:"steal_pct"` // CPU time that the hypervisor gave to others during the run, of all, in percent
	// ForeignPct is the CPU time that processes other than the benchmark's used
	// during the run, of all, in percent.
	ForeignPct float64 `json:"foreign_pct"`
	ProxyCore  int     `json:"proxy_core"` // -1: not pinned
	LoadCore   int     `json:"load_core"`  // of load generator and origin; -1: not pinned
	// Instructions says whether this machine counts instructions, and if not, why.
	Instructions string    `json:"instructions,omitempty"`
	Date         time.Time `json:"date"`
	DurationMS   int64     `json:"duration_ms"`
}

// Settings are how a run was made.
type Settings struct {
	Form         string  `json:"form"` // full or quick
	Slices       int     `json:"slices"`
	SliceSeconds float64 `json:"slice_seconds"`
	ResponseSize int     `json:"response_bytes"`
	Rate         float64 `json:"rate"` // requests a second in the latency scenario
	AccessLog    bool    `json:"access_log"`
}

// Time is how long a scenario took with everything around it.
type Time struct {
	Scenario string  `json:"scenario"`
	Seconds  float64 `json:"seconds"`
}

// took is the time of the whole run and of its scenarios in words.
func (r *Report) took() string {
	text := (time.Duration(r.Machine.DurationMS) * time.Millisecond).Round(time.Second).String()
	var list []string
	for _, t := range r.Times {
		list = append(list, fmt.Sprintf("%s %.0f s", t.Scenario, t.Seconds))
	}
	if len(list) > 0 {
		text += " (" + strings.Join(list, ", ") + ")"
	}
	return text
}

// Absence is a subject that has no row in a scenario: it does not know the
// protocol, or it did not start.
type Absence struct {
	Scenario string `json:"scenario"`
	Subject  string `json:"subject"`
	Reason   string `json:"reason"` // one line
}

// Row is one subject in one scenario at one number of connections. Figures
// that a scenario does not have are left out.
type Row struct {
	Scenario    string `json:"scenario"`
	Connections int    `json:"connections"`
	Subject     string `json:"subject"`
	// Streams on each connection where there is more than one; Connections
	// then counts all concurrent streams.
	Streams int `json:"streams_per_connection,omitempty"`

	// CPU time (user and system) of all the subject's processes for one
	// request in µs: median over the slices, best and worst slice, and half
	// the distance between the quartiles in percent of the median.
	CPU       float64 `json:"cpu_us_per_request,omitempty"`
	CPUMin    float64 `json:"cpu_us_min,omitempty"`
	CPUMax    float64 `json:"cpu_us_max,omitempty"`
	CPUSpread float64 `json:"cpu_spread_percent,omitempty"`
	// How busy the subject kept its core, in percent of one core: far below
	// 100 in a closed loop means that something else was the bottleneck.
	Busy float64 `json:"busy_percent,omitempty"`

	// Latency in µs: medians over the slices of each slice's quantile.
	P50  float64 `json:"p50_us,omitempty"`
	P99  float64 `json:"p99_us,omitempty"`
	P999 float64 `json:"p999_us,omitempty"`
	// The same less that of the direct connection, in the latency scenario.
	AddedP50  *float64 `json:"added_p50_us,omitempty"`
	AddedP99  *float64 `json:"added_p99_us,omitempty"`
	AddedP999 *float64 `json:"added_p999_us,omitempty"`
	Rate      float64  `json:"rate,omitempty"` // requests a second asked for

	// Instructions in user mode for one request: the median over the slices.
	Instructions float64 `json:"instructions_per_request,omitempty"`

	CPUPerMB float64 `json:"cpu_us_per_mb,omitempty"` // median, 1 MB = 10^6 bytes; CPUMin and CPUMax belong to it
	MBPerCPU float64 `json:"mb_per_cpu_second,omitempty"`
	MBPerSec float64 `json:"mb_per_second,omitempty"` // median of what went through

	HandshakeCPU     float64 `json:"cpu_us_per_handshake,omitempty"` // median; CPUMin and CPUMax belong to it
	HandshakesPerCPU float64 `json:"handshakes_per_cpu_second,omitempty"`

	KBPerConnection *float64 `json:"kb_per_connection,omitempty"` // resident memory, 1 kB = 1024 bytes
	RSSStartKB      int64    `json:"rss_start_kb,omitempty"`      // of one freshly started proxy

	Requests   uint64 `json:"requests"` // in all slices, or handshakes, or idle connections
	Slices     int    `json:"slices"`
	Reconnects uint64 `json:"reconnects,omitempty"`
	Errors     uint64 `json:"errors"`
	FirstError string `json:"first_error,omitempty"`

	samples []Sample
}

// Sample is one slice.
type Sample struct {
	Round int     // slices of the same round ran next to each other
	CPU   float64 // µs for one request, handshake or MB, kB for an idle connection; 0 when nothing was answered
	Busy  float64 // percent of one core
	P50   float64 // µs
	P99   float64
	P999  float64
	// Instructions for one request; 0 where they are not counted.
	Instructions float64
	Throughput   float64 // MB a second, TCP only
	Requests     uint64
	Reconnects   uint64
	Errors       uint64
	FirstError   string
}

// Ratio compares a subject with a peer in one scenario: CPU time for a request,
// a handshake or a MB, or memory for a connection. Below 1 the subject needs less.
type Ratio struct {
	Scenario    string  `json:"scenario"`
	Connections int     `json:"connections"`
	Subject     string  `json:"subject"`
	Peer        string  `json:"peer"`
	Median      float64 `json:"ratio"`        // of the medians
	Best        float64 `json:"ratio_min"`    // of the best slices
	Paired      float64 `json:"ratio_paired"` // the median of the ratios within each round
}

// Summarise makes a row of the slices of one subject.
func Summarise(scenario string, connections int, subject string, samples []Sample) Row {
	row := Row{Scenario: scenario, Connections: connections, Subject: subject, samples: samples, Slices: len(samples)}
	for _, s := range samples {
		row.Requests += s.Requests
		row.Reconnects += s.Reconnects
		row.Errors += s.Errors
		if row.FirstError == "" {
			row.FirstError = s.FirstError
		}
	}
	figure := func(of func(Sample) float64) []float64 {
		var v []float64
		for _, s := range samples {
			if s.Requests > 0 {
				v = append(v, of(s))
			}
		}
		slices.Sort(v)
		return v
	}
	cpu := figure(func(s Sample) float64 { return s.CPU })
	if len(cpu) == 0 {
		return row
	}
	median := quantile(cpu, 0.5)
	spread := 0.0
	if median > 0 {
		spread = round(100 * (quantile(cpu, 0.75) - quantile(cpu, 0.25)) / 2 / median)
	}
	switch scenario {
	case Idle, IdleH2:
		kb := round(median)
		row.KBPerConnection = &kb
		return row
	case Handshake:
		row.HandshakeCPU = round(median)
		if median > 0 {
			row.HandshakesPerCPU = round(1e6 / median)
		}
	case TCP, MeshTCP:
		row.CPUPerMB = round(median)
		if median > 0 {
			row.MBPerCPU = round(1e6 / median)
		}
		row.MBPerSec = round(quantile(figure(func(s Sample) float64 { return s.Throughput }), 0.5))
	default:
		row.CPU = round(median)
	}
	row.Instructions = math.Round(quantile(figure(func(s Sample) float64 { return s.Instructions }), 0.5))
	row.CPUMin, row.CPUMax, row.CPUSpread = round(cpu[0]), round(cpu[len(cpu)-1]), spread
	row.Busy = round(quantile(figure(func(s Sample) float64 { return s.Busy }), 0.5))
	row.P50 = round(quantile(figure(func(s Sample) float64 { return s.P50 }), 0.5))
	row.P99 = round(quantile(figure(func(s Sample) float64 { return s.P99 }), 0.5))
	row.P999 = round(quantile(figure(func(s Sample) float64 { return s.P999 }), 0.5))
	return row
}

// figure is what a row is compared by.
func (r *Row) figure() float64 {
	switch {
	case r.KBPerConnection != nil:
		return *r.KBPerConnection
	case r.HandshakeCPU > 0:
		return r.HandshakeCPU
	case r.CPUPerMB > 0:
		return r.CPUPerMB
	}
	return r.CPU
}

// Add appends rows of one scenario and number of connections, and the ratios
// of every subject to each peer among them.
func (r *Report) Add(rows []Row, peers ...string) {
	r.Rows = append(r.Rows, rows...)
	for i := range rows {
		for _, peer := range peers {
			j := slices.IndexFunc(rows, func(o Row) bool { return o.Subject == peer })
			if j < 0 || i == j || rows[i].figure() <= 0 || rows[j].figure() <= 0 {
				continue
			}
			ratio := Ratio{
				Scenario: rows[i].Scenario, Connections: rows[i].Connections, Subject: rows[i].Subject, Peer: peer,
				Median: round(rows[i].figure() / rows[j].figure()),
				Paired: paired(rows[i].samples, rows[j].samples),
			}
			ratio.Best = ratio.Median
			if rows[i].CPUMin > 0 && rows[j].CPUMin > 0 {
				ratio.Best = round(rows[i].CPUMin / rows[j].CPUMin)
			}
			r.Ratios = append(r.Ratios, ratio)
		}
	}
}

// SubtractDirect fills in the added latency of rows against the row of the
// direct connection, if it is among them.
func SubtractDirect(rows []Row, direct string) {
	j := slices.IndexFunc(rows, func(r Row) bool { return r.Subject == direct })
	if j < 0 || rows[j].P50 == 0 {
		return
	}
	base := rows[j]
	for i := range rows {
		if i == j || rows[i].P50 == 0 {
			continue
		}
		less := func(a, b float64) *float64 { d := round(a - b); return &d }
		rows[i].AddedP50 = less(rows[i].P50, base.P50)
		rows[i].AddedP99 = less(rows[i].P99, base.P99)
		rows[i].AddedP999 = less(rows[i].P999, base.P999)
	}
}

func paired(a, b []Sample) float64 {
	var ratios []float64
	for _, x := range a {
		for _, y := range b {
			if x.Round == y.Round && x.CPU > 0 && y.CPU > 0 {
				ratios = append(ratios, x.CPU/y.CPU)
			}
		}
	}
	slices.Sort(ratios)
	return round(quantile(ratios, 0.5))
}

// quantile interpolates between the values of a sorted list; 0 when empty.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// round keeps two digits behind the point.
func round(v float64) float64 { return math.Round(v*100) / 100 }

// Errors is the sum of errors over all rows.
func (r *Report) Errors() (n uint64) {
	for _, row := range r.Rows {
		n += row.Errors
	}
	return n
}

// JSON is the report as it stands in results/latest.json.
func (r *Report) JSON() ([]byte, error) {
	out := *r
	out.Goals = r.Results()
	if out.Rows == nil {
		out.Rows = []Row{}
	}
	if out.Ratios == nil {
		out.Ratios = []Ratio{}
	}
	text, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return append(text, '\n'), nil
}

// WriteFile replaces a file as a whole, making its directory if need be.
func WriteFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if e := tmp.Chmod(0o644); err == nil {
		err = e
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
