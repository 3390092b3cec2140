package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const consulStart = 60 * time.Second

// consulAgent is a Consul agent, started here or already running.
type consulAgent struct {
	address string // http://...
	child   *child // nil when it is not ours
}

// findConsul returns the Consul program.
func findConsul() (string, error) {
	name := "consul"
	if bin := os.Getenv("CONSUL_BIN"); bin != "" {
		name = bin
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("there is no Consul program: %w; install one (https://developer.hashicorp.com/consul/install) and put it on the PATH or name it in CONSUL_BIN, or name a running agent with --consul-addr", err)
	}
	return path, nil
}

// openConsul starts an agent, or checks that the one at address answers.
func openConsul(ctx context.Context, s *starter, dir, address string, say func(string, ...any)) (*consulAgent, error) {
	if address != "" {
		if !strings.Contains(address, "://") {
			address = "http://" + address
		}
		if u, err := url.Parse(address); err != nil || u.Scheme != "http" || u.Host == "" {
			return nil, fmt.Errorf("--consul-addr %q: write http://HOST:PORT", address)
		}
		a := &consulAgent{address: strings.TrimSuffix(address, "/")}
		if err := a.leader(ctx); err != nil {
			return nil, fmt.Errorf("--consul-addr: the agent does not serve: %w", err)
		}
		return a, nil
	}
	bin, err := findConsul()
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		a, err := startConsul(ctx, s, dir, bin, say)
		if err == nil || try == startTries || ctx.Err() != nil {
			return a, err
		}
	}
}

func startConsul(ctx context.Context, s *starter, dir, bin string, say func(string, ...any)) (*consulAgent, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"node_name": "demo", "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "warn",
		"ports": map[string]int{
			"http": ports[0], "server": ports[1], "serf_lan": ports[2],
			"https": -1, "grpc": -1, "grpc_tls": -1, "dns": -1, "serf_wan": -1,
		},
		"disable_update_check": true,
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "consul.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	a := &consulAgent{address: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	say("Starting a Consul agent in development mode on %s", a.address)
	a.child, err = s.start(spec{name: "the Consul agent", path: bin, args: []string{"agent", "-dev", "-config-file=" + file}})
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, consulStart)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := a.leader(waiting)
		if err == nil {
			return a, nil
		}
		if a.child.failed() {
			return nil, a.child.failure()
		}
		select {
		case <-tick.C:
		case <-waiting.Done():
			said := a.child.errors.text()
			a.close()
			return nil, fmt.Errorf("the Consul agent is not ready after %s: %w\n%s", consulStart, err, said)
		}
	}
}

// leader reports whether the agent has a leader and its own node in the
// catalog, so that a registration is visible at once.
func (a *consulAgent) leader(ctx context.Context) error {
	var nodes []struct{ Node string }
	if err := a.call(ctx, http.MethodGet, "/v1/catalog/nodes?consistent", &nodes); err != nil {
		return err
	}
	if len(nodes) == 0 {
		return errors.New("its catalog has no node yet")
	}
	return nil
}

// forget takes a service away that its sidecar could not take away itself,
// having been killed. An agent that is ours ends anyway.
func (a *consulAgent) forget(id string) {
	if a.child == nil {
		ctx, cancel := context.WithTimeout(context.Background(), getTime)
		defer cancel()
		// It fails when the sidecar has done so already.
		_ = a.call(ctx, http.MethodPut, "/v1/agent/service/deregister/"+id, nil)
	}
}

func (a *consulAgent) call(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.address+path, nil)
	if err != nil {
		return err
	}
	if token := os.Getenv("CONSUL_HTTP_TOKEN"); token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	return do(req, into)
}

func (a *consulAgent) close() {
	if a.child != nil {
		stopAll([]*child{a.child})
	}
}
