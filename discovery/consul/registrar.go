package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/outrigger-mesh/outrigger/discovery"
)

const (
	callTime       = 5 * time.Second // one call to the agent
	deregisterTime = 5 * time.Second // for the deregistration when Run ends
	selfWait       = time.Minute     // how long the agent may wait for a change of our own entry
	syncPause      = 1 * time.Second // between two looks at it, with jitter
	ttlParts       = 3               // reports within one TTL
)

// errDeregistered ends attempts to register after Deregister.
var errDeregistered = errors.New("the service was deregistered")

// Instance is what the proxy knows about itself and uses where the
// configuration of the registration is silent.
type Instance struct {
	// Service is the name to register. Required.
	Service string
	// Listen is where other proxies connect to.
	Listen netip.AddrPort
	// Client is shared with others, so that they have one token. Default: one
	// of the registration's own.
	Client *Client
	// Logger gets one line per change of state. Default: slog.Default.
	Logger *slog.Logger
}

// RegistrarStatus is what the admin API shows about the registration.
type RegistrarStatus struct {
	ID         string `json:"id"`
	Registered bool   `json:"registered"`
	// Registrations counts how often the agent was told; more than 1 means
	// that it had lost or changed the entry.
	Registrations int    `json:"registrations"`
	LastError     string `json:"last_error,omitempty"`
}

// Registrar keeps this proxy's service registered with the Consul agent.
type Registrar struct {
	client *client
	log    *slog.Logger
	want   *api.AgentServiceRegistration
	ttl    time.Duration

	turn   chan struct{} // capacity 1: held while the agent is told something
	gone   chan struct{} // closed by Deregister
	report chan struct{} // capacity 1: SetStatus was called

	mu     sync.Mutex
	status RegistrarStatus
	health discovery.Health
	note   string
	ended  bool // gone is closed
	told   bool // the agent may have an entry of ours
}

// NewRegistrar returns a Registrar for cfg.Register, which must be set.
// Nothing is sent before Run.
func NewRegistrar(cfg Config, in Instance) (*Registrar, error) {
	if cfg.Register == nil {
		return nil, errors.New("discovery.consul.register is not set")
	}
	if in.Service == "" || strings.Contains(in.Service, "/") {
		return nil, fmt.Errorf("%q cannot be the name of a Consul service", in.Service)
	}
	c, err := ownOr(in.Client, cfg)
	if err != nil {
		return nil, err
	}
	want, err := registration(*cfg.Register, in)
	if err != nil {
		return nil, err
	}
	r := &Registrar{
		client: c, log: in.Logger, want: want,
		turn: make(chan struct{}, 1), gone: make(chan struct{}),
		report: make(chan struct{}, 1),
		status: RegistrarStatus{ID: want.ID}, note: "the proxy is up",
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	if cfg.Register.Check != nil {
		r.ttl = cfg.Register.Check.TTL
	}
	return r, nil
}

// registration is what the agent is told.
func registration(reg Register, in Instance) (*api.AgentServiceRegistration, error) {
	address, port := reg.Address, reg.Port
	if a := in.Listen.Addr(); address == "" && a.IsValid() && !a.IsUnspecified() {
		address = a.Unmap().String()
	}
	if port == 0 {
		port = int(in.Listen.Port())
	}
	if port == 0 {
		return nil, errors.New("discovery.consul.register.port is not set and there is no inbound listener to take it from")
	}
	id := reg.ID
	if id == "" {
		id = in.Service
		if address != "" {
			id += "-" + address
		}
		id += "-" + strconv.Itoa(port)
	}
	want := &api.AgentServiceRegistration{
		ID: id, Name: in.Service, Address: address, Port: port,
		Tags: slices.Clone(reg.Tags), Meta: maps.Clone(reg.Meta),
	}
	if reg.Check == nil {
		return want, nil
	}
	ch, def := *reg.Check, DefaultCheck()
	if ch.Interval == 0 {
		ch.Interval = def.Interval
	}
	if ch.Timeout == 0 {
		ch.Timeout = def.Timeout
	}
	want.Check = &api.AgentServiceCheck{CheckID: "service:" + id, Name: "Service '" + in.Service + "' check"}
	if ch.TTL > 0 {
		want.Check.TTL = ch.TTL.String()
	} else {
		want.Check.HTTP, want.Check.TCP = ch.HTTP, ch.TCP
		want.Check.Interval, want.Check.Timeout = ch.Interval.String(), ch.Timeout.String()
	}
	if ch.DeregisterAfter > 0 {
		want.Check.DeregisterCriticalServiceAfter = ch.DeregisterAfter.String()
	}
	return want, nil
}

// Status describes the registration.
func (r *Registrar) Status() RegistrarStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// SetStatus changes what a TTL check reports, at once and from then on. Before
// the first call it reports passing. It has no effect on other checks, which
// the agent makes itself.
func (r *Registrar) SetStatus(h discovery.Health, note string) {
	r.mu.Lock()
	r.health, r.note = h, note
	r.mu.Unlock()
	signal(r.report)
}

// Run registers the service, registers it again when the agent has lost or
// changed it, and keeps a TTL check fed. It blocks until ctx ends, then takes
// the entry away within a deadline of its own, and returns nil.
func (r *Registrar) Run(ctx context.Context) error {
	defer r.client.close()
	working, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.keep(working) })
	wg.Go(func() { r.feed(working) })
	// The token is needed for the deregistration, too.
	token, done := context.WithCancel(context.WithoutCancel(ctx))
	defer r.client.hold()()
	var keeps sync.WaitGroup
	defer keeps.Wait()
	defer done()
	keeps.Go(func() { r.client.keep(token) })
	select {
	case <-ctx.Done():
	case <-r.gone:
		stop()
		<-ctx.Done()
	}
	stop()
	wg.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), deregisterTime)
	defer cancel()
	if err := r.Deregister(last); err != nil {
		r.log.Warn("consul registration could not be taken away", "id", r.want.ID, "error", err.Error())
	}
	return nil
}

