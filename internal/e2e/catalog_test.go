package e2e

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// instance is one of several sidecars of the same service.
type instance struct {
	*sidecar
	name    string
	address string
}

// instances starts n applications api with a sidecar each.
func (m *mesh) instances(n int, app func(name string) http.Handler, more sections) []*instance {
	m.t.Helper()
	list := make([]*instance, n)
	for i := range list {
		name := fmt.Sprintf("api-%d", i+1)
		s, address := m.inbound("api", serve(m.t, named(name, app(name))), more)
		list[i] = &instance{s, name, address}
	}
	for _, in := range list {
		in.ready()
	}
	return list
}

func addresses(list []*instance) map[string][]string {
	var all []string
	for _, in := range list {
		all = append(all, in.address)
	}
	return map[string][]string{"api": all}
}

type endpointView struct {
	Address   string
	Health    string
	State     string
	Cause     string
	Until     time.Time
	Ejections int
	Evidence  []struct {
		Result string
		Status int
	}
}

// endpoint is what a sidecar knows about an endpoint; zero when it knows none.
func (s *sidecar) endpoint(address string) endpointView {
	s.t.Helper()
	var list []endpointView
	s.view("/endpoints", &list)
	for _, e := range list {
		if e.Address == address {
			return e
		}
	}
	return endpointView{}
}

// Instances that are added to the catalog get traffic, those removed get none
// any more, and no request is lost over it.
func TestCatalogIsFollowed(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.instances(2, echo, nil)
	m.catalog(addresses(list[:1]))
	web, call := m.outbound("web", "api", nil)
	web.ready()
	l := startLoad(t, "http://"+call+"/", loadOptions{})
	l.more(t, 20)
	if n := l.answered("api-2"); n != 0 {
		t.Errorf("api-2 has answered %d requests and is not in the catalog", n)
	}
	m.catalog(addresses(list))
	eventually(t, patience, "api-2 gets traffic", func() (bool, string) { return l.answered("api-2") > 5, "" })
	m.catalog(addresses(list[1:]))
	eventually(t, patience, "api-1 has left", func() (bool, string) {
		return web.endpoint(list[0].address).Address == "", ""
	})
	l.settled(t)
	before := l.answered("api-1")
	l.more(t, 20)
	if n := l.answered("api-1"); n != before {
		t.Errorf("api-1 has answered %d requests since it left the catalog", n-before)
	}
	// A catalog that cannot be read changes nothing.
	writeFile(t, m.catalogPath(), "services: [\n")
	web.says("discovery_failed", "api")
	l.more(t, 20)
	l.mustEnd(t, 80)
}

// An instance that dies costs no client a request: what fails is tried on
// another instance.
func TestKilledInstance(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	list := m.instances(3, echo, nil)
	m.catalog(addresses(list))
	web, call := m.outbound("web", "api", nil)
	web.ready()
	l := startLoad(t, "http://"+call+"/", loadOptions{Workers: 6})
	l.more(t, 100)
	list[0].kill()
	l.more(t, 150)
	l.mustEnd(t, 250)
	if n := web.metric("outrigger_retries_total", `cluster="api"`); n == 0 {
		t.Log("no request met the dead instance")
	}
}

// An instance that answers with errors is ejected, which is shown with its
// cause and evidence, and comes back when it is well again.
func TestEjection(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var ill atomic.Bool
	list := m.instances(3, func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if name == "api-1" && ill.Load() {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			_, _ = fmt.Fprintln(w, name)
		})
	}, nil)
	m.catalog(addresses(list))
	// The balancer alone would keep traffic from an instance that fails;
	// random picks show that ejection does.
	web, call := m.outbound("web", "api", sections{"policies": `{api: {
		outlier: {consecutive_failures: 3, base_ejection: 2s, max_ejection: 2s, jitter: 0, max_ejected_percent: 50},
		balance: {algorithm: random}, retry: off}}`})
	web.ready()
	ill.Store(true)
	began := time.Now()
	l := startLoad(t, "http://"+call+"/", loadOptions{})
	address := list[0].address
	var e endpointView
	eventually(t, patience, "api-1 is ejected", func() (bool, string) {
		e = web.endpoint(address)
		return e.State == "ejected", fmt.Sprintf("%+v", e)
	})
	// It may be for the second time: nobody says how soon this is seen.
	if e.Cause != "consecutive_failures" || !e.Until.After(began.Add(2*time.Second)) || len(e.Evidence) == 0 || e.Ejections < 1 {
		t.Errorf("what is shown of it: %+v", e)
	}
	failed := 0
	for _, o := range e.Evidence {
		if o.Status == http.StatusInternalServerError {
			failed++
		}
	}
	if failed < 3 {
		t.Errorf("the evidence has %d failures: %+v", failed, e.Evidence)
	}
	web.says("event=ejected", address, "consecutive_failures")
	web.counts(1, "outrigger_endpoint_ejections_total", `endpoint="`+address+`"`)
	ill.Store(false)
	eventually(t, patience, "api-1 is readmitted", func() (bool, string) {
		e := web.endpoint(address)
		return e.State == "healthy", fmt.Sprintf("%+v", e)
	})
	back := l.answered("api-1")
	eventually(t, patience, "api-1 gets traffic again", func() (bool, string) { return l.answered("api-1") > back+3, "" })
	failures, _ := l.end()
	ejections := int(web.metric("outrigger_endpoint_ejections_total", `endpoint="`+address+`"`))
	// Three in a row made the ejection; what was in flight then, and the probe after each.
	if len(failures) == 0 || len(failures) > 11+ejections {
		t.Errorf("the client saw %d failures; ejection allows a few: %q", len(failures), failures)
	}
}
