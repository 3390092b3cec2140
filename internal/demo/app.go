package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Words that an application understands on its standard input, one a line.
const (
	sayFail = "fail" // answer 500 to everything
	sayWork = "work" // answer as usual
)

const (
	workMin     = time.Millisecond // how long an answer of api takes at least
	workSpread  = 3 * time.Millisecond
	maxBody     = 64 << 10
	appTimeout  = 10 * time.Second
	appIdle     = 5 * time.Minute
	appPoolSize = 256
)

// App is one of the demo's applications. It listens on loopback in plain text;
// what it knows of the mesh is the address of its sidecar.
type App struct {
	// Name is said in the answers of an App without Upstream.
	Name string
	// Listen is the address to listen on.
	Listen string
	// Upstream is called for each request, and its answer passed on. Empty:
	// the App answers itself, after a few milliseconds.
	Upstream string

	failing atomic.Bool
}

// Run serves until ctx or control ends. Control is how the demo turns the
// application to errors and back, and how it ends with the demo even if that
// is killed.
func (a *App) Run(ctx context.Context, control io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, err := net.Listen("tcp", a.Listen)
	if err != nil {
		return err
	}
	// It stays behind when ctx ends first: reading cannot be interrupted, and
	// the process ends with Run.
	go func() {
		lines := bufio.NewScanner(control)
		for lines.Scan() {
			a.say(lines.Text())
		}
		cancel(nil)
	}()
	client := &http.Client{
		Timeout:   appTimeout,
		Transport: &http.Transport{MaxIdleConns: appPoolSize, MaxIdleConnsPerHost: appPoolSize, IdleConnTimeout: appTimeout},
	}
	defer client.CloseIdleConnections()
	srv := &http.Server{Handler: a.handler(client), ReadHeaderTimeout: appTimeout, IdleTimeout: appIdle}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	last, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	if srv.Shutdown(last) != nil {
		_ = srv.Close() // requests that outlast the second are cut
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *App) say(word string) {
	switch word {
	case sayFail:
		a.failing.Store(true)
	case sayWork:
		a.failing.Store(false)
	}
}

func (a *App) handler(client *http.Client) http.Handler {
	if a.Upstream == "" {
		return http.HandlerFunc(a.answer)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.relay(client, w, r) })
}

func (a *App) answer(w http.ResponseWriter, r *http.Request) {
	work := time.NewTimer(workMin + rand.N(workSpread))
	defer work.Stop()
	select {
	case <-work.C:
	case <-r.Context().Done():
		return
	}
	if a.failing.Load() {
		http.Error(w, a.Name+" is told to fail", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "{\"instance\":%q}\n", a.Name)
}

// relay calls the upstream once. It does not retry: that is the sidecar's part.
func (a *App) relay(client *http.Client, w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, a.Upstream+r.URL.RequestURI(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, name := range []string{"X-Request-Id", "Traceparent", "Tracestate"} {
		if v := r.Header.Get(name); v != "" {
			req.Header.Set(name, v)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body) // the caller is gone
}
