package admin

import (
	"io"
	"net/http"
	"time"
)

// NewProbes returns a Server for /ready and /live alone, which others may reach.
func NewProbes(o Options) *Server {
	mux := http.NewServeMux()
	s := narrow(o, mux)
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /live", s.live)
	return s
}

// NewMetrics returns a Server for the metrics alone, at path, which others may
// reach.
func NewMetrics(o Options, path string) *Server {
	mux := http.NewServeMux()
	s := narrow(o, mux)
	mux.Handle("GET "+path, o.Metrics)
	return s
}

// Lifecycle is how another process on this machine ends the proxy or waits for it.
type Lifecycle struct {
	ShutdownPath, StartupPath string
	// StartupTimeout bounds the wait.
	StartupTimeout time.Duration
	// Shutdown ends the proxy as SIGTERM does, and does not wait.
	Shutdown func()
}

// startupStep is how often it is looked whether the proxy is ready.
const startupStep = 50 * time.Millisecond

// NewLifecycle returns a Server for l, for this machine alone.
func NewLifecycle(o Options, l Lifecycle) *Server {
	mux := http.NewServeMux()
	o.AllowRemote = false
	s := newServer(o)
	s.handler = s.guard(http.NewCrossOriginProtection().Handler(mux))
	end := func(w http.ResponseWriter, _ *http.Request) {
		l.Shutdown()
		_, _ = io.WriteString(w, "draining\n")
	}
	// Kubernetes' hooks know GET only.
	mux.HandleFunc("GET "+l.ShutdownPath, end)
	mux.HandleFunc("POST "+l.ShutdownPath, end)
	mux.HandleFunc("GET "+l.StartupPath, func(w http.ResponseWriter, r *http.Request) {
		until := time.NewTimer(l.StartupTimeout)
		defer until.Stop()
		step := time.NewTicker(startupStep)
		defer step.Stop()
		for !s.readiness().Ready {
			select {
			case <-step.C:
			case <-until.C:
				s.ready(w, r)
				return
			case <-r.Context().Done():
				return
			}
		}
		s.ready(w, r)
	})
	return s
}

// narrow returns a Server for what mux has, which others may reach.
func narrow(o Options, mux *http.ServeMux) *Server {
	o.AllowRemote = true
	s := newServer(o)
	s.handler = s.guard(mux)
	return s
}
