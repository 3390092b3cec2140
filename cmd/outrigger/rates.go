package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/telemetry"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// rates are what happened between two looks at a proxy.
type rates struct {
	Service   string         `json:"service"`
	Version   string         `json:"version"`
	Now       time.Time      `json:"now"`
	Seconds   float64        `json:"seconds"` // between the looks
	Up        float64        `json:"up_seconds"`
	Plan      uint64         `json:"plan"`
	State     string         `json:"state"` // ready, not ready, draining
	Clusters  []clusterRate  `json:"clusters"`
	Endpoints []endpointRate `json:"endpoints"`
	Faults    []string       `json:"faults,omitempty"` // made on purpose, that run, in words
}

type clusterRate struct {
	Name      string   `json:"name"`
	Direction string   `json:"direction"`
	Rate      float64  `json:"rate"`              // exchanges a second
	Success   *float64 `json:"success,omitempty"` // their share that succeeded; nil of none
	P50Ms     *float64 `json:"p50_ms,omitempty"`
	P99Ms     *float64 `json:"p99_ms,omitempty"`
	Retries   float64  `json:"retries"` // a second
	Active    int64    `json:"active"`
	Available int      `json:"available"`
	Total     int      `json:"endpoints"`
	Ejected   int      `json:"ejected"` // now, by outlier detection
	ByHand    int      `json:"by_hand"` // now, ejected or passed over
	Breaker   string   `json:"breaker,omitempty"`
	Panic     bool     `json:"panic"`
	Most      int64    `json:"most,omitempty"`      // that may be active; 0: unlimited
	Waiting   int64    `json:"waiting,omitempty"`   // for their turn
	Shed      float64  `json:"shed,omitempty"`      // refused for a limit, a second
	HeldBack  float64  `json:"held_back,omitempty"` // by admission control now, in percent of the requests
	Bounded   bool     `json:"-"`                   // there is a limit on active requests, or admission control
}

type endpointRate struct {
	Cluster string   `json:"cluster"`
	Address string   `json:"address"`
	ID      string   `json:"id,omitempty"`
	State   string   `json:"state"`
	Rate    float64  `json:"rate"`              // attempts a second
	Share   float64  `json:"share"`             // of the cluster's attempts
	Success *float64 `json:"success,omitempty"` // nil of none
	Active  int64    `json:"active"`
	EWMAMs  float64  `json:"ewma_ms"`
	Last    string   `json:"last"`

	words string
}

