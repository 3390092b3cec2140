package admin

import (
	"net/http"
	"strings"
)

// NewWaiting returns a Server for a process that does not know yet what it is to
// serve. It has the pages that New has for that; all others answer 503 with what
// is waited for.
func NewWaiting(o Options) *Server {
	s := newServer(o)
	mux := http.NewServeMux()
	s.always(mux)
	mux.HandleFunc("/", s.wait)
	s.handler = s.guard(http.NewCrossOriginProtection().Handler(mux))
	return s
}

// wait says what is waited for.
func (s *Server) wait(w http.ResponseWriter, _ *http.Request) {
	var words []string
	for _, c := range s.readiness().Checks {
		if !c.OK {
			words = append(words, c.Detail)
		}
	}
	http.Error(w, "not known yet: "+Plain(strings.Join(words, "; ")), http.StatusServiceUnavailable)
}
