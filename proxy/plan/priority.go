package plan

import (
	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/authz"
	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/resilience/queue"
)

// PriorityRule gives a priority to the exchanges that meet its conditions.
type PriorityRule struct {
	Priority queue.Priority
	From     *authz.Policy // allows the callers that are meant; nil means all
	Match    Match
	OnlyHTTP bool // it does not concern connections that are not HTTP
}

// PriorityOf returns whose turn comes first where exchanges must wait: what the
// first rule says that takes the request, else what the route does. A path that
// can be read in more than one way meets no condition on the path.
func (r *Route) PriorityOf(id mtls.ID, req *http1.Request, raw []byte) queue.Priority {
	for i := range r.Priorities {
		if p := &r.Priorities[i]; p.from(id) && p.takes(req, raw) {
			return p.Priority
		}
	}
	return r.Priority
}

// PriorityOfConn is PriorityOf for a connection that is not HTTP.
func (r *Route) PriorityOfConn(id mtls.ID) queue.Priority {
	for i := range r.Priorities {
		if p := &r.Priorities[i]; !p.OnlyHTTP && p.from(id) {
			return p.Priority
		}
	}
	return r.Priority
}

func (p *PriorityRule) from(id mtls.ID) bool { return p.From == nil || p.From.CheckConn(id).Allowed }

func (p *PriorityRule) takes(r *http1.Request, raw []byte) bool {
	if t := &p.Match.Path; t.Kind != AnyText {
		path := pathOf(r, raw)
		if path == nil || !t.matches(path) || http1.AmbiguousPath(path) {
			return false
		}
	}
	return p.Match.beside(r, raw)
}
