package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/mtls"
	"github.com/outrigger-mesh/outrigger/mtls/devca"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// condition is what the demo has done to an instance.
type condition uint8

const (
	works condition = iota
	erring
	killed
	starting
)

// director starts the processes, brings the faults about and gathers what is seen.
type director struct {
	o       Options
	say     func(format string, a ...any)
	starter *starter
	consul  *consulAgent
	mesh    *mesh
	ca      *devca.Server
	script  script
	live    atomic.Pointer[run] // nil until the load begins

	mu    sync.Mutex
	pairs map[string]*pair // by name
}

// pair is an application with its sidecar.
type pair struct {
	place
	app, sidecar *child
	condition    condition
	lost         bool // a process ended by itself, and that was told
}

// run is what is gathered while the load runs.
type run struct {
	began   time.Time
	stats   *stats
	journal *journal
	witness *witness
}

func (p *pair) children() []*child {
	var list []*child
	for _, c := range []*child{p.sidecar, p.app} {
		if c != nil {
			list = append(list, c)
		}
	}
	return list
}

// startProcesses starts every application and sidecar and waits until a
// request goes all the way.
func (d *director) startProcesses(ctx context.Context) error {
	d.pairs = map[string]*pair{}
	for _, p := range d.mesh.places() {
		if err := d.startPair(p); err != nil {
			return err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for _, p := range d.mesh.places() {
		what := "the sidecar of " + p.Name
		if err := d.await(waiting, what, func() error { return get(waiting, "http://"+p.Admin+"/ready", nil) }); err != nil {
			return err
		}
	}
	listed := func() error {
		var list []admin.EndpointView
		if err := get(waiting, "http://"+d.mesh.Web.Admin+"/endpoints?format=json", &list); err != nil {
			return err
		}
		n := 0
		for _, e := range list {
			if e.Cluster == serviceAPI && e.Health == "passing" {
				n++
			}
		}
		if n != instances {
			return fmt.Errorf("web's sidecar knows %d of %d instances of api", n, instances)
		}
		return nil
	}
	if err := d.await(waiting, "discovery of api", listed); err != nil {
		return err
	}
	return d.await(waiting, "a first request through the mesh", func() error { return get(waiting, d.url(), nil) })
}

// url is where the load goes: web's application, as its own clients would.
func (d *director) url() string { return "http://" + d.mesh.Web.App + "/" }

// startPair starts the two processes of a place. The sidecar gets its identity
// by its process id, which is known only now; it asks until it has it.
func (d *director) startPair(pl place) error {
	args := []string{"demo", "app", "--name", pl.Name, "--listen", pl.App}
	if pl.Outbound != "" {
		args = append(args, "--upstream", "http://"+pl.Outbound)
	}
	p := &pair{place: pl}
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.pairs[pl.Name] = p
	}()
	var err error
	if p.app, err = d.starter.start(spec{name: "the application " + pl.Name, path: d.o.Program, args: args}); err != nil {
		return err
	}
	sp := spec{name: "the sidecar of " + pl.Name, path: d.o.Program, args: []string{"run", "--config", d.mesh.configPath(pl)}}
	if pl.Service == serviceWeb {
		sp.stdout, sp.stderr = d.webRecord, d.webLog
	} else {
		sp.stdout = d.apiRecord
	}
	if p.sidecar, err = d.starter.start(sp); err != nil {
		return err
	}
	id, err := mtls.ParseID(spiffeID(pl.Service))
	if err != nil {
		return err
	}
	return d.ca.Register(devca.Entry{ID: id, Selectors: []devca.Selector{devca.PID(p.sidecar.pid())}})
}

func (d *director) webRecord(line []byte) {
	if r := d.live.Load(); r != nil {
		r.witness.outbound(line)
	}
}

func (d *director) apiRecord(line []byte) {
	if r := d.live.Load(); r != nil {
		r.witness.inbound(line)
	}
}

func (d *director) webLog(line []byte) {
	if r := d.live.Load(); r != nil {
		if e, ok := parseEvent(line); ok {
			r.journal.add(e)
		}
	}
}

// all returns the pairs in the order of the mesh.
func (d *director) all() []*pair {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []*pair
	for _, pl := range d.mesh.places() {
		if p := d.pairs[pl.Name]; p != nil {
			list = append(list, p)
		}
	}
	return list
}

// await asks until done says nil, a process fails or ctx ends.
func (d *director) await(ctx context.Context, what string, done func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		for _, p := range d.all() {
			for _, c := range p.children() {
				if c.failed() {
					return c.failure()
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			said := ""
			for _, p := range d.all() {
				if text := p.sidecar.errors.text(); text != "" {
					said += "\n" + p.sidecar.name + " said last:\n" + text
				}
			}
			return fmt.Errorf("%s is not ready after %s: %w%s", what, readyTime, err, said)
		}
	}
}

// portTaken reports whether a process failed because its port is in use.
func (d *director) portTaken() bool {
	for _, p := range d.all() {
		for _, c := range p.children() {
			if c.portTaken() {
				return true
			}
		}
	}
	return false
}

// stopProcesses ends web first, so that nothing calls an api that is gone.
func (d *director) stopProcesses() {
	var callers, rest []*child
	for _, p := range d.all() {
		if p.Service == serviceWeb {
			callers = append(callers, p.children()...)
		} else {
			rest = append(rest, p.children()...)
		}
	}
	stopAll(callers)
	stopAll(rest)
	if d.consul != nil {
		for i := range d.mesh.API {
			d.consul.forget(d.mesh.consulID(d.mesh.API[i]))
		}
	}
}

// perform brings one step of the script about.
func (d *director) perform(r *run, st step) {
	d.mu.Lock()
	p := d.pairs[d.mesh.API[st.target].Name]
	d.mu.Unlock()
	if p == nil {
		return
	}
	e := Event{At: time.Now(), Kind: st.kind, Endpoint: p.Inbound}
	var err error
	switch st.kind {
	case kindErrs:
		if err = p.app.say(sayFail); err == nil {
			d.set(p, erring)
			e.Cause = "answers 500 to everything"
		}
	case kindRecovers:
		if err = p.app.say(sayWork); err == nil {
			d.set(p, works)
			e.Cause = "answers 200 again"
		}
	case kindKilled:
		e.Cause = fmt.Sprintf("SIGKILL to its sidecar %d and its application %d", p.sidecar.pid(), p.app.pid())
		d.set(p, killed)
		r.journal.add(e)
		p.sidecar.signal(syscall.SIGKILL)
		p.app.signal(syscall.SIGKILL)
		p.sidecar.kill()
		p.app.kill()
		return
	case kindRestarted:
		if err = d.startPair(p.place); err == nil {
			d.mu.Lock()
			next := d.pairs[p.Name]
			next.condition = starting
			e.Cause = fmt.Sprintf("sidecar %d, application %d", next.sidecar.pid(), next.app.pid())
			d.mu.Unlock()
		}
	}
	if err != nil {
		e.Kind, e.Cause = kindLost, err.Error()
	}
	r.journal.add(e)
}

func (d *director) set(p *pair, c condition) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p.condition = c
}

// check notices instances that have come up again, and processes that have
// ended by themselves.
func (d *director) check(ctx context.Context, r *run) {
	for _, p := range d.all() {
		d.mu.Lock()
		state, lost := p.condition, p.lost
		d.mu.Unlock()
		if state == starting && get(ctx, "http://"+p.Admin+"/ready", nil) == nil {
			d.set(p, works)
		}
		for _, c := range p.children() {
			if lost || !c.failed() {
				continue
			}
			d.mu.Lock()
			p.lost, p.condition = true, killed
			d.mu.Unlock()
			r.journal.add(Event{At: time.Now(), Kind: kindLost, Endpoint: p.Inbound, Instance: p.Name, Cause: c.failure().Error()})
			break
		}
	}
}

// direct follows the script until ctx ends.
func (d *director) direct(ctx context.Context, r *run) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, st := range d.script.due(time.Since(r.began)) {
			d.perform(r, st)
		}
		d.check(ctx, r)
		r.witness.settle(time.Now())
	}
}

const (
	getTime  = time.Second
	maxReply = 4 << 20
)

// get fetches a page; into, unless nil, takes its JSON.
func get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return do(req, into)
}

// do sends a request and reads the whole answer, within getTime.
func do(req *http.Request, into any) error {
	ctx, cancel := context.WithTimeout(req.Context(), getTime)
	defer cancel()
	req = req.WithContext(ctx)
	req.Close = true // no idle connection outlives the call
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return errors.New(resp.Status + ": " + string(body))
	case into != nil:
		return json.Unmarshal(body, into)
	}
	return nil
}
