package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

var largeMesh = flag.Bool("large", false, "measure a sidecar with 1,000 upstreams of 10 instances each in a real Consul")

// cpuOf is the CPU time that a process and its threads have had.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("%v, %d threads", err, len(tasks))
	}
	var sum time.Duration
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // ended meanwhile
		}
		ns, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}

// What a large mesh costs one sidecar: go test ./internal/e2e -run TestConsulLarge -large -v
func TestConsulLarge(t *testing.T) {
	if !*largeMesh {
		t.Skip("a measurement; run with -large")
	}
	const services, each = 1000, 10
	m := &consulMesh{t: t, agent: testkit.Consul(t, testkit.ConsulOptions{Mesh: true})}
	app := serve(t, named("api", echo("api")))
	set := func(service, instance int, port int) object {
		name := fmt.Sprintf("svc-%04d", service)
		return object{"Service": object{"Verb": "set", "Node": "far", "Service": object{
			"ID": fmt.Sprintf("%s-%d-proxy", name, instance), "Service": name + "-sidecar-proxy", "Kind": "connect-proxy", "Address": fmt.Sprintf("127.0.%d.%d", 1+instance, 1), "Port": port,
			"Proxy": object{"DestinationServiceName": name, "DestinationServiceID": fmt.Sprintf("%s-%d", name, instance)},
		}}}
	}
	m.agent.Do(t, http.MethodPut, "/v1/catalog/register", object{"Node": "far", "Address": "127.0.0.1"})
	var ops []object
	flush := func() {
		if len(ops) > 0 {
			m.agent.Do(t, http.MethodPut, "/v1/txn", ops)
			ops = nil
		}
	}
	for s := range services {
		for i := range each {
			if ops = append(ops, set(s, i, app)); len(ops) == 100 {
				flush()
			}
		}
	}
	flush()
	var names []string
	for s := range services {
		names = append(names, fmt.Sprintf("svc-%04d", s))
	}
	web := m.register(ownKind, testkit.Sidecar{Service: "web"}, names...)
	began := time.Now()
	web.start()
	ready := time.Since(began)
	pid := web.own.cmd.Process.Pid
	eventually(t, time.Minute, "all endpoints are known", func() (bool, string) {
		n := strings.Count(web.own.out.String(), "endpoints changed")
		return n >= services, fmt.Sprint(n)
	})
	whole := time.Since(began)
	start0 := cpuOf(t, pid)
	time.Sleep(10 * time.Second) // the first garbage is gone, and what goes on by itself is seen
	idle := (cpuOf(t, pid) - start0) / 10
	if file := os.Getenv("LARGE_HEAP"); file != "" {
		_, body := web.own.get("/debug/pprof/heap")
		writeFile(t, file, body)
	}
	rss, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(rss)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "RssAnon") {
			t.Log(strings.TrimSpace(line))
		}
	}
	t.Logf("ready after %v, all endpoints after %v, CPU %v", ready, whole, start0)

	const changes = 20
	// What it costs when nothing changes is taken off.
	before, start := cpuOf(t, pid), time.Now()
	var slowest time.Duration
	for i := range changes {
		cluster := fmt.Sprintf("cluster=svc-%04d ", i*37)
		have := strings.Count(web.own.out.String(), cluster)
		ops = append(ops, set(i*37, 0, freePort(t)))
		flush()
		change := time.Now()
		eventually(t, patience, "the change is followed", func() (bool, string) {
			return strings.Count(web.own.out.String(), cluster) > have, ""
		})
		slowest = max(slowest, time.Since(change))
	}
	took := time.Since(start)
	t.Logf("a change of one instance: the slowest of %d after %v; CPU in these %v: %v, and without changes %v a second", changes, slowest, took, cpuOf(t, pid)-before, idle)
}