// since returns how much a counter grew. One that is smaller than it was has
// begun anew.
func since(before, now uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// succeeded returns the share of good ones, nil of none.
func succeeded(total, failed uint64) *float64 {
	if total == 0 {
		return nil
	}
	share := 1 - float64(min(failed, total))/float64(total)
	return &share
}

// between says what happened from one look to the next.
func between(before, now *admin.Overview) *rates {
	seconds := now.Now.Sub(before.Now).Seconds()
	if !before.Process.Started.Equal(now.Process.Started) {
		before = &admin.Overview{} // it was started anew: all is since then
		seconds = now.Now.Sub(now.Process.Started).Seconds()
	}
	seconds = max(seconds, 1e-3)
	r := &rates{
		Service: now.Process.Service, Version: now.Process.Version, Now: now.Now, Seconds: seconds,
		Up: now.Now.Sub(now.Process.Started).Seconds(), Plan: now.Reload.Version, State: "not ready",
		Clusters: []clusterRate{}, Endpoints: []endpointRate{},
	}
	switch {
	case now.Process.Draining:
		r.State = "draining"
	case now.Ready:
		r.State = "ready"
	}
	clusters := map[[2]string]*admin.ClusterView{}
	for i := range before.Clusters {
		c := &before.Clusters[i]
		clusters[[2]string{c.Direction, c.Name}] = c
	}
	endpoints := map[[2]string]*admin.EndpointView{}
	for i := range before.Endpoints {
		e := &before.Endpoints[i]
		endpoints[[2]string{e.Cluster, e.Address}] = e
	}
	byHand, sums := map[string]int{}, map[string]float64{}
	for i := range now.Endpoints {
		e := &now.Endpoints[i]
		was := endpoints[[2]string{e.Cluster, e.Address}]
		if was == nil {
			was = &admin.EndpointView{}
		}
		total, failed := since(was.Requests, e.Requests), since(was.Failures, e.Failures)
		er := endpointRate{
			Cluster: e.Cluster, Address: e.Address, ID: e.ID, State: e.Standing.State, words: e.Standing.Words(),
			Rate: float64(total) / seconds, Success: succeeded(total, failed), Active: e.Active, EWMAMs: e.EWMAMs, Last: admin.Strip(e.Evidence),
		}
		sums[e.Cluster] += er.Rate
		if s := e.Standing.State; s == admin.StandByHand || s == admin.StandPassedOver {
			byHand[e.Cluster]++
		}
		r.Endpoints = append(r.Endpoints, er)
	}
	for i := range r.Endpoints {
		if e := &r.Endpoints[i]; sums[e.Cluster] > 0 {
			e.Share = e.Rate / sums[e.Cluster]
		}
	}
	for i := range now.Clusters {
		c := &now.Clusters[i]
		was := clusters[[2]string{c.Direction, c.Name}]
		if was == nil {
			was = &admin.ClusterView{}
		}
		total, failed := since(was.Requests, c.Requests), since(was.Failures, c.Failures)
		cr := clusterRate{
			Name: c.Name, Direction: c.Direction, Rate: float64(total) / seconds, Success: succeeded(total, failed),
			Retries: float64(since(was.Retries, c.Retries)) / seconds, Active: c.Active,
			Available: c.Available, Total: c.Endpoints, Ejected: c.Ejected, ByHand: byHand[c.Name], Panic: c.Panic,
		}
		cr.Most, cr.Waiting, cr.HeldBack = c.Limits.Requests.Max, c.Waiting(), c.HeldBack()
		cr.Shed, cr.Bounded = float64(since(was.Shed(), c.Shed()))/seconds, len(c.Gates)+len(c.Admission) > 0
		d := telemetry.DistributionOf(c.Durations).Since(telemetry.DistributionOf(was.Durations))
		if d.Count() > 0 {
			p50, p99 := d.Quantile(0.5).Seconds()*1000, d.Quantile(0.99).Seconds()*1000
			cr.P50Ms, cr.P99Ms = &p50, &p99
		}
		if c.Breaker != nil {
			cr.Breaker = c.Breaker.State
		}
		r.Clusters = append(r.Clusters, cr)
	}
	for i := range now.Faults {
		f := &now.Faults[i]
		r.Faults = append(r.Faults, fmt.Sprintf("fault %s: %s for %g %% of %s %s", f.Name, f.Does, f.Percent, f.Direction, f.Cluster))
	}
	return r
}

func writeLine(w io.Writer, r *rates) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// write writes r as tables, each line cut off at width (0: not).
func (r *rates) write(w io.Writer, width int, colour bool) error {
	state := toned(toneGood, r.State)
	if r.State != "ready" {
		state.tone = toneWarn
	}
	top := []cell{
		toned(toneHead, r.Service), left("outrigger " + r.Version), left("up " + admin.Short(seconds(r.Up))), left(fmt.Sprintf("plan %d", r.Plan)),
		state, left(r.Now.Local().Format(time.TimeOnly)), left("over " + admin.Short(seconds(r.Seconds))),
	}
	if err := writeTable(w, [][]cell{top}, width, colour); err != nil {
		return err
	}
	for _, f := range r.Faults {
		if err := writeTable(w, [][]cell{{toned(toneWarn, f)}}, width, colour); err != nil {
			return err
		}
	}
	rows := [][]cell{head("CLUSTER DIRECTION -REQ/S -SUCCESS -P50 -P99 -RETRIES/S -ACTIVE -ENDPOINTS -EJECTED -BY-HAND BREAKER")}
	bounded := slices.ContainsFunc(r.Clusters, func(c clusterRate) bool { return c.Bounded })
	if bounded {
		rows[0] = slices.Insert(rows[0], 8, head("-WAITING -SHED/S -HELD-BACK")...)
	}
	for i := range r.Clusters {
		c := &r.Clusters[i]
		up := number("%d/%d", c.Available, c.Total)
		switch {
		case c.Panic:
			up = number("panic %d/%d", c.Available, c.Total).in(toneBad)
		case c.Available < c.Total:
			up.tone = toneWarn
		}
		rows = append(rows, []cell{
			left(c.Name), left(c.Direction), rate(c.Rate), success(c.Success), took(c.P50Ms), took(c.P99Ms), rate(c.Retries), c.active(),
			up, counted(c.Ejected, toneBad), counted(c.ByHand, toneWarn), breakerCell(c.Breaker),
		})
		if bounded {
			last := &rows[len(rows)-1]
			*last = slices.Insert(*last, 8, counted(int(c.Waiting), toneWarn), rate(c.Shed), c.heldBack())
		}
	}
	if len(rows) > 1 {
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		if err := writeTable(w, rows, width, colour); err != nil {
			return err
		}
	}
	rows = [][]cell{head("CLUSTER ENDPOINT ID STATE -ATT/S SHARE -SUCCESS -ACTIVE -EWMA LAST")}
	last := ""
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		name := left(e.Cluster)
		if e.Cluster == last {
			name = left(" ")
		}
		last = e.Cluster
		rows = append(rows, []cell{
			name, left(e.Address), left(e.ID), toned(tone(e.State), e.words), rate(e.Rate), left(bar(e.Share)), success(e.Success),
			number("%d", e.Active), number("%s", millis(e.EWMAMs)), left(e.Last),
		})
	}
	if len(rows) == 1 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return writeTable(w, rows, width, colour)
}

