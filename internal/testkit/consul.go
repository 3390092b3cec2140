package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ConsulOptions says which kind of agent Consul starts.
type ConsulOptions struct {
	// ACL turns access control on: deny by default, with ConsulAgent.Token as
	// the management token.
	ACL bool
	// Datacenter is the agent's datacenter. Default dc1, or that of Server.
	Datacenter string
	// Mesh turns the service mesh on: a certificate authority, and gRPC.
	Mesh bool
	// Server makes it a client agent in the cluster of that server.
	Server *ConsulAgent
	// Primary federates the agent's datacenter with that of another server with
	// Mesh, from which certificates, config entries and tokens come.
	Primary *ConsulAgent
	// Config holds more of the agent's configuration, merged section by section.
	Config map[string]any
}

// ConsulAgent is a real Consul agent, on loopback: a server of one node, or a
// client of one.
type ConsulAgent struct {
	// Address is "http://127.0.0.1:PORT".
	Address string
	// GRPC is "127.0.0.1:PORT", which speaks xDS and Consul's own services;
	// empty without Mesh.
	GRPC string
	// Node is the agent's name in the catalog.
	Node string
	// Token is the management token; empty without ACL.
	Token string

	bin     string
	dir     string
	ports   consulPorts
	opts    ConsulOptions
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended and was waited for
	logFile *os.File
}

const (
	consulStart = 60 * time.Second
	consulStop  = 10 * time.Second
	// managementToken is the token of test agents, which live on loopback for seconds.
	managementToken = "00000000-0000-4000-8000-00000000face"
)

// Consul starts a real Consul agent and ends it when the test does. The
// program is the one that FindConsul finds. With -short the test is skipped.
func Consul(t testing.TB, opts ConsulOptions) *ConsulAgent {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real Consul agent; run without -short")
	}
	build, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	bin, err := FindConsul(build, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if server := opts.Server; server != nil {
		opts.Datacenter, opts.ACL, opts.Mesh = server.opts.Datacenter, server.opts.ACL, server.opts.Mesh
	}
	if primary := opts.Primary; primary != nil {
		opts.ACL, opts.Mesh = primary.opts.ACL, true
	}
	if opts.Datacenter == "" {
		opts.Datacenter = "dc1"
	}
	c := &ConsulAgent{bin: bin, dir: t.TempDir(), opts: opts}
	if opts.ACL {
		c.Token = managementToken
	}
	if c.logFile, err = os.Create(filepath.Join(c.dir, "agent.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop(t)
		c.logFile.Close()
		if t.Failed() {
			if log, err := os.ReadFile(c.logFile.Name()); err == nil {
				t.Logf("the end of the Consul agent's log:\n%s", tail(log, 4000))
			}
		}
	})
	// Another process may take a port between finding and using it.
	for try := 1; ; try++ {
		c.ports = freePorts(t)
		c.Address, c.Node = fmt.Sprintf("http://127.0.0.1:%d", c.ports.http), "node-1"
		if opts.Server != nil {
			c.Node = fmt.Sprintf("client-%d", c.ports.http)
		}
		if opts.Mesh {
			c.GRPC = fmt.Sprintf("127.0.0.1:%d", c.ports.grpc)
		}
		if err = c.start(); err == nil {
			return c
		}
		c.Stop(t)
		if try == 3 {
			t.Fatalf("Consul agent: %v", err)
		}
	}
}

// Stop ends the agent; its ports and data stay reserved for Start. It does
// nothing when the agent is not running.
func (c *ConsulAgent) Stop(t testing.TB) {
	t.Helper()
	if c.cmd == nil {
		return
	}
	// A server keeps its state and does not leave the cluster on SIGTERM.
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(consulStop):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	c.cmd = nil
}

// Start starts the agent again after Stop, on the same ports with the same
// data, and waits until it serves.
func (c *ConsulAgent) Start(t testing.TB) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatalf("Consul agent: %v", err)
	}
}

// Restart is Stop and Start.
func (c *ConsulAgent) Restart(t testing.TB) {
	t.Helper()
	c.Stop(t)
	c.Start(t)
}

// Wipe deletes the data of a stopped agent; the next Start begins a new
// cluster whose indexes start over.
func (c *ConsulAgent) Wipe(t testing.TB) {
	t.Helper()
	if c.cmd != nil {
		t.Fatal("Wipe: the agent is running")
	}
	if err := os.RemoveAll(filepath.Join(c.dir, "data")); err != nil {
		t.Fatal(err)
	}
}

// Do sends a request to the agent's HTTP API with the management token. body
// is sent as JSON unless it is nil; an answer other than 2xx fails the test.
// The answer's body is returned.
func (c *ConsulAgent) Do(t testing.TB, method, path string, body any) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	status, answer, err := c.call(ctx, method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

func (c *ConsulAgent) call(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Address+path, content)
	if err != nil {
		return 0, nil, err
	}
	req.Close = true // no idle connection outlives the call
	if c.Token != "" {
		req.Header.Set("X-Consul-Token", c.Token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, answer, err
}

// start runs the program and waits until it is ready.
func (c *ConsulAgent) start() error {
	content, err := json.Marshal(c.config())
	if err != nil {
		return err
	}
	file := filepath.Join(c.dir, "agent.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	cmd := exec.Command(c.bin, "agent", "-config-file="+file)
	cmd.Stdout, cmd.Stderr = c.logFile, c.logFile
	cmd.Env = []string{"HOME=" + c.dir, "PATH=" + os.Getenv("PATH")}
	exited, err := Start(cmd)
	if err != nil {
		return err
	}
	c.cmd, c.exited = cmd, exited

	ctx, cancel := context.WithTimeout(context.Background(), consulStart)
	defer cancel()
	for {
		select {
		case <-exited:
			log, _ := os.ReadFile(c.logFile.Name())
			return fmt.Errorf("the agent ended: %v\n%s", cmd.ProcessState, tail(log, 2000))
		default:
		}
		if c.ready(ctx) {
			return nil
		}
		if !pause(ctx) {
			log, _ := os.ReadFile(c.logFile.Name())
			return fmt.Errorf("the agent did not get ready within %v\n%s", consulStart, tail(log, 2000))
		}
	}
}

// pause waits a moment between two looks at something outside this process,
// which has no event to wait for. It reports false when ctx has ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
