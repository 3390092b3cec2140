package rerun

import (
	"math"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/hist"
)

// Figures are what is compared.
type Figures struct {
	Requests uint64 `json:"requests"`
	Good     uint64 `json:"good"`
	// Bad is what the caller saw fail; Refused is how many of these this proxy refused
	// itself.
	Bad     uint64 `json:"failed"`
	Refused uint64 `json:"refused"`
	// RefusedGood would have been answered well; RefusedInferred is how many of these
	// are inferred, as they were refused when they were recorded, too. nil: not known.
	RefusedGood     *uint64 `json:"refused_good"`
	RefusedInferred *uint64 `json:"refused_good_inferred"`

	Attempts  uint64  `json:"attempts"`
	Retries   uint64  `json:"retries"`
	Hedges    uint64  `json:"hedges"`
	ExtraLoad float64 `json:"extra_load_percent"`

	Ejections     uint64 `json:"ejections"`
	WouldEject    uint64 `json:"would_eject"`
	Readmissions  uint64 `json:"readmissions"`
	BreakerOpened uint64 `json:"breaker_opened"`

	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
}

// BadPercent is the share of requests that failed for the caller.
func (f *Figures) BadPercent() float64 { return percent(float64(f.Bad), float64(f.Requests)) }

func percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (f *Figures) derive(h *hist.Histogram) {
	extra := float64(f.Retries + f.Hedges)
	f.ExtraLoad = percent(extra, float64(f.Attempts)-extra)
	if h.Count() > 0 {
		f.P50, f.P90, f.P99, f.P999, f.Max = millis(h.Quantile(.5)), millis(h.Quantile(.9)), millis(h.Quantile(.99)), millis(h.Quantile(.999)), millis(h.Max())
	}
}

func (f *Facts) figures() Figures {
	v := Figures{
		Requests: f.Requests, Good: f.Good, Bad: f.Failed + f.Refused, Refused: f.Refused,
		Attempts: f.Attempts, Retries: f.Retries, Hedges: f.Hedges,
		Ejections: f.Ejections, WouldEject: f.WouldEject, Readmissions: f.Readmissions, BreakerOpened: f.BreakerOpened,
	}
	v.derive(&f.Latency)
	return v
}

// Figures returns the figures of the cluster.
func (c *ClusterResult) Figures() Figures {
	n := c.Stats.Total()
	good, inferred := c.RefusedGood+c.RefusedProbablyGood, c.RefusedProbablyGood
	v := Figures{
		Requests: n.Offered + c.Refused, Good: n.Good, Bad: n.Failed + n.Refused + c.Refused, Refused: n.Refused + c.Refused, RefusedGood: &good, RefusedInferred: &inferred,
		Attempts: n.Sent, Retries: n.Retries, Hedges: n.Hedges,
		Ejections: n.Ejections, WouldEject: n.WouldEject, Readmissions: n.Readmissions, BreakerOpened: n.BreakerOpened,
	}
	v.derive(&c.Stats.Latency)
	return v
}

// Confidence says how much of a result was seen and how much is inferred.
type Confidence struct {
	Observed float64 `json:"observed_percent"`          // ends of attempts: it was made, there and then
	Endpoint float64 `json:"inferred_endpoint_percent"` // from what the same endpoint did within 5 s
	Peers    float64 `json:"inferred_peers_percent"`    // from what others of the cluster did within 5 s
	Guessed  float64 `json:"guessed_percent"`           // from less
	Picks    float64 `json:"picks_as_recorded_percent"` // endpoints that were chosen as they had been
}

// Confidence says how much of it was seen.
func (c *ClusterResult) Confidence() Confidence {
	sum := uint64(0)
	for _, n := range c.Ends {
		sum += n
	}
	share := func(s Source) float64 { return percent(float64(c.Ends[s]), float64(sum)) }
	v := Confidence{Observed: share(Observed), Endpoint: share(Near), Peers: share(Peers), Guessed: share(Guessed)}
	v.Picks = percent(float64(c.Picks[0]), float64(c.Picks[0]+c.Picks[1]))
	return v
}

// Word says the confidence in a word.
func (c Confidence) Word() string {
	switch {
	case c.Observed >= 99 && c.Guessed < .5:
		return "high"
	case c.Observed >= 80 && c.Guessed < 5:
		return "good"
	case c.Guessed < 20:
		return "fair"
	}
	return "low"
}

// ClusterReport compares what came of one cluster's requests.
type ClusterReport struct {
	Name      string  `json:"cluster"`
	Direction string  `json:"direction"`
	Recorded  Figures `json:"recorded"`
	Replayed  Figures `json:"replayed"`
	// Off is by how many percent of the requests the replay differs from what happened.
	Off float64 `json:"off_percent"`
	New *struct {
		Figures
		Confidence Confidence `json:"confidence"`
	} `json:"new,omitempty"`
}

// Report compares what happened with what comes of it under the configuration of the
// time and under another.
type Report struct {
	From      time.Time       `json:"from"`
	SpanMs    float64         `json:"span_ms"`
	Requests  uint64          `json:"requests"`
	Outside   uint64          `json:"not_replayed"`
	Damage    any             `json:"damage"`
	TookMs    float64         `json:"took_ms"`
	PerSecond float64         `json:"outcomes_per_second"`
	Clusters  []ClusterReport `json:"clusters"`
}

// Compare reports on what same, the rerun by the configurations of the log, and next,
// that by another, which may be nil, have come to.
func (t *Trace) Compare(same, next *Result) *Report {
	v := &Report{From: t.From, SpanMs: millis(t.Span), Outside: t.outside, Damage: t.Damage, Clusters: []ClusterReport{}}
	for i, c := range t.clusters {
		if c.facts.Requests == 0 {
			continue
		}
		r := ClusterReport{Name: c.name, Direction: "outbound", Recorded: c.facts.figures(), Replayed: same.Clusters[i].Figures()}
		if c.inbound {
			r.Direction = "inbound"
		}
		v.Requests += r.Recorded.Requests
		r.Off = off(&r.Recorded, &r.Replayed)
		if next != nil {
			n := next.Clusters[i]
			r.New = &struct {
				Figures
				Confidence Confidence `json:"confidence"`
			}{n.Figures(), n.Confidence()}
		}
		v.Clusters = append(v.Clusters, r)
	}
	return v
}

// off is the largest difference of two counts in percent of the requests.
func off(a, b *Figures) float64 {
	most := 0.0
	for _, p := range [][2]uint64{{a.Requests, b.Requests}, {a.Good, b.Good}, {a.Bad, b.Bad}, {a.Refused, b.Refused}, {a.Attempts, b.Attempts}, {a.Retries, b.Retries}} {
		most = max(most, math.Abs(float64(p[0])-float64(p[1])))
	}
	return percent(most, float64(a.Requests))
}