// Deregister takes the entry away for good: Run does not register it again.
// Call it before a drain, so that no new traffic comes. It does nothing when
// the entry is already gone or was never made.
func (r *Registrar) Deregister(ctx context.Context) error {
	r.mu.Lock()
	if !r.ended {
		r.ended = true
		close(r.gone)
	}
	r.mu.Unlock()
	// A registration on its way is waited for, so that it cannot overtake.
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	told := r.told
	r.mu.Unlock()
	if !told {
		return nil
	}
	err := r.client.Agent().ServiceDeregisterOpts(r.want.ID, new(api.QueryOptions).WithContext(ctx))
	if code(err) == http.StatusNotFound {
		err = nil
	}
	if err != nil {
		err = r.explain(err)
		r.failed(err)
		return err
	}
	r.mu.Lock()
	r.told, r.status.Registered, r.status.LastError = false, false, ""
	r.mu.Unlock()
	r.log.Info("consul registration taken away", "id", r.want.ID)
	return nil
}

// keep compares the agent's entry with ours until ctx ends. It waits in a
// blocking query on the entry's hash, so a loss is noticed at once, and so is
// an agent that restarts.
func (r *Registrar) keep(ctx context.Context) {
	backoff := discovery.Backoff{Base: backoffBase, Max: backoffMax}
	hash, settled := "", "" // settled: the agent's form of what we registered
	first := true
	for ctx.Err() == nil {
		have, err := r.look(ctx, hash)
		if ctx.Err() != nil {
			return
		}
		missing := code(err) == http.StatusNotFound
		switch {
		case err != nil && !missing:
			hash = ""
		case !missing && !first && (have.ContentHash == settled || r.same(have)):
			hash, settled = have.ContentHash, have.ContentHash
			r.good()
		default:
			// Also on the first turn, over an entry that an earlier process
			// left behind: its check may differ from ours.
			hash, settled = "", ""
			if err = r.register(ctx); err == nil {
				first = false
				if have, err = r.look(ctx, ""); err == nil {
					settled = have.ContentHash
				}
			}
		}
		if ctx.Err() != nil || errors.Is(err, errDeregistered) {
			return
		}
		pause := discovery.Jitter(syncPause, 0.25, rand.Uint64())
		if err != nil {
			r.failed(r.explain(err))
			pause = max(minPause, backoff.Next(rand.Uint64()))
		} else {
			backoff.Reset()
		}
		discovery.Sleep(ctx, pause, r.gone)
	}
}

