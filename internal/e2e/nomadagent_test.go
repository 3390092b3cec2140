package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// nomadMesh is a real Nomad, server and client in one, with a real Consul beside
// it and Outrigger's programs where a job and the CNI find them. All of it is in
// namespaces that go with the test.
type nomadMesh struct {
	t       *testing.T
	agent   *testkit.ConsulAgent
	bin     string // the programs
	cni     string // the plugins
	nomad   string
	env     []string
	process *process // Nomad
}

const (
	// nomadHost is the address of the machine on which Nomad is.
	nomadHost = "10.9.9.1"
	nomadAPI  = "http://" + nomadHost + ":4646"
	// nomadPatience is how long an allocation may take to come or to go: Nomad and
	// Consul look now and then.
	nomadPatience = 120 * time.Second
	// nomadRoot is a file system in memory that only the test sees. Everybody may
	// look into it, as tasks of other users must.
	nomadRoot = "/run"
)

// findNomad returns the path of a Nomad and the folder of the CNI's own plugins.
// Neither is part of what our CI has: where one is missing the test is skipped.
func findNomad(t *testing.T) (bin, plugins string) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real Nomad; run without -short")
	}
	bin = os.Getenv("NOMAD_BIN")
	if bin == "" {
		bin, _ = exec.LookPath("nomad")
	}
	if bin == "" {
		t.Skip("no Nomad: set NOMAD_BIN; docs/nomad.md says how to get one")
	}
	if os.Getuid() != 0 {
		t.Skip("Nomad's bridge and drivers need root")
	}
	if plugins = os.Getenv("CNI_PATH"); plugins == "" {
		plugins = "/opt/cni/bin"
	}
	for _, name := range []string{"bridge", "firewall", "host-local", "loopback", "portmap"} {
		if _, err := os.Stat(filepath.Join(plugins, name)); err != nil {
			t.Skip("no CNI plugins for Nomad's bridge, set CNI_PATH: ", err)
		}
	}
	for _, name := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("Nomad's bridge needs ", err)
		}
	}
	return bin, plugins
}

// withNomad runs the rest of the calling test beside a real Nomad, for which the
// test process is started anew. It returns nil in the first process.
func withNomad(t *testing.T, opts testkit.ConsulOptions) *nomadMesh {
	t.Helper()
	bin, plugins := findNomad(t)
	if os.Getenv(insideNamespace) != "" {
		return startNomad(t, bin, plugins, opts)
	}
	forgetGroups(t)
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), insideNamespace+"="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	// The process is killed when the thread ends that has started it, see testkit.Start.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		t.Skip("no namespaces can be made for Nomad: ", err)
	}
	if err != nil {
		t.Fatalf("beside Nomad: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skip("beside Nomad: ", string(out))
	}
	t.Logf("beside Nomad:\n%s", out)
	return nil
}

// forgetGroups removes at the end of the test the control groups that Nomad
// makes and leaves, unless they were there before.
func forgetGroups(t *testing.T) {
	t.Helper()
	find := func() []string {
		var found []string
		for _, pattern := range []string{"/sys/fs/cgroup/nomad.slice", "/sys/fs/cgroup/*/nomad"} {
			list, _ := filepath.Glob(pattern)
			found = append(found, list...)
		}
		return found
	}
	before := find()
	t.Cleanup(func() {
		for _, top := range find() {
			if slices.Contains(before, top) {
				continue
			}
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				if err := os.Remove(dir); err != nil {
					t.Logf("a control group of Nomad's is left: %v", err)
				}
			}
		}
	})
}

