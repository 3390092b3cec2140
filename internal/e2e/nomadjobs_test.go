package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// allocation is one group of a job that runs.
type allocation struct {
	m      *nomadMesh
	ID     string
	Status string `json:"ClientStatus"`
	Group  string `json:"TaskGroup"`
	Tasks  map[string]struct {
		State    string
		Failed   bool
		Restarts int
		Events   []struct{ Type, DisplayMessage string }
	} `json:"TaskStates"`
	Resources struct {
		Shared struct {
			Ports []struct {
				Label  string
				Value  int
				HostIP string
			}
		}
	} `json:"AllocatedResources"`
}

// run runs a job of testdata/nomad and waits until all of its tasks do.
func (m *nomadMesh) run(job string) map[string]*allocation {
	m.t.Helper()
	m.command("job", "run", "-detach", filepath.Join("testdata", "nomad", job+".nomad.hcl"))
	var groups map[string]*allocation
	m.t.Cleanup(func() {
		if m.t.Failed() {
			for _, a := range groups {
				m.t.Logf("logs of %s:\n%s", a.Group, a.logs())
			}
		}
	})
	m.eventually("the tasks of "+job+" run", func() (bool, string) {
		groups = m.allocations(job)
		all, failed, state := len(groups) > 0, false, ""
		for name, a := range groups {
			all = all && a.Status == "running"
			for task, s := range a.Tasks {
				all, failed = all && s.State == "running", failed || s.Failed
				state += fmt.Sprintf("\n%s/%s: %s", name, task, s.State)
				for _, e := range s.Events {
					state += "\n\t" + e.Type + ": " + e.DisplayMessage
				}
			}
		}
		if failed {
			m.t.Fatalf("a task of %s has failed%s", job, state)
		}
		return all, state
	})
	return groups
}

// allocations are those of a job, by their group.
func (m *nomadMesh) allocations(job string) map[string]*allocation {
	m.t.Helper()
	var stubs []struct{ ID string }
	if err := m.get("/v1/job/"+job+"/allocations", &stubs); err != nil {
		return nil
	}
	groups := map[string]*allocation{}
	for _, s := range stubs {
		a := &allocation{m: m}
		if m.get("/v1/allocation/"+s.ID, a) == nil {
			groups[a.Group] = a
		}
	}
	return groups
}

// address is where a port of the allocation can be called from the machine.
func (a *allocation) address(label string) string {
	a.m.t.Helper()
	for _, p := range a.Resources.Shared.Ports {
		if p.Label == label {
			return p.HostIP + ":" + strconv.Itoa(p.Value)
		}
	}
	a.m.t.Fatalf("the allocation of %s has no port %s", a.Group, label)
	return ""
}

// logs are what the tasks of the allocation have written.
func (a *allocation) logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(nomadRoot, "nomad", "alloc", a.ID, "alloc", "logs", "*.0"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(file), tail(string(text), 6000))
	}
	return b.String()
}

// calls has the application of an allocation call a URL until the answer is as wanted.
func (a *allocation) calls(what, target string, want int) {
	a.m.t.Helper()
	u := "http://" + a.address("app") + "/call?url=" + url.QueryEscape(target)
	settlesWithin(a.m.t, nomadPatience, what, http.MethodGet, u, nil, gives(want))
}

// passing waits until an instance of a service passes its checks, as Consul has it.
func (m *nomadMesh) passing(service string, want int) {
	m.t.Helper()
	m.eventually(fmt.Sprintf("%d instances of %s pass their checks", want, service), func() (bool, string) {
		var got []any
		answer := m.agent.Do(m.t, http.MethodGet, "/v1/health/service/"+service+"?passing", nil)
		if err := json.Unmarshal(answer, &got); err != nil {
			m.t.Fatal(err)
		}
		return len(got) == want, string(m.agent.Do(m.t, http.MethodGet, "/v1/health/service/"+service, nil))
	})
}

// stop stops a job and waits until its tasks have ended: the sidecars in order,
// within the time that Nomad gives them.
func (m *nomadMesh) stop(job string) {
	m.t.Helper()
	m.command("job", "stop", "-detach", job)
	m.eventually("the tasks of "+job+" have ended", func() (bool, string) {
		for _, a := range m.allocations(job) {
			if a.Status != "complete" {
				return false, a.Group + " is " + a.Status
			}
		}
		return true, ""
	})
	for _, a := range m.allocations(job) {
		if logs := a.logs(); !strings.Contains(logs, "event=drained") {
			m.t.Errorf("the sidecar of %s has not drained", a.Group)
		}
		for name, task := range a.Tasks {
			for _, e := range task.Events {
				if strings.Contains(e.DisplayMessage, "Signal: 9") {
					m.t.Errorf("%s was killed: %s", name, e.DisplayMessage)
				}
			}
		}
	}
}
