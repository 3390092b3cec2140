package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery"
)

// maxDefinition bounds the file of a definition.
const maxDefinition = 1 << 20

// Definition keeps what a file of Consul's own form defines registered with the
// agent: a service with its sidecar, or the sidecar alone.
type Definition struct {
	client *Client
	path   string
	log    *slog.Logger

	mu       sync.Mutex
	ids      []string // registered, and not yet taken away
	ended    bool
	failures string
}

// NewDefinition returns one for cfg.Register.Definition. The file is read, and
// nothing is sent before Run.
func NewDefinition(cfg Config, client *Client, log *slog.Logger) (*Definition, error) {
	d := &Definition{client: client, path: cfg.Register.Definition, log: log}
	if _, err := d.read(); err != nil {
		return nil, err
	}
	return d, nil
}

// read returns the services that the file defines, by ID in their order.
func (d *Definition) read() ([]defined, error) {
	data, err := os.ReadFile(d.path)
	if err != nil {
		return nil, fmt.Errorf("discovery.consul.register.definition: %w", err)
	}
	list, err := parseDefinition(data)
	if err != nil {
		return nil, fmt.Errorf("discovery.consul.register.definition: %s: %w", d.path, err)
	}
	return list, nil
}

// defined is a service as the agent is told of it.
type defined struct {
	id   string
	body json.RawMessage
}

// parseDefinition reads {"service": {...}}, {"services": [...]} or a service by
// itself, as `consul services register` takes them in JSON.
func parseDefinition(data []byte) ([]defined, error) {
	if len(data) > maxDefinition {
		return nil, fmt.Errorf("it has more than %d bytes", maxDefinition)
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(data, &top); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	bodies := []json.RawMessage{data}
	for key, value := range top {
		switch strings.ToLower(key) {
		case "service":
			bodies = []json.RawMessage{value}
		case "services":
			if err := json.Unmarshal(value, &bodies); err != nil {
				return nil, fmt.Errorf("services: %w", err)
			}
		}
	}
	var list []defined
	for _, body := range bodies {
		// The decoder does not mind how the letters of keys are written.
		var s struct{ ID, Name string }
		if err := json.Unmarshal(body, &s); err != nil {
			return nil, err
		}
		if s.Name == "" {
			return nil, errors.New("a service has no name")
		}
		list = append(list, defined{or(s.ID, s.Name), body})
	}
	if len(list) == 0 {
		return nil, errors.New("it defines no service")
	}
	return list, nil
}

// Run registers what the file defines, again when the agent has lost it, until
// ctx ends, and then takes it away within a deadline of its own.
func (d *Definition) Run(ctx context.Context) {
	defer d.client.client.hold()()
	list, err := d.read()
	if err != nil {
		d.failed(err)
	}
	var wg sync.WaitGroup
	for _, one := range list {
		wg.Go(func() { d.keep(ctx, one) })
	}
	<-ctx.Done()
	wg.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), deregisterTime)
	defer cancel()
	if err := d.Deregister(last); err != nil {
		d.log.Warn("consul registration could not be taken away", "error", err.Error())
	}
}

// Deregister takes away what was registered, for good.
func (d *Definition) Deregister(ctx context.Context) error {
	d.mu.Lock()
	d.ended = true
	ids := d.ids
	d.ids = nil
	d.mu.Unlock()
	var errs []error
	for _, id := range ids {
		_, err := d.client.Ask(ctx, Query{
			Path: "/v1/agent/service/deregister/" + url.PathEscape(id), Method: http.MethodPut, Optional: true, Fresh: true,
			Need: "service:write on " + id,
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.log.Info("consul registration taken away", "id", id)
	}
	return errors.Join(errs...)
}

// keep registers one service and again when the agent has lost it.
func (d *Definition) keep(ctx context.Context, one defined) {
	q := Query{Path: "/v1/agent/service/" + url.PathEscape(one.id), ByHash: true, Optional: true, Fresh: true, Need: "service:read on " + one.id}
	walk, told := d.client.Walk(), false
	for ctx.Err() == nil {
		pause, early := walk.Step(ctx, q, func(r Reply) (int, error) {
			if told && !r.Missing {
				return 0, nil
			}
			// Also over an entry of an earlier process, which may differ.
			err := d.register(ctx, one)
			told = told || err == nil
			return 0, err
		}, d.failed)
		if pause > 0 {
			discovery.Sleep(ctx, min(pause, time.Second), early)
		}
	}
}

// register tells the agent of one service. The call is not cut short by ctx.
func (d *Definition) register(ctx context.Context, one defined) error {
	d.mu.Lock()
	defer d.mu.Unlock() // Deregister waits for a registration on its way
	if d.ended {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	_, err := d.client.Ask(ctx, Query{
		Path: "/v1/agent/service/register", Method: http.MethodPut, Body: one.body, Fresh: true,
		Params: map[string]string{"replace-existing-checks": "true"}, Need: "service:write on " + one.id,
	})
	if err != nil {
		return err
	}
	again := false
	for _, id := range d.ids {
		again = again || id == one.id
	}
	if !again {
		d.ids = append(d.ids, one.id)
	}
	d.failures = ""
	d.log.Info("registered with consul", "id", one.id, "again", again)
	return nil
}

// failed tells of trouble that is new.
func (d *Definition) failed(err error) {
	d.mu.Lock()
	before := d.failures
	d.failures = err.Error()
	d.mu.Unlock()
	if before == "" {
		d.log.Warn("consul registration has trouble; trying again", "definition", d.path, "error", err.Error())
	}
}
