package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Metrics and pages may be read all the time while endpoints come and go.
func TestScrapesWhileEndpointsChange(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	port := serve(t, echo("api"))
	m.catalog(map[string][]string{"api": {loopback(port)}})
	web, call := m.outbound("web", "api", sections{
		"identity": "", "policies": "{api: {transport: plaintext, keepalive_timeout: 1s}}",
		"discovery": `{file: {path: "` + m.catalogPath() + `"}, snapshot: "` + m.dir + `/state/snapshot.json"}`,
	})
	web.ready()
	stop, stopped := make(chan struct{}), make(chan struct{})
	failed := make(chan string, 1)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, path := range []string{"/metrics", "/endpoints", "/clusters", "/discovery"} {
				if status, body := web.get(path); status != http.StatusOK {
					select {
					case failed <- path + ": " + body:
					default:
					}
				}
			}
		}
	}()
	l := startLoad(t, "http://"+call+"/", loadOptions{Workers: 2})
	for i := range 60 {
		list := []string{loopback(port)}
		for k := range i % 20 {
			list = append(list, fmt.Sprintf("127.7.%d.%d:1", i, k+1))
		}
		// Endpoints that nobody listens on cost an attempt, not a request.
		m.catalog(map[string][]string{"api": list})
		time.Sleep(30 * time.Millisecond)
	}
	m.catalog(map[string][]string{"api": {loopback(port)}})
	close(stop)
	<-stopped
	select {
	case f := <-failed:
		t.Errorf("the admin API: %s", f)
	default:
	}
	eventually(t, patience, "the last catalog is in use", func() (bool, string) {
		_, body := web.get("/discovery")
		return web.watch().Endpoints == 1, body
	})
	web.counts(1, "outrigger_cluster_endpoints", `cluster="api"`)
	l.more(t, 5)
}