// look returns the agent's entry; with a hash it waits for another one.
func (r *Registrar) look(ctx context.Context, hash string) (*api.AgentService, error) {
	q := &api.QueryOptions{WaitHash: hash}
	limit := callTime
	if hash != "" {
		q.WaitTime = selfWait
		limit += selfWait + selfWait/16
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	have, _, err := r.client.Agent().Service(r.want.ID, q.WithContext(ctx))
	if err == nil && have == nil {
		err = errors.New("the answer is null instead of a service")
	}
	return have, err
}

// register tells the agent, unless Deregister was called. The call is not cut
// short by ctx, because a half-made registration could outlive us.
func (r *Registrar) register(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	ended := r.ended
	r.told = r.told || !ended
	want := *r.want
	if want.Check != nil && want.Check.TTL != "" {
		check := *want.Check
		check.Status, check.Notes = r.health.String(), ""
		want.Check = &check
	}
	r.mu.Unlock()
	if ended {
		return errDeregistered
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	opts := api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx)
	if err := r.client.Agent().ServiceRegisterOpts(&want, opts); err != nil {
		return err
	}
	r.mu.Lock()
	r.status.Registrations++
	again := r.status.Registrations > 1
	r.mu.Unlock()
	r.good()
	r.log.Info("registered with consul", "id", r.want.ID, "again", again)
	signal(r.report)
	return nil
}

// same reports whether the agent's entry is what we registered.
func (r *Registrar) same(have *api.AgentService) bool {
	return have.Service == r.want.Name && have.Address == r.want.Address && have.Port == r.want.Port &&
		slices.Equal(have.Tags, r.want.Tags) && maps.Equal(have.Meta, r.want.Meta)
}

// feed reports to a TTL check until ctx ends.
func (r *Registrar) feed(ctx context.Context) {
	if r.ttl == 0 {
		return
	}
	tick := time.NewTicker(r.ttl / ttlParts)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.report:
		}
		r.mu.Lock()
		health, note, registered := r.health, r.note, r.status.Registered
		r.mu.Unlock()
		if !registered {
			continue
		}
		call, cancel := context.WithTimeout(ctx, callTime)
		err := r.client.Agent().UpdateTTLOpts(r.want.Check.CheckID, note, health.String(), new(api.QueryOptions).WithContext(call))
		cancel()
		if ctx.Err() != nil {
			return
		}
		if code(err) == http.StatusNotFound {
			// The service may still be there without its check.
			err = r.register(ctx)
			select {
			case <-r.report: // the new check is fed at the next tick
			default:
			}
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errDeregistered) {
			r.failed(r.explain(err))
		}
	}
}

// good records that the agent has our entry.
func (r *Registrar) good() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Registered, r.status.LastError = true, ""
}

// failed records trouble, and logs it when there was none before.
func (r *Registrar) failed(err error) {
	r.mu.Lock()
	before := r.status.LastError
	r.status.LastError = err.Error()
	r.mu.Unlock()
	if before == "" {
		r.log.Warn("consul registration has trouble; trying again", "id", r.want.ID, "error", err.Error())
	}
}

func (r *Registrar) explain(err error) error {
	return r.client.explain(err, fmt.Sprintf("service:write on %q", r.want.Name))
}

// code returns the HTTP status of an API error, 0 for any other.
func code(err error) int {
	var status api.StatusError
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}

// signal makes a wait on a channel of capacity 1 return once.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
