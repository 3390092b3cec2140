package demo

import (
	"context"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

const (
	pollTime = 250 * time.Millisecond
	// pollsKept are compared to get the rates of endpoints.
	pollsKept = 8
)

// watcher reads the admin API of web's sidecar from time to time.
type watcher struct {
	mesh *mesh

	mu    sync.Mutex
	polls []poll // oldest first
}

type poll struct {
	at        time.Time
	endpoints []admin.EndpointView
	cluster   admin.ClusterView
}

func (w *watcher) run(ctx context.Context) {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		if p, err := w.poll(ctx); err == nil {
			w.add(p)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *watcher) poll(ctx context.Context) (poll, error) {
	p := poll{at: time.Now()}
	base := "http://" + w.mesh.Web.Admin
	if err := get(ctx, base+"/endpoints?format=json", &p.endpoints); err != nil {
		return p, err
	}
	var clusters []admin.ClusterView
	if err := get(ctx, base+"/clusters?format=json", &clusters); err != nil {
		return p, err
	}
	for i := range clusters {
		if clusters[i].Name == serviceAPI {
			p.cluster = clusters[i]
		}
	}
	return p, nil
}

func (w *watcher) add(p poll) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.polls) == pollsKept {
		w.polls = append(w.polls[:0], w.polls[1:]...)
	}
	w.polls = append(w.polls, p)
}

// seen is what the sidecar of web knows about an endpoint of api.
type seen struct {
	admin.EndpointView
	rate   float64 // attempts a second
	failed float64 // failed attempts a second
}

// latest returns what was seen last, endpoints by address.
func (w *watcher) latest() (map[string]seen, admin.ClusterView) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.polls) == 0 {
		return nil, admin.ClusterView{}
	}
	first, last := w.polls[0], w.polls[len(w.polls)-1]
	all := make(map[string]seen, len(last.endpoints))
	for _, e := range last.endpoints {
		if e.Cluster == serviceAPI {
			all[e.Address] = seen{EndpointView: e}
		}
	}
	gap := last.at.Sub(first.at).Seconds()
	for _, e := range first.endpoints {
		s, ok := all[e.Address]
		// An endpoint that was listed anew begins to count anew.
		if ok && e.Cluster == serviceAPI && gap > 0 && s.Requests >= e.Requests && s.Failures >= e.Failures {
			s.rate = float64(s.Requests-e.Requests) / gap
			s.failed = float64(s.Failures-e.Failures) / gap
			all[e.Address] = s
		}
	}
	return all, last.cluster
}
