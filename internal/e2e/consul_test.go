package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

// consulSection is a discovery section on an agent; more goes into consul.
func consulSection(a *testkit.ConsulAgent, more, rest string) string {
	return fmt.Sprintf(`{consul: {address: "%s"%s}%s}`, a.Address, more, rest)
}

// register enters an instance of api at the agent, with a check that passes.
func register(t *testing.T, a *testkit.ConsulAgent, id, address string) {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	var n int
	_, _ = fmt.Sscan(port, &n)
	a.Do(t, http.MethodPut, "/v1/agent/service/register", map[string]any{
		"ID": id, "Name": "api", "Address": host, "Port": n,
		"Check": map[string]any{"CheckID": "check-" + id, "TTL": "10m", "Status": "passing"},
	})
}

// healthOf returns the health of the instances that the agent knows, by ID.
func healthOf(t *testing.T, a *testkit.ConsulAgent) map[string]string {
	t.Helper()
	var list []struct {
		Service struct{ ID string }
		Checks  []struct{ CheckID, Status string }
	}
	if err := json.Unmarshal(a.Do(t, http.MethodGet, "/v1/health/service/api", nil), &list); err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, s := range list {
		m[s.Service.ID] = ""
		for _, c := range s.Checks {
			if c.CheckID != "serfHealth" {
				m[s.Service.ID] = c.Status
			}
		}
	}
	return m
}

type watchView struct {
	Service    string
	AgeSeconds float64 `json:"age_seconds"`
	Stale      bool
	Endpoints  int
	LastError  string `json:"last_error"`
}

func (s *sidecar) watch() watchView {
	s.t.Helper()
	var list []watchView
	s.view("/discovery", &list)
	if len(list) != 1 {
		s.t.Fatalf("/discovery: %+v", list)
	}
	return list[0]
}

// Sidecars register themselves and leave, others follow that, and instances
// whose checks fail get no traffic. No request is lost over any of it.
func TestConsulIsFollowed(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{})
	m := newMesh(t)
	own := consulSection(agent, `, register: {meta: {by: e2e}, check: {ttl: 5s}}`, "")
	var list []*instance
	add := func(discovery, drain string) *instance {
		t.Helper()
		name := fmt.Sprintf("api-%d", len(list)+1)
		s, address := m.inbound("api", serve(t, named(name, echo(name))), sections{"discovery": discovery, "drain": drain})
		list = append(list, &instance{s, name, address})
		return list[len(list)-1]
	}
	first := add(own, "")
	first.ready()
	web, call := m.outbound("web", "api", sections{"discovery": consulSection(agent, "", "")})
	web.ready()
	eventually(t, patience, "api-1 has registered and is known", func() (bool, string) {
		return web.endpoint(first.address).Health == "passing", fmt.Sprint(healthOf(t, agent))
	})
	l := startLoad(t, "http://"+call+"/", loadOptions{})
	l.more(t, 20)

	// Long enough for the test to see that it goes on.
	second := add(own, "{delay: 5s, timeout: 5s}")
	eventually(t, patience, "api-2 has registered", func() (bool, string) {
		h := healthOf(t, agent)
		return len(h) == 2, fmt.Sprint(h)
	})
	eventually(t, patience, "api-2 gets traffic", func() (bool, string) { return l.answered("api-2") > 3, "" })

	third := add("", "")
	third.ready()
	register(t, agent, "third", third.address)
	eventually(t, patience, "api-3 gets traffic", func() (bool, string) { return l.answered("api-3") > 3, "" })
	agent.Do(t, http.MethodPut, "/v1/agent/check/fail/check-third", nil)
	eventually(t, patience, "api-3 is known as critical", func() (bool, string) {
		e := web.endpoint(third.address)
		return e.Health == "critical", fmt.Sprintf("%+v", e)
	})
	l.settled(t)
	before := l.answered("api-3")
	l.more(t, 30)
	if n := l.answered("api-3"); n != before {
		t.Errorf("api-3 has answered %d requests since it is critical", n-before)
	}
	agent.Do(t, http.MethodPut, "/v1/agent/check/pass/check-third", nil)
	eventually(t, patience, "api-3 gets traffic again", func() (bool, string) { return l.answered("api-3") > before+3, "" })
	agent.Do(t, http.MethodPut, "/v1/agent/service/deregister/third", nil)
	eventually(t, patience, "api-3 is gone", func() (bool, string) { return web.endpoint(third.address).Address == "", "" })

	// A sidecar that is told to stop leaves the catalog first and serves on
	// until that is known.
	answered := l.answered("api-2")
	second.signal(syscall.SIGTERM)
	eventually(t, patience, "api-2 has left the catalog", func() (bool, string) {
		h := healthOf(t, agent)
		return len(h) == 1, fmt.Sprint(h)
	})
	if !second.running() {
		t.Error("api-2 has ended before others could know that it is gone")
	}
	if code := second.code(patience); code != 0 {
		t.Errorf("api-2: exit code %d", code)
	}
	if l.answered("api-2") < answered {
		t.Error("the load's counts run backwards")
	}
	l.more(t, 20)
	l.mustEnd(t, 150)

	// One that is killed turns critical. The agent is asked for what it knows itself:
	// it may take a minute to enter that in the catalog.
	first.kill()
	eventually(t, patience, "api-1 is critical", func() (bool, string) {
		var checks map[string]struct{ ServiceName, Status string }
		body := agent.Do(t, http.MethodGet, "/v1/agent/checks", nil)
		if err := json.Unmarshal(body, &checks); err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			if c.ServiceName == "api" && c.Status == "critical" {
				return true, ""
			}
		}
		return false, string(body)
	})
}

