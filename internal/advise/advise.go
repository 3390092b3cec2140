// Package advise proposes timeouts, retries, limits and ejection from an outcome log, and shows of each by replay that it is not worse.
package advise

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/internal/rerun"
)

// leastRequests is how many requests a cluster must have for any advice.
const leastRequests = 1000

// Verdict is what became of a proposal.
type Verdict string

// The verdicts.
const (
	Accepted Verdict = "proposed" // replay shows that it is not worse
	Rejected Verdict = "rejected" // replay shows that it is worse
	Kept     Verdict = "kept"     // what is in force is right, or nothing speaks for another value
	Unknown  Verdict = "unknown"  // too little is known
)

// Advice is about one setting of a cluster.
type Advice struct {
	Cluster  string  `json:"cluster"`
	Setting  string  `json:"setting"` // below policies.<service>
	Now      string  `json:"now"`
	Proposed string  `json:"proposed,omitempty"`
	Evidence string  `json:"evidence"`
	Verdict  Verdict `json:"verdict"`
	Why      string  `json:"why,omitempty"` // it was rejected
}

// ClusterAdvice is all advice about a cluster, with what replay makes of it.
type ClusterAdvice struct {
	Cluster    string            `json:"cluster"`
	Requests   int               `json:"requests"`
	Advice     []Advice          `json:"advice"`
	Before     *rerun.Figures    `json:"before,omitempty"`
	After      *rerun.Figures    `json:"after,omitempty"`
	Confidence *rerun.Confidence `json:"confidence,omitempty"`
	changed    map[string]string // setting to value
}

// Report is all advice.
type Report struct {
	Clusters []*ClusterAdvice `json:"clusters"`
	// Skipped are clusters that had too few requests.
	Skipped []string `json:"skipped"`
}

// proposal is an advice that may be tried.
type proposal struct {
	Advice
	set map[string]string // settings below the policy with their values in YAML
	do  func(*config.Policy)
}

// Make proposes for every outbound cluster of t, beginning with the policies of
// loaded.
func Make(t *rerun.Trace, loaded *config.Loaded) (*Report, error) {
	v := &Report{Clusters: []*ClusterAdvice{}, Skipped: []string{}}
	for i := range t.Clusters() {
		m := t.Measure(i)
		switch {
		case m.Inbound || m.Requests == 0:
			continue
		case m.Requests < leastRequests:
			v.Skipped = append(v.Skipped, fmt.Sprintf("%s has %d requests in the log; advice takes %d", m.Name, m.Requests, leastRequests))
			continue
		}
		c, err := makeFor(t, i, m, loaded)
		if err != nil {
			return nil, err
		}
		v.Clusters = append(v.Clusters, c)
	}
	return v, nil
}

// prover runs policies for one cluster.
type prover struct {
	t      *rerun.Trace
	i      int
	name   string
	loaded *config.Loaded
}

// under reruns the log with the cluster's policy changed.
func (p *prover) under(policy *config.Policy) (*rerun.ClusterResult, error) {
	cfg := *p.loaded.Config
	cfg.Policies = maps.Clone(cfg.Policies)
	if cfg.Policies == nil {
		cfg.Policies = map[string]config.Policy{}
	}
	cfg.Policies[p.name] = *policy
	r, err := p.t.Under(&config.Loaded{Config: &cfg, File: p.loaded.File})
	if err != nil {
		return nil, err
	}
	return r.Clusters[p.i], nil
}

func makeFor(t *rerun.Trace, i int, m *rerun.Measure, loaded *config.Loaded) (*ClusterAdvice, error) {
	p := &prover{t: t, i: i, name: m.Name, loaded: loaded}
	policy := loaded.Config.Policy(m.Name)
	best, err := p.under(&policy)
	if err != nil {
		return nil, err
	}
	c := &ClusterAdvice{Cluster: m.Name, Requests: m.Requests, Advice: []Advice{}, changed: map[string]string{}}
	before := best.Figures()
	c.Before = &before
	figures := before
	for _, propose := range []func(*rerun.Measure, *config.Policy) []proposal{proposeOutlier, proposeRetry, proposeTimeout, proposeTryTimeout, proposeHedge, proposeBudget, proposeLimit} {
		options := propose(m, &policy)
		var chosen *proposal
		var result *rerun.ClusterResult
		var after rerun.Figures
		for k := range options {
			o := &options[k]
			o.Cluster = m.Name
			if o.Verdict != "" { // nothing to try
				if len(options) == 1 {
					c.Advice = append(c.Advice, o.Advice)
				}
				continue
			}
			next := copyPolicy(&policy)
			o.do(&next)
			r, err := p.under(&next)
			if err != nil {
				return nil, err
			}
			f := r.Figures()
			if why := worse(&figures, &f); why != "" {
				o.Verdict, o.Why = Rejected, why
				continue
			}
			o.Verdict = Accepted
			if chosen == nil || better(&after, &f) {
				chosen, result, after = o, r, f
			}
		}
		if chosen == nil {
			if len(options) > 0 && options[0].Verdict == Rejected {
				c.Advice = append(c.Advice, options[0].Advice)
			}
			continue
		}
		if len(options) > 1 && !better(&figures, &after) {
			chosen.Verdict, chosen.Evidence = Kept, chosen.Evidence+"; replay shows no gain over what is in force"
			chosen.Proposed = ""
			c.Advice = append(c.Advice, chosen.Advice)
			continue
		}
		c.Advice = append(c.Advice, chosen.Advice)
		maps.Copy(c.changed, chosen.set)
		next := copyPolicy(&policy)
		chosen.do(&next)
		policy, figures, best = next, after, result
	}
	if len(c.changed) > 0 {
		c.After = &figures
		conf := best.Confidence()
		c.Confidence = &conf
	}
	return c, nil
}

// copyPolicy is a policy whose sections may be changed.
func copyPolicy(p *config.Policy) config.Policy {
	n := *p
	if p.Retry != nil {
		r := *p.Retry
		n.Retry = &r
	}
	if p.Hedge != nil {
		h := *p.Hedge
		n.Hedge = &h
	}
	if p.Outlier != nil {
		o := *p.Outlier
		n.Outlier = &o
	}
	return n
}

// YAML writes what is proposed as a part of a configuration.
func (v *Report) YAML() string {
	var b strings.Builder
	for _, c := range v.Clusters {
		if len(c.changed) == 0 {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("policies:\n")
		}
		fmt.Fprintf(&b, "  %s:\n", key(c.Cluster))
		section := ""
		for _, path := range slices.SortedFunc(maps.Keys(c.changed), bySection) {
			name, rest, nested := strings.Cut(path, ".")
			switch {
			case !nested:
				fmt.Fprintf(&b, "    %s: %s\n", path, c.changed[path])
				continue
			case name != section:
				fmt.Fprintf(&b, "    %s:\n", name)
				section = name
			}
			fmt.Fprintf(&b, "      %s: %s\n", rest, c.changed[path])
		}
	}
	if b.Len() == 0 {
		return "# nothing is proposed\n"
	}
	return b.String()
}

// bySection puts plain settings before those of sections.
func bySection(a, b string) int {
	an, bn := strings.Contains(a, "."), strings.Contains(b, ".")
	if an != bn {
		if an {
			return 1
		}
		return -1
	}
	return strings.Compare(a, b)
}

// key is a name as a key of YAML.
func key(s string) string {
	for _, c := range s {
		if !(c == '-' || c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}
