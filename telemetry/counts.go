package telemetry

import "github.com/outrigger-mesh/outrigger/proxy/outcome"

// clusterCounts is what most clusters of a large mesh never count: it is made with the
// first of them.
type clusterCounts struct {
	others          [outcome.Count][classCount]Counter // exchanges with another outcome than OK
	retries         [outcome.Count]Counter
	withheld        [retryWithheldCount]Counter
	limited         [limitCount]Counter
	wouldHave       [guardKindCount]Counter
	connectFailures [outcome.Count]Counter
	tunnels         UpDown
	tunnelsEnded    [outcome.Count]Counter
	checks          [checkResultCount]Counter
	affinity        [affinityCount]Counter
	loads           [loadResultCount]Counter
	orders          [orderCount]Counter
	places          [placeCount]Counter
	failovers       Counter
	queueing        queueing
	faulted         faulted
	hedges          hedges
}

// count returns what is counted in, which it makes if need be.
func (c *Cluster) count() *clusterCounts {
	if n := c.counts.Load(); n != nil {
		return n
	}
	c.counts.CompareAndSwap(nil, new(clusterCounts))
	return c.counts.Load()
}

// counted returns what is read; it is not to be written to.
func (c *Cluster) counted() *clusterCounts {
	if n := c.counts.Load(); n != nil {
		return n
	}
	return c.m.nothing
}

// shard returns the part of the counters that such a downstream connection writes.
func (c *Cluster) shard(number uint32) *shard {
	p := c.shards.Load()
	if p == nil {
		all := make([]shard, c.mask+1)
		c.shards.CompareAndSwap(nil, &all)
		p = c.shards.Load()
	}
	return &(*p)[number&c.mask]
}

// parts returns all of them, none before the first exchange.
func (c *Cluster) parts() []shard {
	if p := c.shards.Load(); p != nil {
		return *p
	}
	return nil
}
