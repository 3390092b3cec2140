// Package admin serves what an operator asks of a running proxy: metrics, readiness, state, log level, and a dashboard.
package admin

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Bounds of the server.
const (
	maxConnections = 64
	maxHeadBytes   = 16 << 10
	maxBodyBytes   = 4 << 10
	headTimeout    = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 60 * time.Second // leaves room for a profile of 30s
	idleTimeout    = 30 * time.Second
	stopTimeout    = time.Second
)

// Options configures a Server.
type Options struct {
	// Metrics serves /metrics.
	Metrics http.Handler
	// Views are the data of the other pages.
	Views Views
	// LogLevel is what /log-level reads and sets; nil turns the page off.
	LogLevel *slog.LevelVar
	// Pprof serves /debug/pprof/.
	Pprof bool
	// AllowRemote lets callers in that are not on this machine, or whose Host
	// is not a loopback name. Leave it off unless Listener is meant to be
	// reached from elsewhere: the check of Host is what keeps a web page in an
	// operator's browser from reading the API by DNS rebinding.
	AllowRemote bool
	// Logger gets the server's own errors; default slog.Default.
	Logger *slog.Logger
	// Now is the clock for ages; default time.Now.
	Now func() time.Time
}

// Server is the admin server.
type Server struct {
	opts    Options
	handler http.Handler
}

// New returns a Server; it starts nothing.
func New(o Options) *Server {
	s := newServer(o)
	mux := http.NewServeMux()
	s.always(mux)
	mux.HandleFunc("GET /config", s.config)
	mux.HandleFunc("GET /endpoints", s.endpoints)
	mux.HandleFunc("GET /clusters", s.clusters)
	mux.HandleFunc("GET /rate-limits", s.rateLimits)
	mux.HandleFunc("GET /connections", s.connections)
	mux.HandleFunc("GET /plaintext", s.plaintext)
	mux.HandleFunc("GET /identity", s.identity)
	mux.HandleFunc("GET /discovery", s.discovery)
	mux.HandleFunc("GET /why", s.why)
	mux.HandleFunc("GET /ledger", s.ledger)
	mux.HandleFunc("GET /explain", s.explain)
	mux.HandleFunc("GET /faults", s.faults)
	if o.Views.Order != nil {
		for _, act := range []string{"eject", "pin", "release"} {
			mux.HandleFunc("POST /endpoints/"+act, s.order(act))
		}
	}
	if o.Views.Faults.Start != nil {
		mux.HandleFunc("POST /faults/start", s.startFault)
		mux.HandleFunc("POST /faults/stop", s.stopFault)
	}
	// A page of another site must not change anything, AllowRemote or not.
	s.handler = s.guard(http.NewCrossOriginProtection().Handler(mux))
	return s
}

// always serves on mux what there is at any time.
func (s *Server) always(mux *http.ServeMux) {
	o := &s.opts
	mux.HandleFunc("GET /{$}", s.overview)
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /live", s.live)
	mux.HandleFunc("GET /consul", s.mesh)
	mux.HandleFunc("GET /dashboard.css", asset("dashboard.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /dashboard.js", asset("dashboard.js", "text/javascript; charset=utf-8"))
	if o.Metrics != nil {
		mux.Handle("GET /metrics", o.Metrics)
	}
	if o.LogLevel != nil {
		mux.HandleFunc("GET /log-level", s.logLevel)
		mux.HandleFunc("PUT /log-level", s.setLogLevel)
	}
	if o.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
}

// newServer fills in what o leaves out.
func newServer(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Server{opts: o}
}

// Handler returns what a Desk serves.
func (s *Server) Handler() http.Handler { return s.handler }

// guard turns away who may not be here, and bounds what the others send.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		if !s.opts.AllowRemote {
			if !loopbackHost(r.Host) {
				http.Error(w, "Host is not a loopback name; use http://127.0.0.1 or http://localhost", http.StatusForbidden)
				return
			}
			if !loopbackPeer(r.RemoteAddr) {
				http.Error(w, "the admin server answers this machine only", http.StatusForbidden)
				return
			}
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

// loopbackHost reports whether a Host field names this machine.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// loopbackPeer reports whether a caller is on this machine. One without an IP
// address came over a Unix socket.
func loopbackPeer(remote string) bool {
	a, err := netip.ParseAddrPort(remote)
	return err != nil || a.Addr().Unmap().IsLoopback()
}

// limited is a listener with at most so many connections open.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimited(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, slots: l.slots}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
