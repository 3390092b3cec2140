package report

import (
	"strings"
	"testing"
)

// TestGoals sets figures on both sides of each kind of goal.
func TestGoals(t *testing.T) {
	var r Report
	r.Add([]Row{
		Summarise(H1Plain, 64, "outrigger", samples(6, 5, 7)),
		Summarise(H1Plain, 64, "haproxy", samples(10, 9, 11)),
		Summarise(H1Plain, 64, "nginx", samples(9.9, 8.5, 11)),
		Summarise(H1Plain, 64, "envoy", samples(100, 90, 110)),
		Summarise(H1Plain, 64, "caddy", samples(1, 1, 1)), // no goal is set against it
	})
	r.Add([]Row{ // no goal at this number
		Summarise(H1Plain, 256, "outrigger", samples(60, 50, 70)),
		Summarise(H1Plain, 256, "haproxy", samples(10, 9, 11)),
	})
	flow := func(mb float64) []Sample {
		s := samples(100, 100, 100)
		for i := range s {
			s[i].Throughput = mb
		}
		return s
	}
	r.Add([]Row{Summarise(TCP, 1, "outrigger", flow(99)), Summarise(TCP, 1, "haproxy", flow(100))})
	r.Add([]Row{Summarise(Guards+"h1", 64, "outrigger", samples(11, 10, 12)), Summarise(Guards+"h1", 64, Bare, samples(10, 10, 12))})
	r.Add([]Row{Summarise(Idle, 5000, "outrigger", samples(4.1, 4.1, 4.1))})
	r.Add([]Row{
		Summarise(Latency, 16, "direct", samples(1, 1, 1)),
		Summarise(Latency, 16, "outrigger", samples(10, 10, 10)),
		Summarise(Latency, 16, "nginx", samples(11, 11, 11)),
		Summarise(Latency, 16, "haproxy", samples(10, 10, 10)),
	})
	var got []string
	for _, g := range r.Results() {
		got = append(got, strings.TrimSpace(g.what()+" "+g.bound()+" "+g.value()+map[bool]string{true: " yes", false: " no"}[g.Reached]))
	}
	want := []string{
		"HTTP/1.1 plain, 64 connections: CPU to HAProxy ≤ 0.60 0.60 (0.56) yes",
		"HTTP/1.1 plain, 64 connections: CPU to nginx ≤ 0.60 0.61 (0.59) no",
		"HTTP/1.1 plain, 64 connections: CPU to Envoy ≤ 0.40 0.06 (0.06) yes",
		"TCP, 1 connection: MB/s to HAProxy ≥ 1.00 0.99 no",
		"TCP, 1 connection: CPU to HAProxy ≤ 1.00 1.00 (1.00) yes",
		"Memory of idle connections: kB of a connection ≤ 4.00 4.10 no",
		"What the guards cost, HTTP/1.1, 64: CPU to no guard ≤ 1.10 1.10 (1.00) yes",
		"Latency at a fixed rate: p99 in µs, below every peer's < 300 (haproxy) 300 no",
		"Latency at a fixed rate: p99.9 in µs, below every peer's < 500 (haproxy) 500 no",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	page := r.Markdown()
	for _, want := range []string{"4 of 9 reached", "| by best slices only | no profile in this run |"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if (&Report{}).Results() != nil {
		t.Error("goals of nothing")
	}
}

// TestEveryTargetHasAScenario holds the list of goals to the scenarios.
func TestEveryTargetHasAScenario(t *testing.T) {
	for _, target := range targets {
		if title(target.scenario) == target.scenario {
			t.Errorf("no table for %s", target.scenario)
		}
	}
}
