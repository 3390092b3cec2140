package mesh

import (
	"encoding/json"
	"fmt"
	"runtime"
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

// BenchmarkThousandServices says what following many services takes: until all
// is known, in memory, and for the change of one instance.
func BenchmarkThousandServices(b *testing.B) {
	c := testkit.Consul(b, testkit.ConsulOptions{Mesh: true})
	names, upstreams := fill(b, c, 1000, 10)
	c.Do(b, "PUT", "/v1/agent/service/register", json.RawMessage(
		`{"ID":"web-1","Name":"web","Port":8080,"Connect":{"SidecarService":{"Port":21000,"Checks":[],"Proxy":{"Upstreams":[`+upstreams+`]}}}}`))
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began, used := time.Now(), cpu()
		r := start(b, consul.Config{Address: c.Address, Stale: true, Sidecar: &consul.Sidecar{ProxyID: "web-1-sidecar-proxy"}}, Options{}, names...)
		r.until(b, "the chains", func() bool { return r.snapshot != nil && len(r.snapshot.Chains) == 1000 })
		b.ReportMetric(time.Since(began).Seconds(), "s/chains")
		r.until(b, "the endpoints", func() bool {
			for _, name := range names {
				if s := r.services[name]; s == nil || len(s.Endpoints) != 10 {
					return false
				}
			}
			return true
		})
		b.ReportMetric(time.Since(began).Seconds(), "s/complete")
		b.ReportMetric((cpu() - used).Seconds(), "cpu-s/complete")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc+after.StackInuse-before.StackInuse)/1e6, "MB")
		b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
		time.Sleep(3 * time.Second)
		used = cpu()
		time.Sleep(time.Second)
		b.ReportMetric((cpu()-used).Seconds()*1000, "cpu-ms/idle-s")
		for i := range 3 {
			status := []string{"critical", "passing"}[i%2]
			began, used = time.Now(), cpu()
			c.Do(b, "PUT", "/v1/txn", []any{map[string]any{"Check": map[string]any{"Verb": "set", "Check": map[string]any{
				"Node": "n3", "CheckID": "c-s0500-3", "Name": "alive", "Status": status, "ServiceID": "s0500-3",
			}}}})
			want := strings.Contains(line(r.services["s0500"]), "critical")
			r.until(b, "the change", func() bool { return strings.Contains(line(r.services["s0500"]), "critical") != want })
			b.ReportMetric(time.Since(began).Seconds(), fmt.Sprintf("s/change%d", i))
			time.Sleep(2 * time.Second)
			b.ReportMetric((cpu()-used).Seconds()*1000, fmt.Sprintf("cpu-ms/change%d", i))
		}
		r.stop()
	}
}
