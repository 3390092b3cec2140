// Package faults makes faults on purpose: it keeps those that are in force, says which attempt meets one, stops them in time and reports what they did.
package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/proxy/http1"
	"github.com/outrigger-mesh/outrigger/proxy/plan"
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/resilience/fault"
	"github.com/outrigger-mesh/outrigger/telemetry"
)

// Errors of orders. What is returned wraps one of them.
var (
	// ErrNotAllowed: the configuration does not allow faults.
	ErrNotAllowed = errors.New("faults are not allowed here: write faults: {allow: true} in the configuration")
	// ErrUnknown: there is no such fault, or report.
	ErrUnknown = errors.New("unknown")
	// ErrConflict: one of that name runs, or there are as many as there may be.
	ErrConflict = errors.New("conflict")
)

// kept is how many reports of faults that have ended are kept.
const kept = 32

// Board keeps the faults. A nil one has none.
type Board struct {
	now    func() time.Duration
	vitals func() []upstream.Vitals
	log    *slog.Logger
	wake   chan struct{} // capacity 1: there is something to look at

	force atomic.Pointer[[]*Rule] // in the order in which they began; nil without one

	mu       sync.Mutex // below
	allowed  bool
	drained  bool
	begun    uint64
	rules    []*Rule
	ended    []*Rule           // with their reports, oldest first
	finished map[string]string // of the configuration that have ended: name to text
	baseline baseline
}

// New returns an empty board. now is the clock of the exchanges; vitals is
// called once a look at all faults.
func New(now func() time.Duration, vitals func() []upstream.Vitals, log *slog.Logger) *Board {
	return &Board{now: now, vitals: vitals, log: log, wake: make(chan struct{}, 1), finished: map[string]string{}, baseline: baseline{}}
}

// Rule is one fault that is, or was, in force.
type Rule struct {
	*plan.Fault

	By     string // who ordered it; empty for the configuration
	Reason string // the error in records of exchanges
	err    error

	fault    *fault.Fault
	began    time.Duration
	until    time.Duration
	over     chan struct{} // closed when it has stopped
	draws    atomic.Uint64
	injected [fault.Kinds]atomic.Uint64

	// Under Board.mu:
	guard  *fault.Guard
	cause  fault.Cause
	would  fault.Cause
	end    time.Duration
	report report
}

// Over is closed when the fault has stopped: who is held by it goes on.
func (r *Rule) Over() <-chan struct{} { return r.over }

// Ended reports whether the fault has stopped.
func (r *Rule) Ended() bool {
	select {
	case <-r.over:
		return true
	default:
		return false
	}
}

// Cause is what records of exchanges say that a fault has ended.
func (r *Rule) Cause() error { return r.err }

// Title says what one attempt, which was held for so long, met.
func (r *Rule) Title(h *fault.Hit, held time.Duration) string {
	b := append(make([]byte, 0, 64), r.Name...)
	b = append(b, ':')
	add := func(what string) {
		if b[len(b)-1] != ':' {
			b = append(b, ',')
		}
		b = append(append(b, ' '), what...)
	}
	if h.Delay > 0 || held > 0 {
		add("held for " + held.Round(time.Millisecond).String())
	}
	switch {
	case h.Abort != fault.Abort{}:
		add("answered " + h.Abort.String() + " in the endpoint's place")
	case h.Reset:
		add("reset")
	}
	if h.Request > 0 {
		add("request slowed down")
	}
	if h.Response > 0 {
		add("answer slowed down")
	}
	return string(b)
}

// Counts reports whether its faults count against endpoints.
func (r *Rule) Counts() bool { return r.Config.Count }

// InEffect returns the faults that are in force, in the order in which they are
// drawn.
func (b *Board) InEffect() (list []*plan.Fault) {
	rules := b.force.Load()
	if rules == nil {
		return nil
	}
	now := b.now()
	for _, r := range *rules {
		if now < r.until {
			list = append(list, r.Fault)
		}
	}
	return list
}

// Question is an attempt that may meet a fault.
type Question struct {
	Cluster  *upstream.Cluster
	Route    string
	Endpoint string
	Caller   string         // its SPIFFE ID
	Request  *http1.Request // nil for a connection that is not HTTP
	Raw      []byte         // what the spans of Request refer to
	GRPC     bool
	Now      time.Duration
}

// InForce reports whether there is a fault at all. It costs an atomic load.
func (b *Board) InForce() bool { return b != nil && b.force.Load() != nil }

// Strike returns the fault that an attempt meets, and how; nil without one. Of
// several the first counts that draws it.
func (b *Board) Strike(q *Question) (*Rule, fault.Hit) {
	list := b.force.Load()
	if list == nil {
		return nil, fault.Hit{}
	}
	for _, r := range *list {
		if q.Now >= r.until || r.Direction != q.Cluster.Direction() || r.Cluster != q.Cluster.Name() || !r.Concerns(q.Route, q.Endpoint, q.Caller) {
			continue
		}
		code := r.fault.Code()
		if q.Request == nil && r.OnlyHTTP || q.Request != nil && !r.Meets(q.Request, q.Raw) || code && !q.GRPC {
			continue
		}
		if h, ok := r.fault.Draw(r.draws.Add(1) - 1); ok {
			r.count(q.Cluster.Metrics(), &h)
			return r, h
		}
	}
	return nil, fault.Hit{}
}

func (r *Rule) count(m *telemetry.Cluster, h *fault.Hit) {
	for k, met := range [...]bool{
		fault.Delayed: h.Delay > 0, fault.Aborted: h.Abort != fault.Abort{}, fault.WasReset: h.Reset, fault.Slowed: h.Response+h.Request > 0,
	} {
		if met {
			r.injected[k].Add(1)
			m.Injected(telemetry.FaultKind(k))
		}
	}
}