// active is how many are under way, and may be where that is bounded.
func (c *clusterRate) active() cell {
	if c.Most == 0 {
		return number("%d", c.Active)
	}
	n := number("%d/%d", c.Active, c.Most)
	if c.Active >= c.Most {
		n.tone = toneWarn
	}
	return n
}

func (c *clusterRate) heldBack() cell {
	if c.HeldBack == 0 {
		return number("0").in(toneSoft)
	}
	return number("%.0f %%", c.HeldBack).in(toneBad)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func rate(perSecond float64) cell {
	switch {
	case perSecond == 0:
		return number("0").in(toneSoft)
	case perSecond < 100:
		return number("%.1f", perSecond)
	}
	return number("%.0f", perSecond)
}

// success shows a share. Only all is 100 %.
func success(share *float64) cell {
	if share == nil {
		return cell{right: true}
	}
	c := number("%.2f %%", math.Floor(*share*1e4)/1e2)
	switch {
	case *share < 0.95:
		c.tone = toneBad
	case *share < 0.999:
		c.tone = toneWarn
	}
	if *share == 1 {
		c.text = "100 %"
	}
	return c
}

func took(ms *float64) cell {
	if ms == nil {
		return cell{right: true}
	}
	return number("%s", millis(*ms))
}

func counted(n int, tone string) cell {
	if n == 0 {
		return number("0").in(toneSoft)
	}
	return number("%d", n).in(tone)
}

func breakerCell(state string) cell {
	c := left(strings.ReplaceAll(state, "_", "-"))
	switch state {
	case "open":
		c.tone = toneBad
	case "half_open":
		c.tone = toneWarn
	}
	return c
}

// bar shows a share in eight characters and in percent.
func bar(share float64) string {
	const width = 8
	full := int(math.Round(min(max(share, 0), 1) * width))
	return strings.Repeat("█", full) + strings.Repeat("░", width-full) + fmt.Sprintf(" %3.0f %%", share*100)
}
