// Package simulate runs a scenario on the virtual clock, with the machines of a proxy against modelled servers, and tells what came of it.
package simulate

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/resilience/replay"
	"github.com/outrigger-mesh/outrigger/resilience/scenario"
)

// run is one run of a scenario under one variant.
type run struct {
	spec     *scenario.Scenario
	policies map[string]config.Policy
	engine   *replay.Engine
	services map[string]*service
	order    []*service // callers before those they call
	streams  []*stream
	failures replay.ActorID
}

// service is one of the scenario's with its modelled endpoints.
type service struct {
	Work
	name    string
	spec    *scenario.Service
	servers []*server
	stats   *replay.Stats // of all its callers
	judged  *replay.Window
}

// Work is what the endpoints of a service did.
type Work struct {
	// Arrived are the attempts that reached an endpoint or should have.
	Arrived uint64 `json:"arrived"`
	// Served are the requests that were worked on, of which Wasted had nobody
	// waiting for the answer any more.
	Served uint64 `json:"served"`
	Wasted uint64 `json:"wasted"`
	// Overflowed are those that found the queue full.
	Overflowed uint64 `json:"overflowed"`
	// MostWaiting is the longest queue there was.
	MostWaiting int `json:"most_waiting"`
}

// drainTime is for how long after the end of the arrivals a run waits for
// exchanges that are under way.
const drainTime = 2 * time.Minute

// Simulate runs every variant of a scenario, each with the same seed.
func Simulate(s *scenario.Scenario) *Result {
	res := &Result{Title: s.Title, Seed: s.Seed, Duration: s.Duration, Warmup: s.Warmup, scenario: s}
	for _, v := range s.Runs() {
		res.Runs = append(res.Runs, simulate(s, &v))
	}
	return res
}

func simulate(s *scenario.Scenario, v *scenario.Variant) *Run {
	r := newRun(s, v)
	out := &Run{Name: v.Name}
	watched := r.watch(v.Name)
	for at := time.Duration(0); at < s.Duration; at += time.Second {
		r.engine.Run(min(at+time.Second, s.Duration))
	}
	for end := s.Duration + drainTime; r.active() && r.engine.Now() < end; {
		r.engine.Run(r.engine.Now() + 100*time.Millisecond)
	}
	for _, st := range r.streams {
		out.Arrived += st.offered
	}
	for _, sv := range r.order {
		sv.stats.Close(r.engine.Now())
		out.Services = append(out.Services, serviceResult(sv))
	}
	out.Events = r.engine.Events()
	out.judge(watched)
	return out
}

func newRun(s *scenario.Scenario, v *scenario.Variant) *run {
	r := &run{spec: s, policies: v.Policies, engine: replay.New(s.Seed), services: map[string]*service{}}
	for i := range s.Arrivals {
		r.addService(s.Arrivals[i].To)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) { // those that nobody calls
		r.addService(name)
	}
	for _, sv := range r.order {
		for n := range sv.spec.Endpoints {
			sv.servers = append(sv.servers, newServer(r, sv, n))
		}
	}
	for _, sv := range r.order { // all endpoints are known now
		for _, srv := range sv.servers {
			for _, c := range sv.spec.Calls {
				srv.clients = append(srv.clients, r.client(c.Service, srv))
			}
		}
	}
	for i := range s.Arrivals {
		r.streams = append(r.streams, newStream(r, &s.Arrivals[i]))
	}
	r.failures = r.engine.Add((*failures)(r))
	for i := range s.Failures {
		f := &s.Failures[i]
		r.engine.At(f.At, r.failures, uint64(i)<<1|1)
		if f.End(s.Duration) < s.Duration {
			r.engine.At(f.End(s.Duration), r.failures, uint64(i)<<1)
		}
	}
	return r
}

// addService adds a service and those that it calls, unless it is there.
func (r *run) addService(name string) {
	if r.services[name] != nil {
		return
	}
	spec := r.spec.Services[name]
	sv := &service{name: name, spec: &spec, stats: &replay.Stats{}}
	r.services[name] = sv
	r.order = append(r.order, sv)
	for _, c := range spec.Calls {
		r.addService(c.Service)
	}
}

func newServer(r *run, sv *service, n int) *server {
	s := &server{run: r, service: sv, number: n, slots: sv.spec.Slots, time: sv.spec.ServiceTime, random: r.engine.Fork(), fault: weather{slow: 1}}
	for i := range sv.spec.Unlike {
		u := &sv.spec.Unlike[i]
		if !slices.Contains(u.Endpoints, n+1) {
			continue
		}
		if u.Slots > 0 {
			s.slots = u.Slots
		}
		if u.ServiceTime != nil {
			s.time = *u.ServiceTime
		}
	}
	s.id = r.engine.Add(s)
	return s
}

// client returns a new proxy for calls to a service.
func (r *run) client(to string, caller replay.Caller) *replay.Client {
	sv := r.services[to]
	p := config.PolicyOf(r.policies, to)
	w := &way{service: sv}
	w.client = replay.NewClient(r.engine, scenario.Machines(&p), w, caller)
	w.client.Stats = sv.stats
	list := make([]replay.Endpoint, len(sv.servers))
	for i := range list {
		list[i] = replay.Endpoint{Name: fmt.Sprintf("%s-%d", to, i+1), Weight: 1, Healthy: true}
	}
	for i := range sv.spec.Unlike {
		for _, n := range sv.spec.Unlike[i].Endpoints {
			if weight := sv.spec.Unlike[i].Weight; weight > 0 {
				list[n-1].Weight = uint32(weight)
			}
		}
	}
	w.client.SetEndpoints(list)
	return w.client
}

// way is from a client to the endpoints of a service: the client's world.
type way struct {
	client  *replay.Client
	service *service
}

// Begin implements replay.World.
func (w *way) Begin(now time.Duration, a replay.Attempt) (replay.Fate, bool) {
	return w.service.servers[a.Endpoint].begin(now, w.client, &a)
}

// Abandon implements replay.World.
func (w *way) Abandon(now time.Duration, a replay.Attempt) {
	w.service.servers[a.Endpoint].abandon(now, *a.Note)
}

// failures is the actor of what goes wrong in time.
type failures run

// Fire implements replay.Actor.
func (r *failures) Fire(now time.Duration, arg uint64) {
	f := &r.spec.Failures[arg>>1]
	for i, s := range r.services[f.Service].servers {
		if len(f.Endpoints) == 0 || slices.Contains(f.Endpoints, i+1) {
			s.change(now, f.Fault, arg&1 == 1)
		}
	}
}

func (r *run) active() bool {
	for _, sv := range r.order {
		if sv.stats.Active() > 0 {
			return true
		}
	}
	return false
}
