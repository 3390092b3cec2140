package replay

import (
	"time"

	"github.com/outrigger-mesh/outrigger/resilience/guard"
	"github.com/outrigger-mesh/outrigger/resilience/outlier"
)

// caution is the policy's, nil without one.
func (c *Client) caution() *outlier.Caution {
	if c.policy.Outlier == nil {
		return nil
	}
	return c.policy.Outlier.Caution
}

// judge lets caution decide about the shares of the endpoints that take traffic,
// as upstream.Cluster does at every review.
func (c *Client) judge(cfg *outlier.Caution, now time.Duration) {
	c.seen, c.judging = c.seen[:0], c.judging[:0]
	for _, e := range c.endpoints {
		e.load.Roll()
		if e.state.State() != outlier.Healthy {
			continue
		}
		ended, failed, took := e.load.Rolled()
		c.seen = append(c.seen, outlier.Seen{Suspect: &e.suspect, Weight: max(e.Weight, 1), Ended: ended, Failed: failed, Took: took})
		c.judging = append(c.judging, e)
	}
	cfg.Judge(now, now-c.judged, c.seen)
	c.judged = now
	for _, e := range c.judging {
		share := 1.0
		if cfg.Mode == guard.Enforce {
			share, _ = e.suspect.Share()
		}
		e.load.SetShare(share)
	}
}
