package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
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
	// Datacenter is the agent's datacenter. Default dc1.
	Datacenter string
	// Connect turns the service mesh on, with Consul's own authority.
	Connect bool
	// Config is merged over the agent's configuration, section by section.
	Config map[string]any
}

// ConsulAgent is a real Consul server agent of one node, on loopback.
type ConsulAgent struct {
	// Address is "http://127.0.0.1:PORT".
	Address string
	// Token is the management token; empty without ACL.
	Token string

	bin     string
	dir     string
	ports   [3]int // http, server RPC, serf LAN
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
		if c.ports, err = freePorts(); err != nil {
			t.Fatal(err)
		}
		c.Address = fmt.Sprintf("http://127.0.0.1:%d", c.ports[0])
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

// start runs the program and waits until the server has a leader, its node is
// in the catalog and the management token works.
func (c *ConsulAgent) start() error {
	config := map[string]any{
		"node_name": "node-1", "datacenter": c.opts.Datacenter,
		"server": true, "bootstrap_expect": 1, "data_dir": filepath.Join(c.dir, "data"),
		"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "warn",
		"ports": map[string]any{
			"http": c.ports[0], "server": c.ports[1], "serf_lan": c.ports[2],
			"https": -1, "grpc": -1, "grpc_tls": -1, "dns": -1, "serf_wan": -1,
		},
		"performance":                map[string]any{"raft_multiplier": 1},
		"leave_on_terminate":         false,
		"disable_update_check":       true,
		"check_update_interval":      "0s",
		"enable_local_script_checks": false,
		"ui_config":                  map[string]any{"enabled": false},
		"peering":                    map[string]any{"enabled": false},
		"connect":                    map[string]any{"enabled": c.opts.Connect},
	}
	if c.opts.ACL {
		config["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny", "token_ttl": "0s",
			"tokens": map[string]string{"initial_management": managementToken, "agent": managementToken},
		}
	}
	for key, value := range c.opts.Config {
		if section, ok := value.(map[string]any); ok && config[key] != nil {
			if have, ok := config[key].(map[string]any); ok {
				maps.Copy(have, section)
				continue
			}
		}
		config[key] = value
	}
	content, err := json.Marshal(config)
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
	// Ends the agent also when the test process is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	c.cmd, c.exited = cmd, exited
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()

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

// ready asks without stale reads, so only a leader can say yes.
func (c *ConsulAgent) ready(ctx context.Context) bool {
	status, body, err := c.call(ctx, http.MethodGet, "/v1/health/node/node-1?consistent", nil)
	if err != nil || status != http.StatusOK || !strings.Contains(string(body), "serfHealth") {
		return false
	}
	if c.Token == "" {
		return true
	}
	status, _, err = c.call(ctx, http.MethodGet, "/v1/acl/token/self", nil)
	return err == nil && status == http.StatusOK
}

// freePorts finds ports that are free on loopback, for TCP and UDP.
func freePorts() (ports [3]int, err error) {
	var held []io.Closer
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports, err
		}
		held = append(held, l)
		ports[i] = l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			return ports, err
		}
		held = append(held, u)
	}
	return ports, nil
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
