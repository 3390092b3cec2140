package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// Desk is an address at which a Server answers, and after it another one,
// without the address being closed in between.
type Desk struct {
	ln     net.Listener
	server atomic.Pointer[Server]
	once   sync.Once
	ending chan struct{} // closed by End
	ended  chan struct{} // closed when Run has returned
}

// NewDesk returns a Desk at which s answers; it starts nothing. Run closes ln.
func NewDesk(ln net.Listener, s *Server) *Desk {
	d := &Desk{ln: ln, ending: make(chan struct{}), ended: make(chan struct{})}
	d.server.Store(s)
	return d
}

// Addr is where it listens.
func (d *Desk) Addr() net.Addr { return d.ln.Addr() }

// Use has s answer from now on. Requests that have begun end with the Server
// before it.
func (d *Desk) Use(s *Server) { d.server.Store(s) }

// Run serves until ctx ends or End is called, then lets requests finish for a
// second. It is called once.
func (d *Desk) Run(ctx context.Context) error {
	defer close(d.ended)
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.server.Load().handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeadBytes,
		ErrorLog:          slog.NewLogLogger(d.server.Load().opts.Logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-d.ending:
		case <-stopped:
			return
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(last) != nil {
			_ = srv.Close() // what did not finish in time is cut off
		}
	}()
	err := srv.Serve(newLimited(d.ln, maxConnections))
	close(stopped)
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin: %w", err)
}

// End ends Run, which somebody has called or will, and returns when it has ended.
func (d *Desk) End() {
	d.once.Do(func() { close(d.ending) })
	<-d.ended
}

// Close closes the address of a Desk that is not run.
func (d *Desk) Close() error { return d.ln.Close() }
