package admin

import (
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed assets
var assets embed.FS

// format is how a page is written.
type format uint8

const (
	asText format = iota
	asJSON
	asHTML
)

// formatOf takes ?format= first, then Accept. Without either it is text, for
// curl and terminals.
func formatOf(r *http.Request) format {
	switch r.URL.Query().Get("format") {
	case "json":
		return asJSON
	case "html":
		return asHTML
	case "text":
		return asText
	}
	for accept := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		kind, _, _ := strings.Cut(accept, ";")
		switch strings.TrimSpace(kind) {
		case "application/json":
			return asJSON
		case "text/html":
			return asHTML
		case "text/plain":
			return asText
		}
	}
	return asText
}

// page writes data as JSON if that is asked for, otherwise as text.
func (s *Server) page(w http.ResponseWriter, r *http.Request, status int, data any, text func(io.Writer)) {
	if formatOf(r) == asJSON {
		b, err := json.MarshalIndent(data, "", "  ")
		if err != nil {
			http.Error(w, "admin: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(append(b, '\n')) // the client is gone
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	text(w)
}

// call runs a view that may be missing. Slices become empty instead of null.
func call[T any](f func() []T) []T {
	if f != nil {
		if v := f(); v != nil {
			return v
		}
	}
	return []T{}
}

func callOne[T any](f func() T) T {
	if f == nil {
		var zero T
		return zero
	}
	return f()
}

// The lists inside of views become empty instead of null, too.

func (s *Server) endpointViews() []EndpointView {
	v := call(s.opts.Views.Endpoints)
	for i := range v {
		if v[i].Evidence == nil {
			v[i].Evidence = []OutcomeView{}
		}
		v[i].Standing = standing(&v[i])
	}
	return v
}

func (s *Server) clusterViews() []ClusterView {
	v := call(s.opts.Views.Clusters)
	running := s.running()
	for i := range v {
		for k := range running {
			if f := &running[k]; f.Cluster == v[i].Name && f.Direction == v[i].Direction {
				v[i].Faults = append(v[i].Faults, f.Name)
			}
		}
		if v[i].Identities == nil {
			v[i].Identities = []string{}
		}
		if v[i].Durations == nil {
			v[i].Durations = []uint64{}
		}
	}
	return v
}

// running are the faults made on purpose that have not ended.
func (s *Server) running() []FaultView {
	return slices.DeleteFunc(call(s.opts.Views.Faults.List), func(f FaultView) bool { return f.State != "running" })
}

func (s *Server) identityView() IdentityView {
	v := callOne(s.opts.Views.Identity)
	if v.Bundles == nil {
		v.Bundles = []BundleView{}
	}
	return v
}

// readiness is what /ready says.
type readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

func (s *Server) readiness() readiness {
	if s.opts.Views.Ready == nil {
		return readiness{Checks: []Check{}}
	}
	ok, checks := s.opts.Views.Ready()
	if checks == nil {
		checks = []Check{}
	}
	return readiness{ok, checks}
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	v := s.readiness()
	status := http.StatusOK
	if !v.Ready {
		status = http.StatusServiceUnavailable
	}
	s.page(w, r, status, v, func(w io.Writer) { readyText(w, v) })
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "live\n")
}

func (s *Server) config(w http.ResponseWriter, _ *http.Request) {
	if s.opts.Views.Config == nil {
		http.Error(w, "no configuration yet", http.StatusNotFound)
		return
	}
	b, err := s.opts.Views.Config()
	if err != nil {
		http.Error(w, "configuration: "+err.Error(), http.StatusInternalServerError)
		return
	}
	// text/plain, so that browsers show it; YAML has no type they know.
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(b)
}

func (s *Server) endpoints(w http.ResponseWriter, r *http.Request) {
	v := s.endpointViews()
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { endpointsText(w, v, s.opts.Now()) })
}

func (s *Server) clusters(w http.ResponseWriter, r *http.Request) {
	v := s.clusterViews()
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { clustersText(w, v, s.opts.Now()) })
}

func (s *Server) rateLimits(w http.ResponseWriter, r *http.Request) {
	v := call(s.opts.Views.RateLimits)
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { rateLimitsText(w, v) })
}

func (s *Server) connections(w http.ResponseWriter, r *http.Request) {
	v := call(s.opts.Views.Connections)
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { connectionsText(w, v, s.opts.Now()) })
}

func (s *Server) plaintext(w http.ResponseWriter, r *http.Request) {
	v := call(s.opts.Views.Plaintext)
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { plaintextText(w, v, s.opts.Now()) })
}

func (s *Server) identity(w http.ResponseWriter, r *http.Request) {
	v := s.identityView()
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { identityText(w, v, s.opts.Now()) })
}

func (s *Server) discovery(w http.ResponseWriter, r *http.Request) {
	v := call(s.opts.Views.Discovery)
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { discoveryText(w, v) })
}

// Overview is everything that the dashboard shows: what / answers when asked
// for JSON.
type Overview struct {
	Now       time.Time      `json:"now"`
	Process   ProcessView    `json:"process"`
	Ready     bool           `json:"ready"`
	Checks    []Check        `json:"checks"`
	Reload    ReloadView     `json:"reload"`
	Identity  IdentityView   `json:"identity"`
	Discovery []WatchView    `json:"discovery"`
	Clusters  []ClusterView  `json:"clusters"`
	Endpoints []EndpointView `json:"endpoints"`
	Faults    []FaultView    `json:"faults"` // made on purpose, that run
}

func (s *Server) overview(w http.ResponseWriter, r *http.Request) {
	if formatOf(r) == asHTML {
		asset("dashboard.html", "text/html; charset=utf-8")(w, r)
		return
	}
	ready := s.readiness()
	v := Overview{
		Now:       s.opts.Now(),
		Process:   callOne(s.opts.Views.Process),
		Ready:     ready.Ready,
		Checks:    ready.Checks,
		Reload:    callOne(s.opts.Views.Reload),
		Identity:  s.identityView(),
		Discovery: call(s.opts.Views.Discovery),
		Clusters:  s.clusterViews(),
		Endpoints: s.endpointViews(),
		Faults:    s.running(),
	}
	s.page(w, r, http.StatusOK, v, func(w io.Writer) { overviewText(w, v) })
}

func (s *Server) logLevel(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, strings.ToLower(s.opts.LogLevel.Level().String()))
}

// setLogLevel takes debug, info, warn or error as the body or as ?level=.
func (s *Server) setLogLevel(w http.ResponseWriter, r *http.Request) {
	word := r.URL.Query().Get("level")
	if word == "" {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "the body is too long; send one of debug, info, warn, error", http.StatusRequestEntityTooLarge)
			return
		}
		word = strings.TrimSpace(string(b))
	}
	var level slog.Level
	switch strings.ToLower(word) {
	case "debug":
		level = slog.LevelDebug
	case "info":
		level = slog.LevelInfo
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	default:
		http.Error(w, fmt.Sprintf("unknown level %.32q; use debug, info, warn or error", word), http.StatusBadRequest)
		return
	}
	before := s.opts.LogLevel.Level()
	s.opts.LogLevel.Set(level)
	s.opts.Logger.Info("log level changed", "from", before, "to", level, "by", r.RemoteAddr)
	s.logLevel(w, r)
}

func asset(name, contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		b, err := assets.ReadFile("assets/" + name)
		if err != nil {
			http.Error(w, "admin: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(b)
	}
}