// startNomad sets the namespaces up and starts Consul and Nomad in them.
func startNomad(t *testing.T, nomad, plugins string, opts testkit.ConsulOptions) *nomadMesh {
	t.Helper()
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", nomadRoot, "tmpfs", 0},
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			t.Skipf("nothing can be mounted for Nomad on %s: %v", m.target, err)
		}
	}
	for _, line := range []string{
		"link set lo up", "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up",
		"addr add " + nomadHost + "/24 dev v0", "route add default dev v0",
	} {
		tool(t, "ip", "", strings.Fields(line)...)
	}
	m := &nomadMesh{t: t, nomad: nomad, bin: filepath.Join(nomadRoot, "bin"), cni: filepath.Join(nomadRoot, "plugins")}
	consul, err := testkit.FindConsul(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	// In the chroot of a task there are no libraries.
	own := t.TempDir()
	build := exec.Command("go", "build", "-o", own+"/", "github.com/outrigger-mesh/outrigger/cmd/outrigger", "github.com/outrigger-mesh/outrigger/cmd/outrigger-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building outrigger: %v\n%s", err, out)
	}
	for to, from := range map[string]string{
		filepath.Join(m.bin, "outrigger"):   filepath.Join(own, "outrigger"),
		filepath.Join(m.bin, "application"): "/proc/self/exe",
		filepath.Join(m.cni, "consul-cni"):  filepath.Join(own, "outrigger-cni"),
	} {
		copyProgram(t, from, to)
	}
	links := map[string]string{filepath.Join(m.bin, "consul"): consul}
	list, err := os.ReadDir(plugins)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name() != "consul-cni" {
			links[filepath.Join(m.cni, e.Name())] = filepath.Join(plugins, e.Name())
		}
	}
	for to, from := range links {
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	m.env = append(os.Environ(), "PATH="+m.bin+":"+os.Getenv("PATH"), "NOMAD_ADDR="+nomadAPI)

	opts.Mesh = true
	opts.Config = object{"client_addr": "127.0.0.1 " + nomadHost, "ports": object{"dns": 8600}}
	m.agent = testkit.Consul(t, opts)
	m.env = append(m.env, "CONSUL_HTTP_ADDR="+m.agent.Address, "CONSUL_HTTP_TOKEN="+m.agent.Token)
	m.start()
	return m
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// start starts Nomad, which finds Consul and its gRPC port by itself.
func (m *nomadMesh) start() {
	m.t.Helper()
	_, port, _ := strings.Cut(strings.TrimPrefix(m.agent.Address, "http://"), ":")
	config := object{
		"data_dir": filepath.Join(nomadRoot, "nomad"), "bind_addr": nomadHost, "disable_update_check": true, "leave_on_interrupt": false,
		"log_level": "INFO", "ui": object{"enabled": false},
		"server": object{"enabled": true, "bootstrap_expect": 1},
		"client": object{
			"enabled": true, "cni_path": m.cni, "network_interface": "v0", "cpu_total_compute": 8000, "memory_total_mb": 4096,
			"options":    object{"driver.allowlist": "raw_exec,exec", "fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean"},
			"chroot_env": object{filepath.Join(m.bin, "outrigger"): "/bin/outrigger", "/etc/passwd": "/etc/passwd", "/etc/group": "/etc/group"},
			"meta":       object{"bin": m.bin, "consul_port": port, "connect.log_level": "info", "connect.proxy_concurrency": "1"},
		},
		"plugin": object{"raw_exec": object{"config": object{"enabled": true}}},
		"consul": object{"address": strings.TrimPrefix(m.agent.Address, "http://"), "grpc_address": m.agent.GRPC, "token": m.agent.Token},
	}
	if m.agent.Token != "" { // tasks log in at Consul by the identity that Nomad gives them
		identity := object{"aud": []string{"consul.io"}, "ttl": "1h"}
		consul := config["consul"].(object)
		consul["service_identity"], consul["task_identity"] = identity, identity
	}
	text, err := json.Marshal(config)
	if err != nil {
		m.t.Fatal(err)
	}
	file := filepath.Join(m.t.TempDir(), "agent.json")
	writeFile(m.t, file, string(text))
	cmd := exec.Command(m.nomad, "agent", "-config="+file)
	cmd.Env = m.env
	m.process = spawn(m.t, "nomad", cmd)
	m.eventually("a client of Nomad is ready, with its drivers and Consul", func() (bool, string) {
		if !m.process.running() {
			m.t.Fatal("Nomad has ended")
		}
		var nodes []struct{ ID, Status string }
		if err := m.get("/v1/nodes", &nodes); err != nil || len(nodes) != 1 || nodes[0].Status != "ready" {
			return false, fmt.Sprint(nodes, err)
		}
		var node struct {
			Attributes map[string]string
			Drivers    map[string]struct{ Healthy bool }
		}
		err := m.get("/v1/node/"+nodes[0].ID, &node)
		a := node.Attributes
		return err == nil && node.Drivers["raw_exec"].Healthy && node.Drivers["exec"].Healthy && a["consul.grpc"] != "" && a["plugins.cni.version.consul-cni"] != "",
			fmt.Sprint(node.Drivers, a["consul.grpc"], a["plugins.cni.version.consul-cni"], err)
	})
}

func (m *nomadMesh) eventually(what string, check func() (bool, string)) {
	m.t.Helper()
	eventually(m.t, nomadPatience, what, check)
}

// get reads something from Nomad's API.
func (m *nomadMesh) get(path string, into any) error {
	resp, err := adminClient.Get(nomadAPI + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s %w", resp.StatusCode, b, err)
	}
	return json.Unmarshal(b, into)
}

// command runs one of Nomad's commands, which must go well.
func (m *nomadMesh) command(args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), m.nomad, args...)
	cmd.Env = m.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("nomad %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
