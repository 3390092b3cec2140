package mesh

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/discovery/consul"
	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// fill registers n services with m instances each, in transactions.
func fill(t testing.TB, c *testkit.ConsulAgent, n, m int) (names []string, upstreams string) {
	t.Helper()
	var ops []any
	flush := func() {
		if len(ops) > 0 {
			c.Do(t, "PUT", "/v1/txn", ops)
			ops = ops[:0]
		}
	}
	for node := range m {
		ops = append(ops, map[string]any{"Node": map[string]any{"Verb": "set", "Node": map[string]any{"Node": fmt.Sprintf("n%d", node), "Address": fmt.Sprintf("10.0.1.%d", node)}}})
	}
	flush()
	var list []string
	for i := range n {
		name := fmt.Sprintf("s%04d", i)
		names = append(names, name)
		list = append(list, fmt.Sprintf(`{"DestinationName":%q,"LocalBindPort":%d}`, name, 10000+i))
		for node := range m {
			id := fmt.Sprintf("%s-%d", name, node)
			ops = append(ops,
				map[string]any{"Service": map[string]any{"Verb": "set", "Node": fmt.Sprintf("n%d", node), "Service": map[string]any{
					"ID": id, "Service": name + "-sidecar-proxy", "Kind": "connect-proxy", "Port": 20000 + i, "Meta": map[string]string{"version": "v1"},
					"Proxy": map[string]any{"DestinationServiceName": name, "DestinationServiceID": id},
				}}},
				map[string]any{"Check": map[string]any{"Verb": "set", "Check": map[string]any{
					"Node": fmt.Sprintf("n%d", node), "CheckID": "c-" + id, "Name": "alive", "Status": "passing", "ServiceID": id, "Output": "HTTP GET http://10.0.0.1:8080/health: 200 OK",
				}}})
			if len(ops) >= 126 {
				flush()
			}
		}
	}
	flush()
	return names, strings.Join(list, ",")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// connections counts those that are open to a port of loopback.
func connections(port int) int {
	list, _ := os.ReadFile("/proc/self/net/tcp")
	return len(regexp.MustCompile(fmt.Sprintf(`(?m)^ *\d+: \S+ 0100007F:%04X 01 `, port)).FindAll(list, -1))
}

// agentFiles returns a folder with what an agent speaks TLS with: agent.pem,
// key.pem and bundle.pem.
func agentFiles(t testing.TB) (dir string) {
	ca := testkit.NewCA(t)
	dir = ca.Files("spiffe://test/agent")
	cert := ca.Issue("spiffe://test/agent", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]pem.Block{
		"agent.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		"key.pem":   {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// BenchmarkThousandServices says what following 1,000 services of 10 instances
// takes of a real agent, over http and over https: until all is known, in memory
// and connections, and for a change of one instance: of its health, and a new
// one. The CPU time is that of this process, which is the Follower's but for the
// few requests that make the changes.
//
//	go test ./discovery/consul/mesh -run - -bench ThousandServices -benchtime 1x
//
// With OUTRIGGER_BIN, the path of the program, it is run as well, with all of
// them as upstreams on ports from 10000 on, over http.
func BenchmarkThousandServices(b *testing.B) {
	files := agentFiles(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	secure := l.Addr().(*net.TCPAddr).Port
	l.Close()
	c := testkit.Consul(b, testkit.ConsulOptions{Mesh: true, Config: map[string]any{
		"ports": map[string]any{"https": secure},
		"tls": map[string]any{"https": map[string]any{
			"cert_file": filepath.Join(files, "agent.pem"), "key_file": filepath.Join(files, "key.pem"),
		}},
	}})
	names, upstreams := fill(b, c, 1000, 10)
	c.Do(b, "PUT", "/v1/agent/service/register", json.RawMessage(
		`{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{"Upstreams":[`+upstreams+`]}}}}`))
	_, port, _ := strings.Cut(strings.TrimPrefix(c.Address, "http://"), ":")
	plain, _ := strconv.Atoi(port)
	cfg := consul.Config{Stale: true, Sidecar: &consul.Sidecar{ProxyID: "web-1-sidecar-proxy"}}
	b.Run("http", func(b *testing.B) {
		cfg.Address = c.Address
		measureThousand(b, c, cfg, plain, names)
	})
	b.Run("https", func(b *testing.B) {
		cfg.Address = fmt.Sprintf("https://127.0.0.1:%d", secure)
		cfg.TLS.CAFile = filepath.Join(files, "bundle.pem")
		measureThousand(b, c, cfg, secure, names)
	})
	if bin := os.Getenv("OUTRIGGER_BIN"); bin != "" {
		b.Run("process", func(b *testing.B) { measureProcess(b, c, bin) })
	}
}

// measureProcess runs a program as a sidecar until it is ready.
func measureProcess(b *testing.B, c *testkit.ConsulAgent, bin string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	admin := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "run", "--consul-sidecar-for", "web-1", "--admin", admin)
	cmd.Env = []string{"HOME=" + b.TempDir(), "CONSUL_HTTP_ADDR=" + c.Address, "CONSUL_GRPC_ADDR=" + c.GRPC}
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
		b.ReportMetric(cmd.ProcessState.UserTime().Seconds()+cmd.ProcessState.SystemTime().Seconds(), "cpu-s/all")
	}()
	for {
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+admin+"/ready", nil)
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if ctx.Err() != nil {
			b.Fatal("the program does not get ready")
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s/ready")
	for _, at := range []string{"ready", "10s"} {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if m := regexp.MustCompile(`VmRSS:\s*(\d+) kB`).FindSubmatch(status); m != nil {
			kb, _ := strconv.Atoi(string(m[1]))
			b.ReportMetric(float64(kb)/1e3, "rss-MB/"+at)
		}
		if at == "ready" {
			time.Sleep(10 * time.Second)
		}
	}
}

func measureThousand(b *testing.B, c *testkit.ConsulAgent, cfg consul.Config, port int, names []string) {
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began, used := time.Now(), cpu()
		r := start(b, cfg, Options{}, names...)
		r.until(b, "the chains", func() bool { return r.snapshot != nil && len(r.snapshot.Chains) == 1000 })
		b.ReportMetric(time.Since(began).Seconds(), "s/chains")
		r.until(b, "the endpoints", func() bool {
			for _, name := range names {
				if s := r.services[name]; s == nil || len(s.Endpoints) < 10 {
					return false
				}
			}
			return true
		})
		b.ReportMetric(time.Since(began).Seconds(), "s/complete")
		b.ReportMetric((cpu() - used).Seconds(), "cpu-s/complete")
		change := func(i int, method, path string, body any) {
			began, used := time.Now(), cpu()
			was := line(r.services["s0500"])
			c.Do(b, method, path, body)
			r.until(b, "the change", func() bool { return line(r.services["s0500"]) != was })
			b.ReportMetric(time.Since(began).Seconds(), fmt.Sprintf("s/change%d", i))
			time.Sleep(2500 * time.Millisecond)
			b.ReportMetric((cpu()-used).Seconds()*1000, fmt.Sprintf("cpu-ms/change%d", i))
		}
		health := func(status string) []any {
			return []any{map[string]any{"Check": map[string]any{"Verb": "set", "Check": map[string]any{
				"Node": "n3", "CheckID": "c-s0500-3", "Name": "alive", "Status": status, "ServiceID": "s0500-3",
			}}}}
		}
		change(0, "PUT", "/v1/txn", health("critical")) // at once after the start
		b.ReportMetric(float64(connections(port)), "connections")
		b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc+after.StackInuse-before.StackInuse)/1e6, "MB")
		time.Sleep(3 * time.Second)
		used = cpu()
		time.Sleep(2 * time.Second)
		b.ReportMetric((cpu()-used).Seconds()*1000/2, "cpu-ms/idle-s")
		change(1, "PUT", "/v1/txn", health("passing"))
		change(2, "PUT", "/v1/txn", health("critical"))
		change(3, "PUT", "/v1/txn", health("passing"))
		name := fmt.Sprintf("s0500-new-%d", port)
		change(4, "PUT", "/v1/catalog/register", map[string]any{"Node": "n3", "Address": "10.0.1.3", "Service": map[string]any{
			"ID": name, "Service": "s0500-sidecar-proxy", "Kind": "connect-proxy", "Port": 30000, "Proxy": map[string]any{"DestinationServiceName": "s0500"},
		}})
		change(5, "PUT", "/v1/catalog/deregister", map[string]any{"Node": "n3", "ServiceID": name})
		r.stop()
	}
}