// Apply makes list the faults of the configuration. Those that run and stay as
// they are go on; those that have stopped are not begun again.
func (b *Board) Apply(allowed bool, list []*plan.Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = allowed
	wanted := map[string]string{}
	for _, f := range list {
		wanted[f.Name] = f.Text
	}
	for name, text := range b.finished {
		if wanted[name] != text {
			delete(b.finished, name)
		}
	}
	now := b.now()
	for _, r := range slices.Clone(b.rules) {
		text, ok := wanted[r.Name]
		switch {
		case !allowed, r.By == "" && text != r.Text, r.By != "" && ok:
			b.stop(r, now, fault.Removed)
		}
	}
	for _, f := range list {
		if text, ok := b.finished[f.Name]; ok && text == f.Text || b.running(f.Name) != nil || !allowed || b.drained {
			continue
		}
		b.begin(f, now, "", "")
	}
	b.publish()
}

func (b *Board) running(name string) *Rule {
	if i := slices.IndexFunc(b.rules, func(r *Rule) bool { return r.Name == name }); i >= 0 {
		return b.rules[i]
	}
	return nil
}

// Allowed is ErrNotAllowed where that is so.
func (b *Board) Allowed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.allowed {
		return ErrNotAllowed
	}
	return nil
}

// Start begins a fault that by has ordered. One without a name is given one.
func (b *Board) Start(f *plan.Fault, by, reason string) (View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.allowed:
		return View{}, ErrNotAllowed
	case b.drained:
		return View{}, fmt.Errorf("%w: the proxy is shutting down", ErrConflict)
	case len(b.rules) >= fault.MaxRules:
		return View{}, fmt.Errorf("%w: there are %d faults, as many as there may be; stop one first", ErrConflict, fault.MaxRules)
	case f.Name != "" && b.running(f.Name) != nil:
		return View{}, fmt.Errorf("%w: a fault %.64q runs; stop it first, or choose another name", ErrConflict, f.Name)
	}
	if f.Name == "" {
		f.Name = b.freeName()
	}
	now := b.now()
	r := b.begin(f, now, by, reason)
	b.publish()
	return b.view(r, now, b.vitals()), nil
}

// freeName is one that no fault has or had, as far as is known. b.mu is held.
func (b *Board) freeName() string {
	for n := b.begun + 1; ; n++ {
		name := fmt.Sprintf("fault-%d", n)
		if b.running(name) == nil && !slices.ContainsFunc(b.ended, func(r *Rule) bool { return r.Name == name }) {
			return name
		}
	}
}

// begin starts a fault. b.mu is held.
func (b *Board) begin(f *plan.Fault, now time.Duration, by, reason string) *Rule {
	b.begun++
	r := &Rule{
		Fault: f, By: by, Reason: reason, err: errors.New("fault " + f.Name + ": " + f.Config.Words()),
		fault: fault.New(f.Config, rand.Uint64()), began: now, until: now + fault.For(f.For), over: make(chan struct{}),
	}
	all := b.vitals()
	b.baseline.take(now, all)
	r.report.begin(r, now, all, b.baseline)
	r.guard = fault.NewGuard(f.Stop, now, sampleOf(r, all))
	b.rules = append(b.rules, r)
	b.log.Warn("fault begins", "event", "fault_started", "fault", r.Name, "cluster", r.Cluster, "direction", r.Direction.String(),
		"does", r.Config.Words(), "percent", r.Config.Percent, "for", (r.until - now).String(), "by", by)
	return r
}

// Stop ends the fault with that name, or with an empty one all, by hand. It
// returns what they have done.
func (b *Board) Stop(name string) ([]View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	list := slices.Clone(b.rules)
	if name != "" {
		r := b.running(name)
		if r == nil {
			return nil, fmt.Errorf("%w: no fault %.64q runs", ErrUnknown, name)
		}
		list = []*Rule{r}
	}
	var views []View
	for _, r := range list {
		b.stop(r, now, fault.ByHand)
		views = append(views, b.view(r, now, nil))
	}
	b.publish()
	return views, nil
}

// Drain ends all faults, and lets none begin any more.
func (b *Board) Drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drained = true
	for _, r := range slices.Clone(b.rules) {
		b.stop(r, b.now(), fault.Drained)
	}
	b.publish()
}

// stop ends r. b.mu is held; publish must follow.
func (b *Board) stop(r *Rule, now time.Duration, c fault.Cause) {
	r.cause, r.end = c, min(now, r.until)
	close(r.over)
	r.report.stop(now, b.vitals())
	b.rules = slices.DeleteFunc(b.rules, func(o *Rule) bool { return o == r })
	if b.ended = append(b.ended, r); len(b.ended) > kept {
		b.ended = slices.Delete(b.ended, 0, len(b.ended)-kept)
	}
	if r.By == "" && c != fault.Removed {
		b.finished[r.Name] = r.Text
	}
	level := slog.LevelWarn
	if c == fault.TimeOver || c == fault.ByHand {
		level = slog.LevelInfo
	}
	b.log.Log(context.Background(), level, "fault ends: "+c.Words(), "event", "fault_stopped", "fault", r.Name, "cluster", r.Cluster, "direction", r.Direction.String(),
		"cause", c.String(), "after", (r.end - r.began).Round(time.Millisecond).String(), "met", r.met())
}

// met is how many attempts have met r.
func (r *Rule) met() uint64 {
	n := uint64(0)
	for k := range r.injected {
		n = max(n, r.injected[k].Load())
	}
	return n
}

// publish has exchanges meet the rules as they are now. b.mu is held.
func (b *Board) publish() {
	if len(b.rules) == 0 {
		b.force.Store(nil)
	} else {
		list := slices.Clone(b.rules)
		b.force.Store(&list)
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