// While Consul is away traffic goes on and the age of the data is shown; a
// sidecar that starts in that time serves from its snapshot; when Consul is
// back it is followed again.
func TestConsulStopped(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{})
	m := newMesh(t)
	list := m.instances(2, echo, nil)
	register(t, agent, "one", list[0].address)
	snapshot := filepath.Join(m.dir, "state", "snapshot.json")
	web, call := m.outbound("web", "api", sections{"discovery": consulSection(agent, "", fmt.Sprintf(`, snapshot: "%s"`, snapshot))})
	web.ready()
	eventually(t, patience, "the snapshot is written", func() (bool, string) {
		found, _ := filepath.Glob(snapshot)
		return len(found) == 1, ""
	})
	l := startLoad(t, "http://"+call+"/", loadOptions{Workers: 2})
	agent.Stop(t)
	eventually(t, patience, "the trouble is shown", func() (bool, string) {
		w := web.watch()
		return w.LastError != "" && w.Stale && w.Endpoints == 1, fmt.Sprintf("%+v", w)
	})
	age := web.watch().AgeSeconds
	l.more(t, 50)
	eventually(t, patience, "the age grows", func() (bool, string) {
		w := web.watch()
		return w.AgeSeconds > age+0.5 && web.metric("outrigger_discovery_age_seconds", `service="api"`) > age+0.5, fmt.Sprintf("%+v", w)
	})
	web.counts(1, "outrigger_discovery_errors_total", `service="api"`)
	if status, body := web.get("/ready"); status != http.StatusOK {
		t.Errorf("/ready: %d %s", status, body)
	}
	l.mustEnd(t, 50)

	web.kill()
	web.start()
	web.ready()
	web.says("stale", "api")
	if w := web.watch(); !w.Stale || w.Endpoints != 1 || w.AgeSeconds <= 0 {
		t.Errorf("after a cold start: %+v", w)
	}
	if s := mustSee(t, "http://"+call+"/"); s.Instance != "api-1" {
		t.Errorf("%+v", s)
	}

	agent.Start(t)
	eventually(t, patience, "Consul's own answer is in use", func() (bool, string) {
		w := web.watch()
		return !w.Stale && w.LastError == "", fmt.Sprintf("%+v", w)
	})
	register(t, agent, "two", list[1].address)
	eventually(t, patience, "changes are followed again", func() (bool, string) {
		return web.endpoint(list[1].address).Health == "passing", ""
	})
}

// A sidecar whose token allows nothing is not ready and says which permission
// is missing; it recovers when the token file gets a better one.
func TestConsulToken(t *testing.T) {
	t.Parallel()
	agent := testkit.Consul(t, testkit.ConsulOptions{ACL: true})
	m := newMesh(t)
	api, address := m.inbound("api", serve(t, echo("api")), nil)
	api.ready()
	register(t, agent, "one", address)
	file := filepath.Join(m.dir, "token")
	const wrong = "00000000-0000-4000-8000-00000000dead"
	writeFile(t, file, wrong+"\n")
	web, call := m.outbound("web", "api", sections{"discovery": consulSection(agent, fmt.Sprintf(`, token_file: "%s"`, file), "")})
	eventually(t, patience, "the missing permission is named", func() (bool, string) {
		status, body := web.get("/ready")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "service:read"), body
	})
	web.says("discovery_failed", "403", "service:read")
	if strings.Contains(web.out.String(), wrong) {
		t.Error("the token is in the log")
	}
	writeFile(t, file, agent.Token+"\n")
	eventually(t, patience, "it is ready with a good token", func() (bool, string) {
		status, body := web.get("/ready")
		return status == http.StatusOK, body
	})
	mustSee(t, "http://"+call+"/")
}
