package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/bench/load"
	"github.com/outrigger-mesh/outrigger/bench/report"
)

// profileSeconds is how long Outrigger's CPU is sampled: 100 samples a second
// of a busy core.
func (o *options) profileSeconds() int { return max(1, int(4*o.seconds)) }

// maxProfile bounds the profile that is read from an admin listener.
const maxProfile = 16 << 20

// profile samples Outrigger's CPU time under a load, after the measured
// slices, so that these are not disturbed. A profile that fails is told and
// is no failure of the run.
func (r *runner) profile(ctx context.Context, scenario string, l level, beds []*bed, cfg load.Config) {
	i := slices.IndexFunc(beds, func(b *bed) bool { return b.profiled })
	if !r.o.profile || i < 0 || ctx.Err() != nil {
		return
	}
	stacks, err := r.sample(ctx, beds[i], cfg)
	if err == nil {
		streams := 0
		if l.streams > 1 {
			streams = l.streams
		}
		if p := report.NewProfile(scenario, l.connections*l.streams, streams, stacks); p != nil {
			r.report.Profiles = append(r.report.Profiles, *p)
			return
		}
		err = errors.New("nothing was sampled")
	}
	r.say("!! no profile of %s: %v", scenario, err)
}

// sample makes load while each sidecar of a bed samples itself.
func (r *runner) sample(ctx context.Context, b *bed, cfg load.Config) ([]report.Stack, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, len(b.admins))
	for _, at := range b.admins {
		go func() {
			text, err := fetchDebug(ctx, at, fmt.Sprintf("profile?seconds=%d", r.o.profileSeconds()), time.Duration(r.o.profileSeconds())*time.Second)
			answers <- answer{text, err}
		}()
	}
	cfg.Addr, cfg.Warmup, cfg.Duration = b.entry, 0, time.Duration(r.o.profileSeconds()+1)*time.Second
	_, err := load.Run(ctx, cfg)
	if err != nil {
		cancel()
	}
	var files []string
	for i := range b.admins {
		a := <-answers
		err = errors.Join(err, a.err)
		file := filepath.Join(r.dir, fmt.Sprintf("profile-%d", i))
		err = errors.Join(err, os.WriteFile(file, a.text, 0o600))
		files = append(files, file)
	}
	if err != nil {
		return nil, err
	}
	text, err := output(ctx, r.dir, append([]string{"go", "tool", "pprof", "-traces", "-unit=us"}, files...)...)
	if err != nil {
		return nil, err
	}
	return parseTraces(text, "us", 1000)
}

// fetchDebug gets a page of Go's profiler that takes some time to be made.
func fetchDebug(ctx context.Context, at netip.AddrPort, page string, takes time.Duration) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/%s", at, page), nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: takes + 10*time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProfile))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", req.URL, resp.Status)
	}
	return text, err
}

// memory says what a sidecar's memory consists of: Go's accounting, and when it
// is wanted the live objects by what allocated them.
func (r *runner) memory(ctx context.Context, b *bed, live bool) (report.Heap, []report.Stack, error) {
	text, err := fetchDebug(ctx, b.admins[0], "heap?debug=1", time.Second)
	if err != nil {
		return report.Heap{}, nil, err
	}
	heap, err := parseHeap(text)
	if err != nil || !live {
		return heap, nil, err
	}
	if text, err = fetchDebug(ctx, b.admins[0], "heap?gc=1", 5*time.Second); err != nil {
		return heap, nil, err
	}
	file := filepath.Join(r.dir, "heap")
	if err = os.WriteFile(file, text, 0o600); err != nil {
		return heap, nil, err
	}
	if text, err = output(ctx, r.dir, "go", "tool", "pprof", "-traces", "-sample_index=inuse_space", "-unit=B", file); err != nil {
		return heap, nil, err
	}
	stacks, err := parseTraces(text, "B", 1)
	return heap, stacks, err
}

// parseHeap reads the lines `# Name = number` of Go's heap profile in its text
// form; some have a second number, what was got from the operating system.
func parseHeap(text []byte) (report.Heap, error) {
	stats := make(map[string]uint64)
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || fields[0] != "#" || fields[2] != "=" {
			continue
		}
		if n, err := strconv.ParseUint(fields[3], 10, 64); err == nil {
			stats[fields[1]] = n
		}
	}
	for _, name := range []string{"HeapAlloc", "HeapSys", "HeapReleased", "Stack"} {
		if _, ok := stats[name]; !ok {
			return report.Heap{}, fmt.Errorf("heap profile: no line `# %s = N`", name)
		}
	}
	return report.Heap{
		Stacks:  stats["Stack"],
		Objects: stats["HeapAlloc"],
		Free:    stats["HeapSys"] - min(stats["HeapSys"], stats["HeapReleased"]+stats["HeapAlloc"]),
		Runtime: stats["MSpan"] + stats["MCache"] + stats["GCSys"] + stats["OtherSys"] + stats["BuckHashSys"],
	}, nil
}

// parseTraces reads what `go tool pprof -traces` prints with a unit: after some
// lines about the profile one block for each stack, between lines of
// -----+-----, each of a value with the innermost function and then the
// functions that called it.
func parseTraces(text []byte, unit string, scale float64) ([]report.Stack, error) {
	var stacks []report.Stack
	inside, fresh := false, false
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		switch {
		case len(fields) == 0:
		case strings.HasPrefix(fields[0], "-----"):
			inside, fresh = true, true
		case !inside:
		case fresh:
			value, ok := strings.CutSuffix(fields[0], unit)
			ok = ok || value == "0"
			number, err := strconv.ParseFloat(value, 64)
			if !ok || err != nil || len(fields) < 2 {
				if strings.HasSuffix(fields[0], ":") { // a label of the stack
					continue
				}
				return nil, fmt.Errorf("go tool pprof -traces: no value in %q", line)
			}
			fresh = false
			stacks = append(stacks, report.Stack{Value: number / scale, Functions: []string{function(fields[1:])}})
		default:
			s := &stacks[len(stacks)-1]
			s.Functions = append(s.Functions, function(fields))
		}
	}
	return stacks, nil
}

// function is a name without the remark that it was inlined.
func function(fields []string) string {
	return strings.TrimSuffix(strings.Join(fields, " "), " (inline)")
}
