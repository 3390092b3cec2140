package demo

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	maxInFlight = 256             // requests under way; what is due beyond them is not sent
	loadTimeout = 5 * time.Second // of one request
)

// load sends requests at a steady rate, whether or not earlier ones have been
// answered (open loop). Latency counts from when a request was due, so that a
// stall shows in it.
type load struct {
	url   string
	rate  int
	began time.Time
	stats *stats
}

// run sends until ctx ends, then waits for the requests under way.
func (l *load) run(ctx context.Context) {
	transport := &http.Transport{MaxIdleConns: maxInFlight, MaxIdleConnsPerHost: maxInFlight, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: loadTimeout}

	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, maxInFlight)
	gap := time.Second / time.Duration(l.rate)
	due := l.began
	tick := time.NewTicker(max(gap, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for ; !due.After(time.Now()); due = due.Add(gap) {
			select {
			case places <- struct{}{}:
			default:
				l.stats.skipped()
				continue
			}
			at := due
			wg.Go(func() {
				defer func() { <-places }()
				ok := l.once(client)
				now := time.Now()
				l.stats.request(now.Sub(l.began), now.Sub(at), ok)
			})
		}
	}
}

// once sends one request. It is not tied to the load's end, so that no request
// fails by that.
func (l *load) once(client *http.Client) bool {
	resp, err := client.Get(l.url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}
