package proxy

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/config"
	"github.com/outrigger-mesh/outrigger/discovery"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// restless is a source that counts its runs.
type restless struct{ runs atomic.Int64 }

func (s *restless) Run(ctx context.Context, _ []string, _ discovery.Sink) error {
	s.runs.Add(1)
	<-ctx.Done()
	return nil
}

func (s *restless) Status() []discovery.WatchStatus { return nil }

// However often the services change, the last ones are followed in the end.
func TestFollowChangesOfServices(t *testing.T) {
	r := run(t, upstreams(t, "one", address(t)))
	src := &restless{}
	p := &Proxy{log: r.log, metrics: r.metrics, source: src, refollow: make(chan struct{}, 1), watched: map[string]*telemetry.Discovery{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.follow(ctx) }()
	for i := range 2000 {
		names := []string{"one"}
		if i%2 == 1 {
			names = append(names, "two")
		}
		p.mu.Lock()
		p.setServices(names)
		p.mu.Unlock()
	}
	soon(t, "changes have come to their end", func() bool { return len(p.refollow) == 0 && src.runs.Load() > 0 })
	runs := src.runs.Load()
	p.mu.Lock()
	p.setServices([]string{"last"})
	p.mu.Unlock()
	soon(t, "the last change is followed", func() bool { return src.runs.Load() > runs })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// New identities from discovery make a new plan, which is no reload.
func TestIdentitiesFromDiscovery(t *testing.T) {
	a := address(t)
	r := run(t, upstreams(t, "one", a))
	r.draining.Store(true)
	(&sink{r.Proxy}).Update(&discovery.Service{Name: "one", Identities: []string{"spiffe://mesh.test/one"}})
	if v := r.viewReload(); v.Failures != 0 || v.Version != 1 {
		t.Errorf("a proxy that ends takes up identities: %+v", v)
	}
	r.draining.Store(false)
	(&sink{r.Proxy}).Update(&discovery.Service{Name: "one", Identities: []string{"spiffe://mesh.test/two"}})
	if v := r.viewReload(); v.Version != 2 || v.Reloads != 1 {
		t.Errorf("new identities made no new plan, or count as a reload: %+v", v)
	}
	(&sink{r.Proxy}).Update(&discovery.Service{Name: "one", Identities: []string{"spiffe://mesh.test/two"}})
	if v := r.viewReload(); v.Version != 2 {
		t.Errorf("the same identities made another plan: %+v", v)
	}
}

func TestStartupTimeout(t *testing.T) {
	for configured, want := range map[time.Duration]time.Duration{0: -1, time.Second: time.Second} {
		if got := startupTimeout(&config.Identity{StartupTimeout: configured}); got != want {
			t.Errorf("%v is given to the source as %v; want %v", configured, got, want)
		}
	}
}

func TestAgeSeconds(t *testing.T) {
	for age, want := range map[time.Duration]float64{noData: -1, 0: 0, 1500 * time.Millisecond: 1.5} {
		if got := ageSeconds(age); got != want {
			t.Errorf("%v is %v seconds; want %v", age, got, want)
		}
	}
}

// A part that traffic does not need may fail without ending the others.
func TestOptionalPart(t *testing.T) {
	r := run(t, upstreams(t, "one", address(t)))
	err := r.optional("test", func(context.Context) error { return errors.New("broken") })(t.Context())
	if err != nil {
		t.Errorf("the failure is passed on: %v", err)
	}
}

// Without an admin API nothing listens for one.
func TestNoAdmin(t *testing.T) {
	r := run(t, upstreams(t, "one", address(t)))
	if got := r.AdminAddress().String(); got != "off" {
		t.Errorf("the admin API is on %s", got)
	}
}

// Identities from discovery that the plan cannot have are reported and do not
// stand in the way of a later reload.
func TestBadIdentitiesFromDiscovery(t *testing.T) {
	a := address(t)
	r := run(t, upstreams(t, "one", a))
	good := r.initial
	// Without a source of identity no plan with mTLS can be made.
	r.mu.Lock()
	r.loaded = r.same(t, "service: {name: web}\nadmin: {listen: \"\"}\nidentity: {files: {cert: a, key: b, bundle: c}}\n"+
		"discovery: {file: {path: x}}\noutbound: {upstreams: [{service: one, listen: \""+a+"\"}]}\n")
	r.mu.Unlock()
	(&sink{r.Proxy}).Update(&discovery.Service{Name: "one", Identities: []string{"spiffe://mesh.test/one"}})
	if v := r.viewReload(); v.Failures != 1 || v.LastError == "" || v.Version != 1 {
		t.Errorf("shown: %+v", v)
	}
	if ids := r.identities["one"]; len(ids) != 0 {
		t.Errorf("the identities %q are still expected", ids)
	}
	r.mu.Lock()
	r.loaded = good
	r.mu.Unlock()
	if err := r.Apply(r.same(t, upstreams(t, "one", a))); err != nil {
		t.Errorf("a good configuration afterwards: %v", err)
	}
}
