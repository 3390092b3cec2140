package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// load is a steady stream of requests over kept connections.
type load struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	sent     int
	each     []int // what each worker has sent
	failures []string
	by       map[string]int // answers by the instance that gave them
}

// loadOptions says how a load is made.
type loadOptions struct {
	Method  string        // default GET
	Workers int           // default 4
	Pause   time.Duration // of each worker between two requests; default 20ms
}

// startLoad begins to call url. It ends with end, or with the test.
func startLoad(t *testing.T, url string, o loadOptions) *load {
	t.Helper()
	if o.Method == "" {
		o.Method = http.MethodGet
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Pause == 0 {
		o.Pause = 20 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stop: cancel, by: map[string]int{}, each: make([]int, o.Workers)}
	// More than there are workers: a worker may get the connection of another while
	// its own is still made, and neither is to be closed for that.
	tr := &http.Transport{MaxIdleConnsPerHost: 4 * o.Workers}
	client := &http.Client{Transport: tr, Timeout: 15 * time.Second}
	for i := range o.Workers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.once(client, o.Method, url)
				l.mu.Lock()
				l.each[i]++
				l.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(o.Pause):
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		l.wg.Wait()
		tr.CloseIdleConnections()
	})
	return l
}

// once sends one request; it is never cut short by the end of the load.
func (l *load) once(client *http.Client, method, url string) {
	began := time.Now()
	req, err := http.NewRequestWithContext(context.Background(), method, url, http.NoBody)
	if err != nil {
		panic(err) // the test's own URL
	}
	problem, instance := "", ""
	resp, err := client.Do(req)
	if err != nil {
		problem = err.Error()
	} else {
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		instance = resp.Header.Get("X-Instance")
		switch {
		case err != nil:
			problem = err.Error()
		case resp.StatusCode != http.StatusOK:
			problem = fmt.Sprintf("%d %s", resp.StatusCode, body)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if problem != "" {
		l.failures = append(l.failures, fmt.Sprintf("%s after %v: %s", time.Now().Format("15:04:05.000"), time.Since(began).Round(time.Millisecond), problem))
	} else {
		l.by[instance]++
	}
}

// count returns how many requests have ended so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// answered returns how many answers the instance has given.
func (l *load) answered(instance string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[instance]
}

// more waits until n further requests have ended.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	want := l.count() + n
	eventually(t, 2*patience, fmt.Sprintf("%d further requests", n), func() (bool, string) {
		have := l.count()
		return have >= want, fmt.Sprintf("%d are missing", want-have)
	})
}

// settled waits until all requests have ended that are under way now.
func (l *load) settled(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	before := slices.Clone(l.each)
	l.mu.Unlock()
	eventually(t, 2*patience, "what was on its way has ended", func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, n := range before {
			if l.each[i] == n {
				return false, fmt.Sprintf("worker %d waits for its answer", i)
			}
		}
		return true, ""
	})
}

// end stops the load and returns the failures and how many requests there were.
func (l *load) end() (failures []string, sent int) {
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failures, l.sent
}

// mustEnd stops the load, which must have had no failure and at least so many
// requests.
func (l *load) mustEnd(t *testing.T, least int) {
	t.Helper()
	failures, sent := l.end()
	if sent < least {
		t.Errorf("the load was %d requests; at least %d were expected", sent, least)
	}
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(failures), sent, failures[0])
		for _, f := range failures[1:min(len(failures), 5)] {
			t.Log(f)
		}
	}
}

// named makes h say which instance answers.
func named(instance string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Instance", instance)
		h.ServeHTTP(w, r)
	})
}
