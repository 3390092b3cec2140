package demo

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"
)

// logLine is what the demo reads of a line of a sidecar's own log.
type logLine struct {
	Time     time.Time `json:"time"`
	Level    string    `json:"level"`
	Message  string    `json:"msg"`
	Event    string    `json:"event"`
	Cluster  string    `json:"cluster"`
	Endpoint string    `json:"endpoint"`
	Cause    string    `json:"cause"`
	For      string    `json:"for"`
}

// parseEvent returns the event that a line of the log of web's sidecar tells of.
func parseEvent(line []byte) (Event, bool) {
	var l logLine
	if json.Unmarshal(line, &l) != nil {
		return Event{}, false
	}
	switch {
	case l.Event == "identity":
		return Event{At: l.Time, Kind: kindRotated, Instance: serviceWeb}, true
	case l.Event != "" && l.Cluster == serviceAPI:
		return Event{At: l.Time, Kind: l.Event, Endpoint: l.Endpoint, Cause: l.Cause, For: l.For}, true
	}
	return Event{}, false
}

// record is what the demo reads of a line of a sidecar's access log.
type record struct {
	Time         time.Time `json:"time"`
	Direction    string    `json:"direction"`
	Cluster      string    `json:"cluster"`
	Status       int       `json:"status"`
	DurationUs   int64     `json:"duration_us"`
	AttemptCount int       `json:"attempt_count"`
	Attempts     []struct {
		Endpoint string `json:"endpoint"`
		Reason   string `json:"reason"`
		Status   int    `json:"status"`
	} `json:"attempts"`
	DownstreamID string `json:"downstream_id"`
	UpstreamID   string `json:"upstream_id"`
}

// witness keeps what the access logs of the sidecars say: the identities that
// each side saw, and the retries.
type witness struct {
	stats *stats
	j     *journal

	mu      sync.Mutex
	clients map[string]uint64 // as the sidecars of api saw their callers
	servers map[string]uint64 // as the sidecar of web saw whom it called
	burst   burst
}

// burst is a run of retries without a pause of a second.
type burst struct {
	from, until time.Time
	count       uint64
	endpoint    string // that failed first
	cause       string
}

func newWitness(s *stats, j *journal) *witness {
	return &witness{stats: s, j: j, clients: map[string]uint64{}, servers: map[string]uint64{}}
}

// outbound takes a line of the access log of web's sidecar.
func (w *witness) outbound(line []byte) {
	var r record
	if json.Unmarshal(line, &r) != nil || r.Direction != "outbound" || r.Cluster != serviceAPI || r.Time.Before(w.j.began) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.UpstreamID != "" {
		w.servers[r.UpstreamID]++
	}
	if r.AttemptCount < 2 {
		return
	}
	n := uint64(r.AttemptCount - 1)
	// The record's time is that of the request, which may have begun before
	// the fault that it met.
	end := r.Time.Add(time.Duration(r.DurationUs) * time.Microsecond)
	w.stats.retried(end.Sub(w.j.began), n)
	if w.burst.count > 0 && end.Sub(w.burst.until) > time.Second {
		w.endBurst()
	}
	if w.burst.count == 0 {
		w.burst.from = end
		if len(r.Attempts) > 0 {
			w.burst.endpoint, w.burst.cause = r.Attempts[0].Endpoint, r.Attempts[0].Reason
		}
	}
	w.burst.until = end
	w.burst.count += n
}

// inbound takes a line of the access log of a sidecar of api.
func (w *witness) inbound(line []byte) {
	var r record
	if json.Unmarshal(line, &r) != nil || r.Direction != "inbound" || r.DownstreamID == "" || r.Time.Before(w.j.began) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients[r.DownstreamID]++
}

// settle reports a burst of retries that is over at now; with a zero now every one is.
func (w *witness) settle(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.burst.count > 0 && (now.IsZero() || now.Sub(w.burst.until) > time.Second) {
		w.endBurst()
	}
}

func (w *witness) endBurst() {
	b := w.burst
	w.burst = burst{}
	w.j.add(Event{At: b.from, Kind: kindRetryBurst, Endpoint: b.endpoint, Cause: b.cause, Count: b.count})
}

// identities returns the identities that were seen, sorted.
func (w *witness) identities() (clients, servers []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.clients)), slices.Sorted(maps.Keys(w.servers))
}
